//! Judging a change of who is in the cluster: what stands in its way, and what is to be done next. Every call looks at the
//! whole picture again, so that a change can be repeated and goes on where it stopped, under whatever leader.
//!
//! A node is admitted in the replicated record first (its number is then used for good), becomes a learner, and once it
//! has caught up a voter. A dead node is replaced by one change of the voters, through a joint majority of the old and the
//! new: there is no moment with one voter too many or too few.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Rejection, RejectionCode};
use super::ids::{ConfigDigest, NodeId, NodeName};
use super::layout::{Loss, VOTERS_MIN};
use super::policy::ClusterPolicy;
use super::state::{NodePhase, NodeRecord, NodeSpec};

/// A learner that is at most so many entries behind has caught up.
pub const CAUGHT_UP_ENTRIES: u64 = 32;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A new node.
    Add {
        /// Its number.
        node: NodeId,
        /// Its name, region and address.
        spec: NodeSpec,
        /// It only receives the log, until it is asked for again.
        as_learner: bool,
    },
    /// A node leaves for good.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// A new node takes an old one's place.
    Replace {
        /// The old one.
        old: NodeId,
        /// The new one's number.
        node: NodeId,
        /// Its name, region and address.
        spec: NodeSpec,
    },
}

impl Ask {
    /// The node that it is about; the new one.
    pub fn node(&self) -> NodeId {
        match self {
            Ask::Add { node, .. } | Ask::Remove { node } | Ask::Replace { node, .. } => *node,
        }
    }

    fn newcomer(&self) -> Option<(NodeId, &NodeSpec)> {
        match self {
            Ask::Add { node, spec, .. } | Ask::Replace { node, spec, .. } => Some((*node, spec)),
            Ask::Remove { .. } => None,
        }
    }

    fn leaver(&self) -> Option<NodeId> {
        match self {
            Ask::Remove { node } => Some(*node),
            Ask::Replace { old, .. } => Some(*old),
            Ask::Add { .. } => None,
        }
    }
}

/// A member, as the leader knows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As the membership has it.
    pub spec: NodeSpec,
    /// Counts for quorum.
    pub is_voter: bool,
    /// It answered just now.
    pub answers: bool,
    /// How many log entries it lacks; `None` where the leader cannot tell.
    pub behind: Option<u64>,
}

/// Everything that is weighed.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    /// Who judges.
    pub leader: NodeId,
    /// The membership in force.
    pub members: BTreeMap<NodeId, Seen>,
    /// Where a change of voters is half done: the voters it leads to.
    pub goal: Option<BTreeSet<NodeId>>,
    /// Numbers that this leader's own store knows to have been used.
    pub used: BTreeSet<NodeId>,
    /// What the replicated state has on record.
    pub records: &'a BTreeMap<NodeId, NodeRecord>,
    /// The leader's configuration.
    pub policy: &'a ClusterPolicy,
    /// Why the new node does not answer as itself at its address; `None` where it does.
    pub newcomer_silent: Option<String>,
    /// The leader's configuration is the one in force.
    pub is_in_force: bool,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// `number`, `layout` …
    pub name: &'static str,
    /// `None` where it is met.
    pub closed: Option<RejectionCode>,
    /// What was found; where it is closed, what opens it.
    pub detail: String,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// All of it is done.
    Done,
    /// Put it on record, then make it a learner.
    Admit,
    /// It is a learner, and not there yet.
    Wait {
        /// Entries it lacks, where known.
        behind: Option<u64>,
    },
    /// It is a learner that has caught up, and shall stay one.
    Rest,
    /// Change the voters to these.
    Vote {
        /// All of them.
        voters: BTreeSet<NodeId>,
    },
    /// Take the learner out.
    Drop,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Every condition, in the order in which they are to be seen to.
    pub gates: Vec<Gate>,
    /// Voters now.
    pub before: BTreeSet<NodeId>,
    /// Voters when it is done.
    pub after: BTreeSet<NodeId>,
    /// Section 3 now.
    pub layout_before: Vec<Loss>,
    /// Section 3 when it is done.
    pub layout_after: Vec<Loss>,
    /// Where every gate is open.
    pub next: Next,
    /// Removals on record that nothing came of, and that this change gives up.
    pub given_up: BTreeSet<NodeId>,
}

impl Judged {
    /// The first gate that is closed, as a rejection.
    pub fn refusal(&self) -> Option<Rejection> {
        let closed = |gate: &Gate| Some(Rejection { code: gate.closed?, message: gate.detail.clone() });
        self.gates.iter().find_map(closed)
    }
}

impl Picture<'_> {
    fn voters(&self) -> BTreeSet<NodeId> {
        self.members.iter().filter(|(_, seen)| seen.is_voter).map(|(id, _)| *id).collect()
    }

    fn name(&self, id: NodeId) -> String {
        let of_member = || self.members.get(&id).map(|seen| seen.spec.name.0.clone());
        let of_record = || self.records.get(&id).map(|record| record.spec.name.0.clone());
        let of_policy = || self.policy.members.get(&id).map(|member| member.name.0.clone());
        of_member().or_else(of_record).or_else(of_policy).unwrap_or_else(|| format!("node-{id}"))
    }

    /// The node meant by a number or by a name: a living one's before one that is gone.
    pub fn find(&self, text: &str) -> Option<NodeId> {
        let by_name = |name: &NodeName| name.as_str() == text;
        let living = self.members.iter().find(|(_, seen)| by_name(&seen.spec.name)).map(|(id, _)| *id);
        let on_record = || self.records.iter().rev().find(|(_, r)| by_name(&r.spec.name)).map(|(id, _)| *id);
        let number = || text.parse().ok().map(NodeId).filter(|id| self.members.contains_key(id) || self.is_known(*id));
        living.or_else(number).or_else(on_record)
    }

    fn is_known(&self, id: NodeId) -> bool {
        self.records.contains_key(&id) || self.used.contains(&id)
    }
}

fn gate(name: &'static str, found: Result<String, (RejectionCode, String)>) -> Gate {
    match found {
        Ok(detail) => Gate { name, closed: None, detail },
        Err((code, detail)) => Gate { name, closed: Some(code), detail },
    }
}

/// Judges what is asked.
pub fn judge(picture: &Picture<'_>, ask: &Ask) -> Judged {
    let before = picture.voters();
    let (after, with) = voters_after(picture, ask, &before);
    let mut gates = Vec::new();
    if let Some(old) = ask.leaver() {
        gates.extend(leaver_gates(picture, ask, old));
    }
    if let Some((node, spec)) = ask.newcomer() {
        gates.extend(newcomer_gates(picture, ask, node, spec));
    }
    gates.push(gate("configuration in force", in_force(picture)));
    gates.push(gate("one at a time", one_at_a_time(picture, ask, &after)));
    let stays = matches!(ask, Ask::Add { as_learner: true, .. });
    let layout_after = picture.policy.layout_of(after.iter().copied());
    let is_changed = after != before || picture.goal.is_some();
    if !stays && is_changed {
        gates.push(gate("layout", layout(picture, &after, &layout_after, &with)));
        gates.push(gate("quorum", quorum(picture, &after, ask)));
    }
    Judged {
        next: next(picture, ask, &before, &after),
        given_up: given_up(picture, ask).collect(),
        gates,
        layout_before: picture.policy.layout_of(before.iter().copied()),
        before,
        after,
        layout_after,
    }
}

/// The voters when it is done, and the learners that become voters with the new one: where one more alone would take a
/// region's majority away, those that wait as learners come along.
fn voters_after(picture: &Picture<'_>, ask: &Ask, before: &BTreeSet<NodeId>) -> (BTreeSet<NodeId>, Vec<NodeId>) {
    let mut after = before.clone();
    if let Some(old) = ask.leaver() {
        after.remove(&old);
    }
    let Some((node, _)) = ask.newcomer() else { return (after, Vec::new()) };
    if matches!(ask, Ask::Add { as_learner: true, .. }) && !before.contains(&node) {
        return (after, Vec::new());
    }
    after.insert(node);
    let is_sound =
        |voters: &BTreeSet<NodeId>| !picture.policy.layout_of(voters.iter().copied()).iter().any(Loss::is_fault);
    let waits = |id: &&NodeId| {
        picture.records.get(*id).is_some_and(|record| record.phase == NodePhase::Learner)
            && picture.members.get(*id).is_some_and(|seen| !seen.is_voter && seen.answers && has_caught_up(seen))
    };
    let waiting: Vec<NodeId> = picture.members.keys().filter(waits).copied().filter(|id| *id != node).collect();
    let together: BTreeSet<NodeId> = after.iter().chain(&waiting).copied().collect();
    let is_add = matches!(ask, Ask::Add { .. });
    if is_add && !waiting.is_empty() && !is_sound(&after) && is_sound(&together) {
        return (together, waiting);
    }
    (after, Vec::new())
}

fn leaver_gates(picture: &Picture<'_>, ask: &Ask, old: NodeId) -> Vec<Gate> {
    let name = picture.name(old);
    let known = if picture.members.contains_key(&old) {
        Ok(format!("{name} is node {old}"))
    } else if let (Ask::Replace { node, .. }, true) = (ask, picture.is_known(old))
        && !picture.members.contains_key(node)
    {
        let what = format!("{name}, node {old}, is gone already: watchdogctl node add adds another");
        Err((RejectionCode::NotFound, what))
    } else if picture.is_known(old) {
        Ok(format!("{name}, node {old}, is gone already"))
    } else {
        let what = format!("there is no node {old}: watchdogctl node list shows those there are");
        Err((RejectionCode::NotFound, what))
    };
    let leads = if old == picture.leader {
        let what = format!("{name} leads: watchdogctl node transfer --reason … hands leadership over, then ask again");
        Err((RejectionCode::IsLeader, what))
    } else {
        Ok("another node leads".to_owned())
    };
    let mut gates = vec![gate("known", known), gate("not the leader", leads)];
    let is_learner = picture.members.get(&old).is_some_and(|seen| !seen.is_voter);
    if is_learner && matches!(ask, Ask::Replace { .. }) {
        let what = format!(
            "{name} is a learner and has no vote to hand on: watchdogctl node remove {name}, then add the other"
        );
        gates.push(gate("a voter", Err((RejectionCode::Illegal, what))));
    }
    if let Ask::Replace { node, .. } = ask
        && *node == old
    {
        let what = format!("node {old} cannot take its own place: give the new one a number that was never used");
        gates.push(gate("another number", Err((RejectionCode::Taken, what))));
    }
    gates
}

fn newcomer_gates(picture: &Picture<'_>, ask: &Ask, node: NodeId, spec: &NodeSpec) -> Vec<Gate> {
    let taken = |what: String| Err((RejectionCode::Taken, what));
    let record = picture.records.get(&node);
    let seen = picture.members.get(&node);
    let number = match (seen.map(|seen| &seen.spec), record) {
        (Some(known), _) if known != spec => {
            taken(format!("node {node} is {known}, a member already: choose a number that was never used"))
        }
        (Some(_), _) => Ok(format!("node {node} is a member already: goes on with it")),
        // Whoever was a member, and is none any more, has used it up.
        (None, Some(record)) if record.phase != NodePhase::Joining => {
            taken(format!("number {node} was {}'s: numbers are used once; choose another", record.spec.name))
        }
        (None, Some(record)) if &record.spec != spec => taken(format!(
            "node {node} is being added as {}: finish that, or `watchdogctl node remove {node}` and choose another number",
            record.spec
        )),
        (None, None) if picture.used.contains(&node) => {
            taken(format!("number {node} was used before: numbers are used once; choose another"))
        }
        (None, _) => Ok(format!("{node} was never used")),
    };
    let old = ask.leaver();
    let others = || picture.members.iter().filter(|(id, _)| **id != node && Some(**id) != old);
    let name = match others().find(|(_, seen)| seen.spec.name == spec.name) {
        Some((id, _)) => taken(format!("{} is the name of node {id}, which lives: choose another name", spec.name)),
        None => Ok(format!("no other member is called {}", spec.name)),
    };
    let address = match others().find(|(_, seen)| seen.spec.address == spec.address) {
        Some((_, seen)) => taken(format!("{} is the address of {}: correct it", spec.address, seen.spec.name)),
        None => Ok(format!("no other member is at {}", spec.address)),
    };
    let mut gates = vec![
        gate("number", number),
        gate("name", name),
        gate("address", address),
        gate("configuration", configured(picture, node, spec)),
    ];
    if seen.is_none_or(|seen| !seen.is_voter) {
        gates.push(gate(
            "answers",
            match &picture.newcomer_silent {
                None => Ok(format!("{} answers at {}", spec.name, spec.address)),
                Some(why) => Err((
                    RejectionCode::NotReachable,
                    format!("{} does not answer as node {node} at {} ({why}): start it there, with the cluster's configuration", spec.name, spec.address),
                )),
            },
        ));
    }
    gates
}

/// A region comes from the configuration only: a voter that nobody can place would weaken every count.
fn configured(picture: &Picture<'_>, node: NodeId, spec: &NodeSpec) -> Result<String, (RejectionCode, String)> {
    let leader = picture.name(picture.leader);
    let first = "give every node the file with it first (watchdogctl node add --help tells the order)";
    let other = |what: String| Err((RejectionCode::OtherConfig, what));
    match picture.policy.members.get(&node) {
        None => other(format!("{leader}'s configuration has no [[node]] with id = {node}: {first}")),
        Some(member) if member.name != spec.name => other(format!(
            "{leader}'s configuration calls node {node} {}, not {}: correct one of them",
            member.name, spec.name
        )),
        Some(member) if member.region != spec.region => other(format!(
            "{leader}'s configuration has {} in {}, not in {}: correct one of them",
            spec.name, member.region, spec.region
        )),
        Some(_) => Ok(format!("{leader} has it in its configuration, in {}", spec.region)),
    }
}

/// What the others do not run under decides nothing about them.
fn in_force(picture: &Picture<'_>) -> Result<String, (RejectionCode, String)> {
    if picture.is_in_force {
        return Ok("the leader runs under the configuration in force".to_owned());
    }
    let what = format!(
        "{} leads under a configuration that is not in force: give a majority of the voters the same file and start them \
         with it, or hand leadership to one of theirs (watchdogctl node transfer), then ask again",
        picture.name(picture.leader)
    );
    Err((RejectionCode::OtherConfig, what))
}

/// A removal that was put on record and never begun, because its leader died: the node votes, and no change of the voters
/// is half done. It must not stand in the way of repairing what was lost since.
fn given_up<'a>(picture: &'a Picture<'_>, ask: &'a Ask) -> impl Iterator<Item = NodeId> + 'a {
    let is_replaced = |id: NodeId| {
        let under_way = |record: &&NodeRecord| record.phase.is_under_way() && record.replaces == Some(id);
        picture.records.values().any(|record| under_way(&record))
    };
    let is_other = |id: NodeId| id != ask.node() && Some(id) != ask.leaver();
    let leaving = picture.records.iter().filter(|(_, record)| record.phase == NodePhase::Leaving).map(|(id, _)| *id);
    leaving.filter(move |id| {
        let votes = picture.members.get(id).is_some_and(|seen| seen.is_voter);
        picture.goal.is_none() && votes && is_other(*id) && !is_replaced(*id)
    })
}

fn one_at_a_time(
    picture: &Picture<'_>,
    ask: &Ask,
    after: &BTreeSet<NodeId>,
) -> Result<String, (RejectionCode, String)> {
    let under_way = |what: String| Err((RejectionCode::ChangeUnderWay, what));
    // Giving up a replacement concerns the one whose place it was to take as well.
    let place = picture.records.get(&ask.node()).and_then(|record| record.replaces);
    let is_other = |id: NodeId| id != ask.node() && Some(id) != ask.leaver() && Some(id) != place;
    let given_up: BTreeSet<NodeId> = given_up(picture, ask).collect();
    let stands = |id: NodeId, record: &NodeRecord| record.phase.is_under_way() && !given_up.contains(&id);
    let busy = picture.records.iter().find(|(id, record)| is_other(**id) && stands(**id, record));
    if let Some((id, record)) = busy {
        let (verb, way) = if record.phase == NodePhase::Leaving { ("removed", "remove") } else { ("added", "add") };
        let name = &record.spec.name;
        return under_way(format!(
            "{name} (node {id}) is being {verb}, by {}: finish that with `watchdogctl node {way}`, or drop it with \
             `watchdogctl node remove {name}`; one change at a time",
            record.by
        ));
    }
    match &picture.goal {
        Some(goal) if goal != after => under_way(format!(
            "a change of the voters to {} is half done: repeat the command that began it",
            names(picture, goal)
        )),
        _ if !given_up.is_empty() => {
            Ok(format!("the removal of {}, which was ordered and never begun, is given up", names(picture, &given_up)))
        }
        _ => Ok("no other change is under way".to_owned()),
    }
}

fn layout(
    picture: &Picture<'_>,
    after: &BTreeSet<NodeId>,
    losses: &[Loss],
    with: &[NodeId],
) -> Result<String, (RejectionCode, String)> {
    if after.len() < VOTERS_MIN {
        let what = format!(
            "{} voters would be left, fewer than {VOTERS_MIN}: they cannot lose one and still agree; `watchdogctl node replace` \
             puts another in its place",
            after.len()
        );
        return Err((RejectionCode::LayoutBroken, what));
    }
    if let Some(loss) = losses.iter().find(|loss| loss.is_fault()) {
        let region = &loss.region;
        let unknown: Vec<String> = after
            .iter()
            .filter(|id| !picture.policy.members.contains_key(id))
            .map(|id| format!("; where {} stands {} does not know", picture.name(*id), picture.name(picture.leader)))
            .collect();
        let what = format!(
            "{loss}{}: use `watchdogctl node replace`; or add two nodes that keep the balance, the first with --learner; or accept it \
             by name with accept_no_automatic_failover_from = [\"{region}\"] in the configuration",
            unknown.concat()
        );
        return Err((RejectionCode::LayoutBroken, what));
    }
    let mut what = format!("a majority stands outside each region that serves: {}", names(picture, after));
    if !with.is_empty() {
        what +=
            &format!(" ({} comes along, which waited as a learner)", names(picture, &with.iter().copied().collect()));
    }
    if after.len().is_multiple_of(2) {
        what += "; an even number tolerates no more losses than one fewer";
    }
    Ok(what)
}

/// What is asked is committed by the new voters' majority, and so must be whatever follows.
fn quorum(picture: &Picture<'_>, after: &BTreeSet<NodeId>, ask: &Ask) -> Result<String, (RejectionCode, String)> {
    let answers = |id: &NodeId| {
        let is_new = ask.newcomer().is_some_and(|(node, _)| node == *id) && picture.newcomer_silent.is_none();
        is_new || *id == picture.leader || picture.members.get(id).is_some_and(|seen| seen.answers)
    };
    let silent: BTreeSet<NodeId> = after.iter().filter(|id| !answers(id)).copied().collect();
    let (there, needed) = (after.len() - silent.len(), after.len() / 2 + 1);
    if there >= needed {
        return Ok(format!("{there} of {} voters answer then, {needed} are needed", after.len()));
    }
    let what = format!(
        "{there} of {} voters would answer, and {needed} are needed: bring {} back first, or replace it instead",
        after.len(),
        names(picture, &silent)
    );
    Err((RejectionCode::QuorumLost, what))
}

fn names(picture: &Picture<'_>, nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|id| picture.name(*id)).collect::<Vec<_>>().join(", ")
}

fn has_caught_up(seen: &Seen) -> bool {
    seen.behind.is_some_and(|behind| behind <= CAUGHT_UP_ENTRIES)
}

fn next(picture: &Picture<'_>, ask: &Ask, before: &BTreeSet<NodeId>, after: &BTreeSet<NodeId>) -> Next {
    let is_settled = picture.goal.is_none();
    match ask {
        Ask::Remove { node } => match picture.members.get(node) {
            None => Next::Done,
            Some(seen) if seen.is_voter => Next::Vote { voters: after.clone() },
            Some(_) => Next::Drop,
        },
        Ask::Add { node, as_learner, .. } => match picture.members.get(node) {
            None => Next::Admit,
            Some(seen) if seen.is_voter && is_settled => Next::Done,
            Some(seen) if !seen.is_voter && !has_caught_up(seen) => Next::Wait { behind: seen.behind },
            Some(seen) if *as_learner && !seen.is_voter => Next::Rest,
            Some(_) => Next::Vote { voters: after.clone() },
        },
        Ask::Replace { node, .. } => match picture.members.get(node) {
            None => Next::Admit,
            Some(seen) if seen.is_voter && is_settled && before == after => Next::Done,
            Some(seen) if !seen.is_voter && !has_caught_up(seen) => Next::Wait { behind: seen.behind },
            Some(_) => Next::Vote { voters: after.clone() },
        },
    }
}

/// What the leader knows of a voter that leadership may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heir {
    /// What it is as a member.
    pub seen: Seen,
    /// Its configuration's digest, by its last report.
    pub digest: Option<ConfigDigest>,
    /// It sees neither its references nor its peers.
    pub is_isolated: bool,
}

/// Whether a node may be handed leadership, and else what to do.
pub fn may_lead(name: &str, heir: &Heir, in_force: Option<&ConfigDigest>) -> Result<(), Rejection> {
    let refuse = |code, message| Err(Rejection { code, message });
    if !heir.seen.is_voter {
        return refuse(RejectionCode::Illegal, format!("{name} is a learner: only a voter leads"));
    }
    if !heir.seen.answers {
        let message = format!("{name} does not answer: start it, or name another node");
        return refuse(RejectionCode::NotReachable, message);
    }
    if heir.is_isolated {
        let message = format!("{name} sees neither its references nor a majority of its peers: mend its network first");
        return refuse(RejectionCode::NotReachable, message);
    }
    if !has_caught_up(&heir.seen) {
        let behind = heir.seen.behind.map_or("an unknown number of".to_owned(), |behind| behind.to_string());
        let message = format!("{name} is {behind} entries behind: ask again when it has caught up");
        return refuse(RejectionCode::Stale, message);
    }
    if heir.digest.is_some() && heir.digest.as_ref() != in_force {
        let message = format!(
            "{name} runs under another configuration, and would hand leadership on at once: give it the file that is in force first"
        );
        return refuse(RejectionCode::OtherConfig, message);
    }
    Ok(())
}
