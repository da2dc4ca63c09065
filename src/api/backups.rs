//! The replicated state to a file, and back into a cluster that was formed anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::access::{self, RESTORE};
use super::backend::ProposeError;
use super::check::{self, Asked};
use super::deadline;
use super::forward::{self, Place};
use super::origin::{origin, recorded};
use super::refuse::{failed, invalid, nothing_done_in_time, rejected, too_many};
use super::service::AdminService;
use super::show::ms;
use crate::clock::unix_now;

use crate::domain::command::{Applied, Change, Command};
use crate::domain::ids::{GroupName, Principal, RegionName, UnixMs};
use crate::domain::state::{BackupOrigin, ClusterState, GroupRestored, PARTS_MAX, parts};
use crate::proto;

/// Of a backup's data in one message to a node: below what a request may have.
pub const RESTORE_CHUNK_BYTES: usize = 48 << 10;
/// Of a backup's data in one message from a node.
const CHUNK_BYTES: usize = 256 << 10;
/// The next message of a backup is waited for so long.
const CHUNK_WAIT: Duration = Duration::from_secs(10);
/// How long a forwarded backup or restoration may take.
const FORWARD: Duration = Duration::from_secs(60);

/// No backup is larger: a state that is cannot be snapshotted either.
pub const BACKUP_BYTES_MAX: usize = 64 << 20;

/// Answers of a backup.
pub type BackupStream = ReceiverStream<Result<proto::BackUpResponse, Status>>;

/// SHA-256 in hexadecimal.
pub fn sha256(data: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(data) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// What a stream of [`proto::RestoreRequest`] says, whole.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The first message.
    pub head: proto::RestoreRequest,
    /// The data of the others.
    pub data: Arc<Vec<u8>>,
}

impl Wish {
    /// As messages.
    pub fn messages(self) -> impl tokio_stream::Stream<Item = proto::RestoreRequest> + Send + 'static {
        let count = self.data.len().div_ceil(RESTORE_CHUNK_BYTES);
        let data = self.data;
        let chunk = move |at: usize| {
            let end = data.len().min((at + 1) * RESTORE_CHUNK_BYTES);
            let data = data[at * RESTORE_CHUNK_BYTES..end].to_vec();
            proto::RestoreRequest { data, ..Default::default() }
        };
        tokio_stream::iter(std::iter::once(self.head).chain((0..count).map(chunk)))
    }
}

async fn next(messages: &mut Streaming<proto::RestoreRequest>) -> Result<Option<proto::RestoreRequest>, Status> {
    let wait = deadline::left(CHUNK_WAIT);
    if wait.is_zero() {
        return Err(nothing_done_in_time("your deadline passed before the whole backup had come"));
    }
    let late = |_| nothing_done_in_time("data: the next message of the backup did not come");
    timeout(wait, messages.message()).await.map_err(late)?
}

/// The whole of it, no longer than it announced, and not other than it was written.
async fn gather(head: proto::RestoreRequest, messages: &mut Streaming<proto::RestoreRequest>) -> Result<Wish, Status> {
    let header = head.header.as_ref().ok_or_else(|| invalid("header", "missing; the first message has it"))?;
    let most = BACKUP_BYTES_MAX as u64;
    if header.bytes > most {
        return Err(invalid("header.bytes", format!("{} is more than {most}", header.bytes)));
    }
    let expected = usize::try_from(header.bytes).map_err(|_| invalid("header.bytes", "too many"))?;
    let mut data = Vec::new();
    while let Some(message) = next(messages).await? {
        if data.len() + message.data.len() > expected {
            return Err(invalid("data", format!("more than the announced {expected} bytes")));
        }
        data.extend_from_slice(&message.data);
    }
    if data.len() != expected || sha256(&data) != header.sha256 {
        let found = data.len();
        return Err(invalid(
            "data",
            format!("damaged: {found} of {expected} bytes, or other ones than were written; take another backup file"),
        ));
    }
    Ok(Wish { head, data: Arc::new(data) })
}

fn serving(asked: &BTreeMap<String, String>) -> Result<BTreeMap<GroupName, RegionName>, Status> {
    let one = |(group, region): (&String, &String)| {
        let group = GroupName::from(check::name("serving", group)?);
        Ok((group, RegionName::from(check::name("serving", region)?)))
    };
    asked.iter().map(one).collect()
}

fn shown(one: GroupRestored) -> proto::RestoredGroup {
    proto::RestoredGroup {
        name: one.group.0,
        in_backup: one.served.is_some(),
        served: one.served.flatten().map(|region| region.0).unwrap_or_default(),
        serves: one.serves.0,
        token_before: one.token_before.map(|token| token.to_string()).unwrap_or_default(),
        token: one.token.to_string(),
        open_run: one.open_run.unwrap_or_default(),
        unsettled: one.unsettled,
        runs: u32::try_from(one.runs).unwrap_or(u32::MAX),
    }
}

fn refused(applied: Applied) -> Result<(), Status> {
    match applied {
        Applied::Rejected(rejection) => Err(rejected(&rejection)),
        Applied::Done { .. } | Applied::Nothing => Ok(()),
    }
}

impl AdminService {
    async fn propose_for(&self, asked: &Asked, with_id: bool, change: Change) -> Result<Applied, ProposeError> {
        let request_id = with_id.then(|| asked.request_id.clone());
        let node = self.standing().node;
        self.backend
            .propose(Command { node, at: unix_now(), by: asked.by.clone(), from: origin(), request_id, change })
            .await
    }

    pub(super) async fn take_backup(
        &self,
        request: Request<proto::BackUpRequest>,
    ) -> Result<Response<BackupStream>, Status> {
        let caller = access::caller(&request)?;
        let asked = self.asked(request.get_ref().context.as_ref(), &caller)?;
        let standing = self.standing();
        let place = self.streams().try_acquire_owned();
        let place = place.map_err(|_| too_many("too many streams are open at this node already; ask another"))?;
        let (to, stream) = mpsc::channel(2);
        if let Place::Leader(leader) = forward::place(&standing, &request)? {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.back_up(forward::carried(request.into_inner(), &standing, &caller)).await;
            let mut from = forward::came_back(&leader, answer)?.into_inner();
            tokio::spawn(async move {
                while let Some(message) = from.message().await.transpose() {
                    let is_over = message.is_err();
                    if to.send(message).await.is_err() || is_over {
                        return;
                    }
                }
                drop(place);
            });
            return Ok(Response::new(ReceiverStream::new(stream)));
        }
        // The state that is read after this has everything that was committed before it was asked for.
        self.backend.confirm().await.map_err(failed)?;
        let state = self.state();
        let what = format!("back up the replicated state as of log position {}: {}", state.applied_index, asked.reason);
        info!(by = %asked.by, what, "admin call: backup");
        let note = Change::Note { group: None, what, outcome: "done".to_owned() };
        // A backup that cannot be put on record is taken all the same: it may be the last that can be.
        if let Err(error) = self.propose_for(&asked, false, note).await {
            tracing::warn!(%error, "a backup could not be recorded in the audit");
        }
        let taken = Arc::clone(&state);
        let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&*taken)).await;
        let data = written
            .map_err(|error| error.to_string())
            .and_then(|json| json.map_err(|error| error.to_string()))
            .map_err(|why| Status::internal(format!("the state as JSON: {why}")))?;
        let header = proto::BackupHeader {
            cluster: state.cluster.as_ref().map(|cluster| cluster.0.clone()).unwrap_or_default(),
            epoch: state.epoch,
            applied_index: state.applied_index,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at_ms: ms(unix_now()),
            by: asked.by.0,
            bytes: data.len() as u64,
            sha256: sha256(&data),
        };
        tokio::spawn(async move {
            let head = proto::BackUpResponse { header: Some(header), data: Vec::new() };
            let chunks =
                data.chunks(CHUNK_BYTES).map(|data| proto::BackUpResponse { header: None, data: data.to_vec() });
            for message in std::iter::once(head).chain(chunks) {
                if to.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    pub(super) async fn restore_backup(
        &self,
        request: Request<Streaming<proto::RestoreRequest>>,
    ) -> Result<Response<proto::RestoreResponse>, Status> {
        let (caller, standing) = (access::caller(&request)?, self.standing());
        let place = forward::place(&standing, &request)?;
        let mut messages = request.into_inner();
        let head = next(&mut messages).await?.ok_or_else(|| invalid("context", "missing: the stream is empty"))?;
        access::require(&caller, RESTORE, if head.dry_run { "dry_run" } else { "" })?;
        let asked = self.asked(head.context.as_ref(), &caller)?;
        let serving = serving(&head.serving)?;
        let wish = gather(head, &mut messages).await?;
        if let Place::Leader(leader) = place {
            let mut client = self.reach(&leader, FORWARD).await?;
            let answer = client.restore(forward::carried(wish.messages(), &standing, &caller)).await;
            return forward::came_back(&leader, answer);
        }
        self.backend.confirm().await.map_err(failed)?;
        let cluster = self.backend.policy().cluster.clone();
        // As much as 64 MiB: not on a thread that answers peers.
        let data = Arc::clone(&wish.data);
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<ClusterState>(&data)).await;
        let parsed = parsed.map_err(|error| Status::internal(format!("reading the backup: {error}")))?;
        let backup = parsed.map_err(|error| invalid("data", format!("no state of this program's version: {error}")))?;
        let state = self.state();
        let audit_entries = u32::try_from(backup.audit.len()).unwrap_or(u32::MAX);
        let answer = |groups: Vec<proto::RestoredGroup>, restored| proto::RestoreResponse {
            standing: self.standing_of(&self.state()),
            groups,
            restored,
            audit_entries,
        };
        let was_done = |answered: &crate::domain::state::Answered| {
            answered.id == asked.request_id && matches!(answered.applied, Applied::Done { .. })
        };
        if state.answered.iter().any(was_done) {
            return Ok(Response::new(answer(Vec::new(), true)));
        }
        let judged = state.would_restore(&backup, &serving);
        let dry_run = wish.head.dry_run;
        info!(by = %asked.by, reason = asked.reason, dry_run, ?serving, ok = judged.is_ok(), "admin call: restore");
        let groups = match judged {
            Ok(groups) => groups.into_iter().map(shown).collect::<Vec<_>>(),
            Err(rejection) => {
                let what = format!("restore a backup: {}", asked.reason);
                let outcome = format!("refused: {}", rejection.message);
                match self.propose_for(&asked, false, Change::Note { group: None, what, outcome }).await {
                    Ok(_) => recorded(),
                    Err(error) => tracing::warn!(%error, "a refused restoration could not be recorded in the audit"),
                }
                return Err(rejected(&rejection));
            }
        };
        let count = u32::try_from(parts(&backup).len()).unwrap_or(u32::MAX);
        if count > PARTS_MAX {
            return Err(invalid("data", format!("{count} parts are more than {PARTS_MAX}")));
        }
        if dry_run {
            return Ok(Response::new(answer(groups, false)));
        }
        if wish.head.confirm_cluster != cluster.as_str() {
            let typed = &wish.head.confirm_cluster;
            return Err(invalid(
                "confirm_cluster",
                format!("is {typed:?}, but this is cluster {cluster:?}: type its name again"),
            ));
        }
        // Until the last part nothing of it takes effect; the same call again goes on or begins anew.
        deadline::write(self.hand_over(&asked, &wish.head, &backup, serving)).await?;
        Ok(Response::new(answer(groups, true)))
    }

    /// Part by part, and then all of it at once.
    async fn hand_over(
        &self,
        asked: &Asked,
        head: &proto::RestoreRequest,
        backup: &ClusterState,
        serving: BTreeMap<GroupName, RegionName>,
    ) -> Result<(), Status> {
        let header = head.header.clone().unwrap_or_default();
        let all = parts(backup);
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        for (part, content) in (0..).zip(all) {
            let change = Change::RestorePart { backup: header.sha256.clone(), part, content };
            refused(self.propose_for(asked, false, change).await.map_err(failed)?)?;
        }
        let origin = BackupOrigin {
            id: header.sha256,
            at: UnixMs(u64::try_from(header.taken_at_ms).unwrap_or_default()),
            by: Principal(header.by),
        };
        let change = Change::Restore { origin, parts: count, serving, reason: asked.reason.clone() };
        refused(self.propose_for(asked, true, change).await.map_err(failed)?)
    }
}
