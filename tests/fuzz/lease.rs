//! What the lease reads from outside: renewals at a node, answers at a guard, holds between guards, the guard's files, and
//! what `nft` and the kernel say of the gate.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use prost::Message;
use tonic::{Code, Request};
use watchdog::api::lease::{LeaseDesk, LeaseService, Told, Word};
use watchdog::domain::identity::Caller;
use watchdog::domain::ids::{ClusterName, GroupName, HostName, Token, UnixMs};
use watchdog::domain::lease::{GateSeen, LeaseRequest, silence_ms};
use watchdog::guard::egress::{nft, sockets};
use watchdog::guard::host::{boot_nonce, boottime_ms};
use watchdog::guard::lease::config::TTL_MS_MAX;
use watchdog::guard::lease::files::{self, GlassRecord, Now};
use watchdog::guard::lease::hold::{self, HoldRecord};
use watchdog::guard::lease::keeper::{Action, Glass, Keeper, LeaseRecord, Look, Settings};
use watchdog::guard::lease::wire;
use watchdog::guard::records::{self, seal};
use watchdog::guard::token_store::GroupFiles;
use watchdog::proto::lease_server::Lease;
use watchdog::proto::{GateState, HoldGround, HoldReply, HoldRequest, LeaseWord, RenewReply, RenewRequest};
use watchdog::tls::Dialer;

use crate::corpus;
use crate::runner::{Target, Trial, holds, printable, runtime};
use crate::standin::{Log, StandInNode};

const TTL_MS: u64 = 2000;
const NONCE: u64 = 1;

/// Keeps what it was asked.
#[derive(Default)]
struct Desk(Mutex<Option<LeaseRequest>>);

#[async_trait]
impl LeaseDesk for Desk {
    fn cluster(&self) -> (ClusterName, u64) {
        ("demo".into(), 1)
    }

    async fn renew(&self, request: LeaseRequest, _challenge: u64, told: Told) -> Result<Word, String> {
        let why = match &request.gate {
            GateSeen::Absent { why } => format!("the gate of {} is not in force: {why}", request.host),
            _ => String::new(),
        };
        assert!(told.holds.len() <= 16, "{told:?}");
        *self.0.lock().unwrap() = Some(request);
        let (holders, ground) = (vec!["db-hanoi".into()], Some(Token { epoch: 1, n: 3 }));
        Ok(Word { word: LeaseWord::Granted, why, bound: true, holders, ground, ttl_ms: TTL_MS, challenge: 7 })
    }
}

fn renewals() -> Vec<Vec<u8>> {
    let asked = |gate: GateState, detail: &str, forwarded| RenewRequest {
        cluster: "demo".to_owned(),
        epoch: 1,
        group: "aicamera".to_owned(),
        host: "db-hcmc".to_owned(),
        region: "hcmc".to_owned(),
        ttl_ms: TTL_MS,
        gate: gate.into(),
        gate_detail: detail.to_owned(),
        holders: vec!["db-hanoi".to_owned()],
        nonce: NONCE,
        forwarded,
        challenge: 7,
        ..RenewRequest::default()
    };
    [
        asked(GateState::Bounded, "bpf at /sys/fs/cgroup/postgresql, port 5432", false),
        asked(GateState::OpenEnded, "", true),
        asked(GateState::Absent, "no server runs", false),
    ]
    .iter()
    .map(Message::encode_to_vec)
    .collect()
}

pub fn any_renewal_is_taken_with_sound_words_or_refused_by_its_field() -> Trial {
    let runtime = runtime();
    let node = StandInNode::new(3, &Log::new());
    node.lead();
    let desk = Arc::new(Desk::default());
    let service = LeaseService::new(node, Dialer::Plain, desk.clone());
    Target::new("lease-requests", renewals()).cases(1000).judged_by(move |bytes| {
        let Ok(request) = RenewRequest::decode(bytes) else { return Ok(()) };
        let nonce = request.nonce;
        *desk.0.lock().unwrap() = None;
        let mut request = Request::new(request);
        request.extensions_mut().insert(Caller::Unproven);
        let answer = runtime.block_on(service.renew(request));
        let asked = desk.0.lock().unwrap().take();
        match (answer, asked) {
            (Ok(answer), Some(asked)) => {
                let answer = answer.into_inner();
                holds(answer.nonce == nonce, || format!("{nonce} is answered as {}", answer.nonce))?;
                holds(!asked.may_bind && asked.ttl_ms > 0 && asked.holders.len() <= 16, || format!("{asked:?}"))?;
                let words = [asked.host.as_str(), asked.region.as_str(), asked.group.as_str(), &answer.why];
                words.iter().try_for_each(|word| printable(word))
            }
            (Err(refused), None) => {
                let text = refused.message();
                holds(refused.code() == Code::InvalidArgument && text.len() < 4000, || format!("{refused}"))?;
                printable(text)
            }
            (answer, asked) => Err(format!("{answer:?} although the desk had {asked:?}")),
        }
    })
}

fn answers() -> Vec<Vec<u8>> {
    let said = |word: LeaseWord, why: &str, bound, holders: &[&str]| RenewReply {
        nonce: NONCE,
        word: word.into(),
        why: why.to_owned(),
        bound,
        holders: holders.iter().map(|host| (*host).to_owned()).collect(),
        ground: Some(HoldGround { epoch: 1, n: 3 }),
        ttl_ms: TTL_MS,
        challenge: 7,
    };
    [
        said(LeaseWord::Granted, "", true, &["db-hanoi", "db-hue"]),
        said(LeaseWord::OpenEnded, "paused by linh: planned work", false, &[]),
        said(LeaseWord::Denied, "hanoi serves, not hcmc", true, &["db-hanoi"]),
    ]
    .iter()
    .map(Message::encode_to_vec)
    .collect()
}

/// A keeper that has asked under nonce [`NONCE`] at 1 s.
fn keeper(found: Option<LeaseRecord>) -> (Keeper, u64) {
    let settings =
        Settings { ttl_ms: TTL_MS, nodes: 3, holders: vec!["db-hanoi".into()], boot_nonce: "b".to_owned(), unix_ms: 7 };
    let (mut keeper, _) = Keeper::start(settings, found);
    keeper.saved();
    let gate = GateSeen::Bounded { evidence: "bpf".to_owned() };
    let look = Look { now_ms: 1000, may_serve: true, latched: false, gate, glass: Glass::Whole };
    let asked = keeper.looked(&look).into_iter().find_map(|action| match action {
        Action::AskNode { nonce, .. } => Some(nonce),
        _ => None,
    });
    (keeper, asked.unwrap())
}

pub fn any_answer_of_a_leader_extends_no_longer_than_the_ttl_and_leaves_a_record_that_can_be_read() -> Trial {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lease.json");
    Target::new("lease-answers", answers())
        .cases(1000)
        .judged_by(move |bytes| {
            let Ok(reply) = RenewReply::decode(bytes) else { return Ok(()) };
            let word = reply.word();
            holds(wire::read_renewal(reply.clone(), reply.nonce ^ 1).is_err(), || {
                "another request's counts".to_owned()
            })?;
            let nonce = reply.nonce;
            let said = match wire::read_renewal(reply, nonce) {
                Err(why) => {
                    holds(why.len() < 4000, || format!("{} bytes of error", why.len()))?;
                    return printable(&why);
                }
                Ok((said, _)) => said,
            };
            printable(&said.why)?;
            let (mut keeper, asked) = keeper(None);
            let mut actions = keeper.answered(1100, asked, Some(&said));
            while let Some(action) = actions.pop() {
                match action {
                    Action::ExtendUntil(until_ms) => {
                        let is_granted = word != LeaseWord::Denied && until_ms <= 1000 + TTL_MS;
                        holds(is_granted, || format!("until {until_ms} after {word:?}"))?;
                    }
                    Action::Open => holds(word == LeaseWord::OpenEnded, || format!("opened by {word:?}"))?,
                    Action::Save(record) => {
                        records::write_durably(&path, &record).unwrap();
                        let found = records::read::<LeaseRecord>(&path).map_err(|e| e.to_string())?;
                        holds(found == record, || format!("{found:?}"))?;
                        actions.extend(keeper.saved());
                    }
                    _ => {}
                }
            }
            printable(keeper.said())
        })
        .keeping(folder)
}

fn grounds() -> Vec<Vec<u8>> {
    let ground = Some(HoldGround { epoch: 1, n: 3 });
    let ask = HoldRequest {
        cluster: "demo".to_owned(),
        epoch: 1,
        group: "aicamera".to_owned(),
        host: "db-hcmc".to_owned(),
        ttl_ms: TTL_MS,
        ground,
        nonce: NONCE,
    };
    vec![ask.encode_to_vec(), HoldRequest { ground: None, ..ask }.encode_to_vec()]
}

pub fn any_request_for_a_hold_is_refused_by_its_field_or_fits_a_record_that_can_be_read() -> Trial {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hold.json");
    Target::new("hold-requests", grounds())
        .cases(1000)
        .judged_by(move |bytes| {
            let Ok(request) = HoldRequest::decode(bytes) else { return Ok(()) };
            let ask = match wire::asked_for_hold(&request) {
                Err(refused) => {
                    let text = refused.message();
                    holds(refused.code() == Code::InvalidArgument && text.len() < 200, || format!("{refused}"))?;
                    return printable(text);
                }
                Ok(ask) => ask,
            };
            let record = HoldRecord {
                boot_nonce: boot_nonce(),
                until_boottime_ms: u64::MAX,
                lasts_ms: silence_ms(ask.ttl_ms),
                host: ask.host,
                ground: ask.ground,
            };
            records::write_durably(&path, &record).unwrap();
            let found = records::read::<HoldRecord>(&path).map_err(|e| e.to_string())?;
            holds(found == record, || format!("{found:?}"))
        })
        .keeping(folder)
}

pub fn any_answer_of_a_standby_holds_only_where_it_says_so_to_this_request() -> Trial {
    let reply = |granted, why: &str| HoldReply { nonce: NONCE, granted, why: why.to_owned() }.encode_to_vec();
    let corpus = vec![reply(true, ""), reply(false, "token 1.4 was raised here, above the ground 1.3")];
    Target::new("hold-answers", corpus).cases(1000).judged_by(move |bytes| {
        let Ok(reply) = HoldReply::decode(bytes) else { return Ok(()) };
        let is_ours = reply.nonce == NONCE && reply.granted;
        match wire::read_hold(reply, NONCE) {
            Ok(()) => holds(is_ours, || "held by another's word".to_owned()),
            Err(why) => {
                holds(!is_ours && why.len() < 4000, || why.clone())?;
                printable(&why)
            }
        }
    })
}

fn record() -> LeaseRecord {
    let ground = Some(Token { epoch: 1, n: 3 });
    LeaseRecord { bound: true, holders: vec!["db-hanoi".into()], ground, bounded: false, ..LeaseRecord::missing() }
}

fn held() -> HoldRecord {
    HoldRecord {
        boot_nonce: boot_nonce(),
        until_boottime_ms: boottime_ms() + 1000 * 3_600_000,
        lasts_ms: silence_ms(TTL_MS),
        host: HostName::from("db-hcmc"),
        ground: Token { epoch: 1, n: 3 },
    }
}

fn now() -> Now {
    Now {
        boot_nonce: boot_nonce(),
        at_boottime_ms: boottime_ms(),
        ttl_ms: TTL_MS_MAX,
        may_serve: true,
        open_ended: false,
        until_boottime_ms: boottime_ms() + TTL_MS_MAX - 1000,
        gate: "bounded (bpf)".to_owned(),
        commit_gate: None,
        installed: true,
        said: "granted by the cluster".to_owned(),
    }
}

fn word() -> GlassRecord {
    let reason = "the cluster is lost".to_owned();
    GlassRecord { boot_nonce: boot_nonce(), own_the_fence: true, reason, at: UnixMs(1_795_231_050_123) }
}

/// One damaged file must never let pass more, or promote more, than a missing one.
pub fn any_bytes_in_the_leases_files_are_what_was_written_or_taken_for_the_safe_thing() -> Trial {
    let folder = tempfile::tempdir().unwrap();
    let group = GroupName::from("aicamera");
    let files = GroupFiles::new(folder.path(), &group);
    fs::create_dir_all(files.dir()).unwrap();
    let (lease, hold, now, glass) = (record(), held(), now(), word());
    let corpus = vec![seal(&lease), seal(&hold), seal(&now), seal(&glass)].into_iter().map(String::into_bytes);
    Target::new("lease-files", corpus.collect())
        .cases(600)
        .judged_by(move |bytes| {
            for path in [files.lease(), files.hold(), files.lease_now(), files.glass()] {
                fs::write(path, bytes).unwrap();
            }
            match records::read::<LeaseRecord>(&files.lease()) {
                Ok(found) => holds(found == lease, || format!("{found:?}"))?,
                Err(why) => holds(why.to_string().contains("lease"), || why.to_string())?,
            }
            match hold::standing(&files) {
                Ok(found) => holds(found.is_some_and(|found| found.host == hold.host), || "no hold".to_owned())?,
                Err(why) => {
                    let forbidden = hold::forbids_promotion(&files, &group, None);
                    holds(forbidden.is_some_and(|words| words.contains(&why.to_string())), || why.to_string())?;
                }
            }
            match files::now(&files) {
                Ok(found) => holds(found == now, || format!("{found:?}"))?,
                Err(why) => holds(why.contains("watchdog-guard serve"), || why)?,
            }
            let is_ours = records::read::<GlassRecord>(&files.glass()).is_ok_and(|found| found == glass);
            let expected = if is_ours { Glass::Broken } else { Glass::Whole };
            holds(files::glass(&files) == expected, || "another word".to_owned())
        })
        .keeping(folder)
}

/// Even with a checksum that holds: no number in them breaks anything, and a hold never ends early by overflow.
pub fn any_sealed_record_of_the_lease_is_borne() -> Trial {
    let json = |text: String| text.split_once(' ').unwrap().1.trim_end().as_bytes().to_vec();
    let corpus = vec![json(seal(&record())), json(seal(&held())), json(seal(&now()))];
    Target::new("lease-records", corpus).cases(1000).judged_by(move |bytes| {
        if let Ok(found) = serde_json::from_slice::<LeaseRecord>(bytes) {
            let bounded = found.bounded || found.boot_nonce != "b";
            let (keeper, _) = keeper(Some(found));
            holds(keeper.is_open_ended() != bounded, || "opened by another boot's record".to_owned())?;
        }
        if let Ok(found) = serde_json::from_slice::<HoldRecord>(bytes) {
            for now_ms in [0, boottime_ms(), TTL_MS_MAX, u64::MAX] {
                let left_ms = found.remaining_ms(&boot_nonce(), now_ms);
                holds(left_ms <= found.until_boottime_ms.max(found.lasts_ms), || format!("{left_ms} ms of {found:?}"))?;
            }
        }
        if let Ok(found) = serde_json::from_slice::<Now>(bytes) {
            let passes = found.passes(boottime_ms());
            holds(!passes || found.installed, || "passes without a gate".to_owned())?;
            let _ = found.in_words();
        }
        Ok(())
    })
}

pub fn any_listing_of_nft_is_the_gate_as_written_or_amiss() -> Trial {
    const PORT: u16 = 5432;
    let corpus = corpus::of("nft-list");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let genuine: Vec<_> = corpus.iter().map(|bytes| nft::listed(&text(bytes), PORT).unwrap()).collect();
    let known: BTreeMap<u64, ()> = genuine.iter().map(|(deadline, _)| (*deadline, ())).collect();
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [0, 123_456_789_012, u64::MAX]);
    // All but the deadline is the same in each: that is what is compared with what was written.
    assert!(genuine.iter().all(|(_, lasting)| lasting == &genuine[0].1));
    Target::new("nft-listings", corpus).judged_by(move |bytes| match nft::listed(&text(bytes), PORT) {
        Ok((deadline, lasting)) => {
            let is_open = deadline == u64::MAX;
            holds(!is_open || text(bytes).contains("18446744073709551615"), || "open by itself".to_owned())?;
            holds(lasting.len() <= bytes.len(), || format!("{} rows", lasting.len()))
        }
        Err(why) => {
            let why = why.to_string();
            holds(why.len() < 400, || format!("{} bytes of error", why.len()))?;
            printable(&why)
        }
    })
}

pub fn any_answer_of_the_kernel_lists_sockets_of_the_port_or_ends() -> Trial {
    const PORT: u16 = 5433;
    let corpus = corpus::of("sock-diag");
    assert!(corpus.iter().all(|bytes| !sockets::peers_in(bytes, PORT).unwrap().is_empty()));
    Target::new("kernels-sockets", corpus).cases(1000).judged_by(move |bytes| match sockets::peers_in(bytes, PORT) {
        // Each takes a message of its own.
        Ok(peers) => holds(peers.len() <= bytes.len() / 72, || format!("{} of {} bytes", peers.len(), bytes.len())),
        Err(why) => holds(why.raw_os_error().is_some(), || why.to_string()),
    })
}
