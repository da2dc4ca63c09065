//! The keeper by table, and by random histories against a model of the cluster, a standby, the kernel and the disk.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::domain::lease::silence_ms;

const TTL_MS: u64 = 2000;
const STANDBY: &str = "db-hanoi";

fn settings(boot: &str, unix_ms: u64) -> Settings {
    let holders = vec![STANDBY.into()];
    Settings { ttl_ms: TTL_MS, nodes: 3, holders, boot_nonce: boot.to_owned(), unix_ms }
}

fn bounded() -> GateSeen {
    GateSeen::Bounded { evidence: "bpf".to_owned() }
}

fn look(now_ms: u64, gate: GateSeen) -> Look {
    Look { now_ms, may_serve: true, latched: false, gate, glass: Glass::Whole }
}

fn said(word: Word) -> Said {
    let ground = Some(Token { epoch: 1, n: 3 });
    Said { word, why: "so it is".to_owned(), bound: true, holders: vec![STANDBY.into()], ground, ttl_ms: TTL_MS }
}

/// A keeper whose record is durable.
fn keeper(found: Option<LeaseRecord>) -> Keeper {
    let (mut keeper, first) = Keeper::start(settings("b", 7), found);
    assert!(matches!(first[..], [Action::Save(_)]));
    assert_eq!(keeper.saved(), vec![]);
    keeper
}

fn open_record(boot: &str) -> LeaseRecord {
    LeaseRecord { boot_nonce: boot.to_owned(), bounded: false, ..LeaseRecord::missing() }
}

/// The nonce, node and attested gate of the request among these.
fn asked(actions: &[Action]) -> Option<(u64, usize, GateSeen)> {
    actions.iter().find_map(|action| match action {
        Action::AskNode { nonce, node, gate, .. } => Some((*nonce, *node, gate.clone())),
        _ => None,
    })
}

fn asked_holder(actions: &[Action]) -> Option<u64> {
    actions.iter().find_map(|action| match action {
        Action::AskHolder { nonce, .. } => Some(*nonce),
        _ => None,
    })
}

#[test]
fn a_grant_counts_from_when_its_request_was_sent_and_a_late_one_not_at_all() {
    for (answered_ms, extended) in [(1100, true), (2999, true), (3000, false), (3_600_000, false)] {
        let mut keeper = keeper(None);
        let (nonce, ..) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
        assert_eq!(keeper.answered(answered_ms, nonce + 1000, Some(&said(Word::Granted))), vec![], "another nonce");
        let actions = keeper.answered(answered_ms, nonce, Some(&said(Word::Granted)));
        assert_eq!(actions.contains(&Action::ExtendUntil(3000)), extended, "at {answered_ms}: {actions:?}");
        let again = keeper.answered(answered_ms, nonce, Some(&said(Word::Granted)));
        assert_eq!(again, vec![], "the same answer twice");
    }
}

#[test]
fn the_shorter_ttl_counts() {
    let mut keeper = keeper(None);
    let (nonce, ..) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
    let shorter = Said { ttl_ms: 700, ..said(Word::Granted) };
    assert!(keeper.answered(1100, nonce, Some(&shorter)).contains(&Action::ExtendUntil(1700)));
    keeper.saved();
    let again = keeper.looked(&look(1400, bounded()));
    assert!(again.iter().any(|action| matches!(action, Action::AskNode { ttl_ms: 700, .. })), "{again:?}");
}

#[test]
fn a_missing_record_and_one_of_an_earlier_boot_mean_bounded() {
    for (found, is_open) in [(None, false), (Some(open_record("a")), false), (Some(open_record("b")), true)] {
        let mut keeper = keeper(found);
        let actions = keeper.looked(&look(1000, GateSeen::Absent { why: "not installed".to_owned() }));
        assert_eq!(actions.contains(&Action::Open), is_open, "{actions:?}");
        assert!(actions.contains(&Action::Install));
    }
}

#[test]
fn the_gate_is_opened_by_the_answer_to_the_newest_request_once_that_is_durable() {
    let mut keeper = keeper(None);
    let (first, ..) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
    let (second, ..) = asked(&keeper.looked(&look(1400, bounded()))).expect("asked");
    let open = Said { bound: false, ..said(Word::OpenEnded) };
    let actions = keeper.answered(1500, first, Some(&open));
    assert!(!actions.contains(&Action::Open) && !keeper.is_open_ended(), "{actions:?}");
    keeper.saved();
    assert_eq!(asked(&keeper.looked(&look(1800, bounded()))), None, "the newest waits for its answer alone");
    let actions = keeper.answered(1900, second, Some(&open));
    let saves = |actions: &[Action]| matches!(actions.last(), Some(Action::Save(record)) if !record.bounded);
    assert!(saves(&actions) && actions.contains(&Action::ExtendUntil(3400)), "{actions:?}");
    assert_eq!(keeper.looked(&look(2200, bounded())), vec![], "nothing is asked while it is written");
    keeper.not_saved();
    assert!(!keeper.is_open_ended());
    let (third, _, gate) = asked(&keeper.looked(&look(2600, bounded()))).expect("asked");
    assert_eq!(gate, bounded());
    assert!(saves(&keeper.answered(2700, third, Some(&open))));
    assert_eq!(keeper.saved(), vec![Action::Install, Action::Open]);
    let (fourth, _, gate) = asked(&keeper.looked(&look(3000, bounded()))).expect("asked");
    assert_eq!(gate, GateSeen::OpenEnded, "what may be opened at any moment is not attested as bounded");
    // The cluster counts on it again: bounded durably, then in the kernel, then attested.
    let actions = keeper.answered(3100, fourth, Some(&said(Word::Granted)));
    assert!(matches!(actions[..], [Action::Save(ref record)] if record.bounded), "{actions:?}");
    let bounds = vec![Action::Install, Action::BoundAt(5000), Action::ExtendUntil(5000)];
    assert_eq!(keeper.saved(), bounds);
}

#[test]
fn what_is_denied_is_not_extended_and_what_stood_open_is_shut() {
    let mut keeper = keeper(Some(open_record("b")));
    let (nonce, ..) = asked(&keeper.looked(&look(1000, GateSeen::OpenEnded))).expect("asked");
    keeper.answered(1100, nonce, Some(&said(Word::Denied)));
    assert_eq!(keeper.saved(), vec![Action::Install, Action::BoundAt(0), Action::ExtendUntil(0)]);
    assert!(keeper.said().contains("denied: so it is"));
    let actions = keeper.looked(&look(1400, bounded()));
    assert_eq!(asked_holder(&actions), None, "a denial ends holds");
}

#[test]
fn every_holder_of_the_binding_must_hold_and_a_denial_ends_that() {
    let mut keeper = keeper(None);
    let (nonce, ..) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
    keeper.answered(1100, nonce, Some(&said(Word::Granted)));
    keeper.saved();
    // From here on no leader answers.
    let held = asked_holder(&keeper.looked(&look(1400, bounded()))).expect("asked");
    assert_eq!(keeper.held(1500, held, true), vec![Action::ExtendUntil(3400)]);
    let refused = asked_holder(&keeper.looked(&look(1800, bounded()))).expect("asked");
    assert_eq!(keeper.held(1900, refused, false), vec![]);
    let late = asked_holder(&keeper.looked(&look(2200, bounded()))).expect("asked");
    assert_eq!(keeper.held(4200, late, true), vec![], "too late");
    let actions = keeper.looked(&look(4400, bounded()));
    let named =
        actions.iter().any(|action| matches!(action, Action::AskNode { holders, .. } if holders == &[STANDBY.into()]));
    assert!(named, "a holder of the binding stays named: {actions:?}");
    let held = asked_holder(&actions).expect("asked");
    let (nonce, ..) = asked(&actions).expect("asked");
    keeper.answered(4500, nonce, Some(&said(Word::Denied)));
    keeper.saved();
    assert_eq!(keeper.held(4600, held, true), vec![], "asked for before the denial");

    // Without a binding, or with one that names nobody, or somebody unknown, no hold renews anything.
    for (bound, holders) in [(false, vec![STANDBY]), (true, vec![]), (true, vec![STANDBY, "db-hue"])] {
        let mut keeper = super::tests::keeper(None);
        let (nonce, ..) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
        let holders = holders.into_iter().map(HostName::from).collect();
        keeper.answered(1100, nonce, Some(&Said { bound, holders, ..said(Word::Granted) }));
        keeper.saved();
        let held = asked_holder(&keeper.looked(&look(1400, bounded()))).expect("asked");
        assert_eq!(keeper.held(1500, held, true), vec![], "{bound}");
    }
}

#[test]
fn holds_go_on_after_a_restart_while_no_leader_answers() {
    let found = LeaseRecord {
        bound: true,
        holders: vec![STANDBY.into()],
        ground: Some(Token { epoch: 1, n: 3 }),
        ..LeaseRecord::missing()
    };
    let mut keeper = keeper(Some(found));
    let held = asked_holder(&keeper.looked(&look(1000, bounded()))).expect("asked");
    assert_eq!(keeper.held(1100, held, true), vec![Action::ExtendUntil(3000)]);
}

#[test]
fn a_latch_a_standby_and_broken_glass() {
    let mut latched = keeper(Some(open_record("b")));
    let (nonce, ..) = asked(&latched.looked(&look(1000, GateSeen::OpenEnded))).expect("asked");
    let actions = latched.looked(&Look { latched: true, ..look(1400, GateSeen::OpenEnded) });
    assert!(matches!(actions[..], [Action::BoundAt(0), Action::Save(_)]), "{actions:?}");
    latched.saved();
    assert_eq!(latched.answered(1500, nonce, Some(&said(Word::Granted))), vec![], "asked for before the latch");

    // Booted since it was latched: nothing is released before there is a gate, shut.
    let mut booted = keeper(Some(open_record("a")));
    let absent = || Look { latched: true, ..look(1000, GateSeen::Absent { why: String::new() }) };
    assert_eq!(booted.looked(&absent()), vec![Action::Install]);
    assert_eq!(booted.looked(&Look { may_serve: false, ..absent() }), vec![]);

    let mut standby = keeper(None);
    assert_eq!(
        standby.looked(&Look { may_serve: false, ..look(1000, GateSeen::Absent { why: String::new() }) }),
        vec![]
    );

    let mut broken = keeper(None);
    let actions = broken.looked(&Look { glass: Glass::Broken, ..look(1000, bounded()) });
    assert!(matches!(actions[..], [Action::Save(ref record)] if !record.bounded), "{actions:?}");
    assert_eq!(broken.saved(), vec![Action::Install, Action::Open]);
    let actions = broken.looked(&Look { glass: Glass::Broken, ..look(1400, GateSeen::OpenEnded) });
    let (nonce, _, gate) = asked(&actions).expect("still asked");
    assert_eq!(gate, GateSeen::OpenEnded);
    for word in [Word::Granted, Word::Denied] {
        broken.answered(1500, nonce, Some(&said(word)));
        assert!(broken.is_open_ended(), "the operator owns the fence");
    }

    let mut asking = keeper(None);
    let actions = asking.looked(&Look { glass: Glass::Asked, ..look(1000, bounded()) });
    let (nonce, _, gate) = asked(&actions).expect("asked");
    assert_eq!(gate, GateSeen::OpenEnded, "so that the cluster counts on it no more");
    asking.answered(1100, nonce, Some(&said(Word::Denied)));
    asking.saved();
    assert!(!asking.is_open_ended());
    let actions = asking.looked(&Look { glass: Glass::Asked, ..look(1400, bounded()) });
    let (nonce, ..) = asked(&actions).expect("asked");
    asking.answered(1500, nonce, Some(&Said { bound: false, ..said(Word::Granted) }));
    assert_eq!(asking.saved(), vec![Action::Install, Action::Open]);
}

#[test]
fn a_node_that_is_silent_or_fails_is_left_for_the_next() {
    let mut keeper = keeper(None);
    let (first, node, _) = asked(&keeper.looked(&look(1000, bounded()))).expect("asked");
    assert_eq!(node, 0);
    let (second, node, _) = asked(&keeper.looked(&look(1400, bounded()))).expect("asked");
    assert_eq!(node, 1);
    keeper.answered(1500, second, None);
    let (third, node, _) = asked(&keeper.looked(&look(1800, bounded()))).expect("asked");
    assert_eq!(node, 2);
    keeper.answered(1900, third, Some(&said(Word::Granted)));
    keeper.saved();
    assert_eq!(asked(&keeper.looked(&look(2200, bounded()))).map(|(_, node, _)| node), Some(2), "who answers is kept");
    // The slow one was granted too: it was sent earlier, and is worth less.
    assert_eq!(keeper.answered(2300, first, Some(&said(Word::Granted))), vec![]);
}

fn absent() -> GateSeen {
    GateSeen::Absent { why: "not installed yet".to_owned() }
}

/// A standby's keeper that has seen it promoted, and its first request.
fn promoted(found: Option<LeaseRecord>) -> (Keeper, Vec<Action>) {
    let mut keeper = keeper(found);
    assert_eq!(keeper.looked(&Look { may_serve: false, ..look(1000, absent()) }), vec![]);
    let actions = keeper.looked(&look(1400, absent()));
    (keeper, actions)
}

#[test]
fn a_new_primarys_gate_begins_with_its_first_grant() {
    let (mut keeper, actions) = promoted(None);
    let (nonce, _, gate) = asked(&actions).expect("asked");
    assert_eq!(gate, absent(), "which binds nothing");
    assert_eq!(actions.len(), 1, "no gate yet: {actions:?}");
    let actions = keeper.answered(1500, nonce, Some(&Said { bound: false, ..said(Word::Granted) }));
    assert!(actions.contains(&Action::Begin(3400)) && !actions.contains(&Action::Install), "{actions:?}");
    keeper.saved();
    let (nonce, _, gate) = asked(&keeper.looked(&look(1800, bounded()))).expect("asked");
    assert_eq!(gate, bounded());
    let actions = keeper.answered(1900, nonce, Some(&said(Word::Granted)));
    assert!(actions.contains(&Action::ExtendUntil(3800)), "from then on as ever: {actions:?}");
    keeper.saved();
    // Taken away it is put back shut.
    assert!(keeper.looked(&look(2200, absent())).contains(&Action::Install));
}

#[test]
fn without_a_grant_a_new_primarys_gate_is_put_in_place_shut() {
    let installs = |actions: &[Action]| actions.contains(&Action::Install);
    // Denied: at once.
    let (mut denied, actions) = promoted(None);
    let (nonce, ..) = asked(&actions).expect("asked");
    assert!(installs(&denied.answered(1500, nonce, Some(&said(Word::Denied)))));
    // Nobody answers: after a TTL; and a grant that comes later extends it.
    let (mut alone, _) = promoted(None);
    let actions = alone.looked(&look(1400 + TTL_MS - 1, absent()));
    let (nonce, ..) = asked(&actions).expect("asked");
    assert!(!installs(&actions), "{actions:?}");
    assert!(installs(&alone.looked(&look(1400 + TTL_MS, absent()))));
    let actions = alone.answered(1400 + TTL_MS + 100, nonce, Some(&said(Word::Granted)));
    assert!(actions.contains(&Action::ExtendUntil(1400 + 2 * TTL_MS - 1)), "{actions:?}");
    // Latched meanwhile.
    let (mut latched, _) = promoted(None);
    latched.looked(&Look { latched: true, ..look(1800, absent()) });
    assert!(installs(&latched.looked(&look(2200, absent()))));
}

#[test]
fn whose_silence_may_count_gets_its_gate_before_the_word() {
    // One that was bound before, as far as it knows; and one that this process never saw follow another.
    let bound = LeaseRecord { bound: true, holders: vec![STANDBY.into()], ..LeaseRecord::missing() };
    assert!(promoted(Some(bound)).1.contains(&Action::Install));
    assert!(keeper(None).looked(&look(1000, absent())).contains(&Action::Install));
}

/// The kernel's gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Absent,
    Until(u64),
    Open,
}

#[derive(Debug, Clone)]
enum Message {
    Request { nonce: u64, bounded: bool, holders: Vec<HostName>, sent_ms: u64 },
    Answer { nonce: u64, said: Said },
    Hold { nonce: u64, ground: Token, sent_ms: u64 },
    Held { nonce: u64, granted: bool },
}

/// One group in a world of lost and late messages.
struct World {
    rng: StdRng,
    now_ms: u64,
    on_the_way: Vec<(u64, Message)>,
    // The cluster.
    binding: Option<Vec<HostName>>,
    paused: bool,
    stopped: bool,
    last_granted_ms: u64,
    /// A request up to here may not bind any more: something newer was told that the gate may stand open.
    floor: u64,
    token: u64,
    // The standby.
    raised: u64,
    hold_until_ms: u64,
    // The host.
    boots: u64,
    disk: Option<LeaseRecord>,
    disk_full: bool,
    kernel: Kernel,
    keeper: Keeper,
    next_look_ms: u64,
    /// The latest end of any request that was truly granted.
    granted_until_ms: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (keeper, _) = Keeper::start(settings("0", 0), None);
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now_ms: 10_000,
            on_the_way: Vec::new(),
            binding: None,
            paused: false,
            stopped: false,
            last_granted_ms: 0,
            floor: 0,
            token: 1,
            raised: 1,
            hold_until_ms: 0,
            boots: 0,
            disk: None,
            disk_full: false,
            kernel: Kernel::Absent,
            keeper,
            next_look_ms: 0,
            granted_until_ms: 0,
        };
        world.start_guard();
        world
    }

    fn start_guard(&mut self) {
        // Nobody hears the answers to a process that is gone. Its requests are on their way all the same.
        self.on_the_way.retain(|(_, message)| !matches!(message, Message::Answer { .. } | Message::Held { .. }));
        let (keeper, actions) = Keeper::start(settings(&self.boots.to_string(), self.now_ms), self.disk.clone());
        self.keeper = keeper;
        self.act(actions);
    }

    fn send(&mut self, message: Message) {
        if self.rng.random_bool(0.85) {
            let wait_ms =
                if self.rng.random_bool(0.8) { self.rng.random_range(1..150) } else { self.rng.random_range(1..9000) };
            self.on_the_way.push((self.now_ms + wait_ms, message));
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Save(_) if self.disk_full => self.keeper.not_saved(),
                Action::Save(record) => {
                    self.disk = Some(record);
                    let more = self.keeper.saved();
                    // Killed between the record and the gate, now and then.
                    if self.rng.random_bool(0.9) {
                        self.act(more)
                    } else {
                        self.start_guard()
                    }
                    return;
                }
                Action::Install if self.kernel == Kernel::Absent => self.kernel = Kernel::Until(0),
                Action::Install => {}
                Action::Begin(ms) => match self.kernel {
                    Kernel::Until(until) => self.kernel = Kernel::Until(until.max(ms)),
                    Kernel::Open => {}
                    Kernel::Absent => self.kernel = Kernel::Until(ms),
                },
                Action::ExtendUntil(ms) => match self.kernel {
                    Kernel::Until(until) => self.kernel = Kernel::Until(until.max(ms)),
                    Kernel::Open => {}
                    Kernel::Absent => self.kernel = Kernel::Absent,
                },
                Action::BoundAt(ms) => match self.kernel {
                    Kernel::Until(until) => self.kernel = Kernel::Until(until.min(ms)),
                    Kernel::Open => self.kernel = Kernel::Until(ms),
                    Kernel::Absent => {}
                },
                Action::Open => self.kernel = Kernel::Open,
                Action::AskNode { nonce, gate, holders, .. } => {
                    let bounded = matches!(gate, GateSeen::Bounded { .. });
                    self.send(Message::Request { nonce, bounded, holders, sent_ms: self.now_ms });
                }
                Action::AskHolder { nonce, ground, .. } => {
                    self.send(Message::Hold { nonce, ground, sent_ms: self.now_ms });
                }
            }
        }
    }

    fn look(&self) -> Look {
        let gate = match self.kernel {
            Kernel::Absent => GateSeen::Absent { why: "not there".to_owned() },
            Kernel::Until(_) => bounded(),
            Kernel::Open => GateSeen::OpenEnded,
        };
        look(self.now_ms, gate)
    }

    fn leader(&mut self, nonce: u64, attests_bounded: bool, holders: &[HostName], sent_ms: u64) -> Said {
        if !attests_bounded {
            self.floor = self.floor.max(nonce);
        }
        let word = if self.stopped {
            Word::Denied
        } else if self.paused {
            self.binding = None;
            self.floor = self.floor.max(nonce);
            Word::OpenEnded
        } else if !attests_bounded && self.binding.is_some() {
            self.binding = None;
            Word::Denied
        } else {
            if attests_bounded && nonce > self.floor {
                let bound = self.binding.get_or_insert_default();
                bound.extend(holders.iter().filter(|host| !bound.contains(host)).cloned().collect::<Vec<_>>());
            }
            self.last_granted_ms = self.now_ms;
            Word::Granted
        };
        if word != Word::Denied {
            self.granted_until_ms = self.granted_until_ms.max(sent_ms + TTL_MS);
        }
        Said {
            word,
            why: String::new(),
            bound: self.binding.is_some(),
            holders: self.binding.clone().unwrap_or_default(),
            ground: (!self.stopped).then_some(Token { epoch: 1, n: self.token }),
            ttl_ms: TTL_MS,
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request { nonce, bounded, holders, sent_ms } => {
                let said = self.leader(nonce, bounded, &holders, sent_ms);
                self.send(Message::Answer { nonce, said });
            }
            Message::Answer { nonce, said } => {
                let actions = self.keeper.answered(self.now_ms, nonce, Some(&said));
                self.act(actions);
            }
            Message::Hold { nonce, ground, sent_ms } => {
                let granted = self.raised <= ground.n;
                if granted {
                    self.hold_until_ms = self.hold_until_ms.max(self.now_ms + silence_ms(TTL_MS));
                    self.granted_until_ms = self.granted_until_ms.max(sent_ms + TTL_MS);
                }
                self.send(Message::Held { nonce, granted });
            }
            Message::Held { nonce, granted } => {
                let actions = self.keeper.held(self.now_ms, nonce, granted);
                self.act(actions);
            }
        }
    }

    fn happen(&mut self) {
        match self.rng.random_range(0..400) {
            0..4 => self.paused = !self.paused,
            4..7 => {
                // A run is opened and its fence ordered, or it is withdrawn and the next grants bring its token.
                self.stopped = !self.stopped;
                if !self.stopped {
                    self.token = self.raised.max(self.token);
                }
            }
            7..12 if self.stopped => self.raised = self.token + 1,
            12..16 => self.start_guard(),
            16..18 => {
                self.boots += 1;
                self.kernel = Kernel::Absent;
                self.start_guard();
            }
            18..20 => self.now_ms += 3_600_000,
            20..24 => self.disk_full = !self.disk_full,
            24 => self.disk = None,
            _ => {}
        }
    }

    fn step(&mut self) {
        self.now_ms += self.rng.random_range(1..60);
        self.happen();
        let now_ms = self.now_ms;
        let due: Vec<Message> =
            self.on_the_way.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).map(|(_, message)| message).collect();
        for message in due {
            self.deliver(message);
            self.check();
        }
        if self.now_ms >= self.next_look_ms {
            self.next_look_ms = self.now_ms + 400;
            let actions = self.keeper.looked(&self.look());
            self.act(actions);
        }
        self.check();
    }

    fn check(&self) {
        if let Kernel::Until(until_ms) = self.kernel {
            assert!(
                until_ms <= self.granted_until_ms,
                "open until {until_ms}, granted until {}",
                self.granted_until_ms
            );
        }
        let Some(holders) = &self.binding else { return };
        assert_ne!(self.kernel, Kernel::Open, "the gate stands open while its silence counts");
        let holds_over = holders.is_empty() || (self.raised > self.token && self.hold_until_ms <= self.now_ms);
        let lapsed = self.stopped && self.now_ms >= self.last_granted_ms + silence_ms(TTL_MS) && holds_over;
        let passes = matches!(self.kernel, Kernel::Until(until_ms) if until_ms > self.now_ms);
        assert!(!(lapsed && passes), "it passes although its lease has lapsed");
    }
}

#[test]
fn whatever_happens_the_gate_is_shut_when_no_grant_can_keep_it_open() {
    let first: u64 = std::env::var("KEEPER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut passed, mut opened, mut held, mut bound) = (0u64, 0u64, 0u64, 0u64);
    for seed in first..first + 150 {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            for _ in 0..3000 {
                world.step();
                passed += u64::from(matches!(world.kernel, Kernel::Until(until_ms) if until_ms > world.now_ms));
                opened += u64::from(world.kernel == Kernel::Open);
                held += u64::from(world.hold_until_ms > world.now_ms);
                bound += u64::from(world.binding.as_ref().is_some_and(|holders| !holders.is_empty()));
            }
        });
        if let Err(failed) = std::panic::catch_unwind(run) {
            eprintln!("KEEPER_SEED={seed}");
            std::panic::resume_unwind(failed);
        }
    }
    // The histories reach what they are about.
    assert!(passed > 50_000 && opened > 5000 && held > 5000 && bound > 50_000, "{passed} {opened} {held} {bound}");
}
