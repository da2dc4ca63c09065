//! What a leader does for its run: `coordinator/runs.rs`, `steps.rs` and `gates.rs` retold around **the real `advance` and
//! the real `domain::lease::lapsed`**, as far as the lease is concerned: the fence's host never answers.

use std::collections::BTreeSet;

use watchdog::domain::advance::Move;
use watchdog::domain::ids::StepId;
use watchdog::domain::lease::{GrantsSeen, LeaseBinding, lapsed};
use watchdog::domain::run::StepPhase;

use super::super::cluster::group_of;
use super::super::command::{Cmd, End, Proof, bits_of};
use super::super::steps::Step;
use super::bounds::Mutation;
use super::model::{LeaseModel, Luck};
use super::world::{Message, Unheard, Work, World, waiters_ms};

/// Longer than any wait.
const AGES_MS: u64 = 1_000_000;

/// A move of `advance` that concerns the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Due {
    Claim,
    Fence,
    Lapse,
    Promote,
}

/// What a leader may begin.
pub fn due(model: &LeaseModel, world: &World, n: u8) -> Vec<Due> {
    let node = &world.nodes[usize::from(n)];
    if n != world.leader || node.work.is_some() {
        return Vec::new();
    }
    let brief = model.log.brief(node.view);
    // The fence's request is never answered: it is under way for ever.
    let is_under_way = brief.step(Step::Fence).phase == StepPhase::Started;
    let busy: BTreeSet<Step> = is_under_way.then_some(Step::Fence).into_iter().collect();
    let moves = model.log.moves(node.view, node.token, &busy, true);
    let starts = |step: &StepId, of: Step| step == &of.id() && brief.step(of).phase == StepPhase::Pending;
    let due = moves.iter().filter_map(|due| match due {
        Move::Claim => Some(Due::Claim),
        Move::Start { step, attempt: 1 } if starts(step, Step::Fence) => Some(Due::Fence),
        Move::Start { step, .. } if starts(step, Step::Promote) && brief.is_lapsed => Some(Due::Promote),
        Move::Lapse { .. } => Some(Due::Lapse),
        _ => None,
    });
    due.collect()
}

/// Begins a move.
pub fn begin(model: &LeaseModel, world: &mut World, n: u8, due: Due) {
    let brief = model.log.brief(world.head);
    let (run, token) = (brief.run, world.nodes[usize::from(n)].token);
    match due {
        Due::Claim => {
            let issued = model.claim(world, Cmd::Claim { run, expected: brief.token });
            world.node(n).token = issued;
        }
        Due::Fence => {
            let is_late = model.bound.breaks(Mutation::StopsWhenHeard) || model.bound.breaks(Mutation::GrantsAfterStop);
            let node = world.node(n);
            node.stopped |= !is_late;
            node.work = Some(Work::Fencing { run, token });
        }
        Due::Lapse | Due::Promote => {
            if is_silent(model, world, n, token) {
                world.node(n).work = Some(Work::Judged { run, token, promotes: due == Due::Promote });
            }
        }
    }
}

/// Goes on with what a node has in hand, whether it still leads or not.
pub fn go_on(model: &LeaseModel, world: &mut World, n: u8, luck: Luck) -> Option<()> {
    let leads = n == world.leader;
    let node = world.node(n);
    let work = node.work.take()?;
    if luck == Luck::Unheard && (!leads || node.proposed.is_some() || !matches!(work, Work::Fencing { .. })) {
        return None;
    }
    match work {
        Work::Fencing { run, token } if luck == Luck::Unheard => node.proposed = Some(Unheard::Fence { run, token }),
        Work::Fencing { run, token } if leads => {
            let is_heard = model.write(world, fence(run, token));
            world.node(n).stopped |= is_heard && model.bound.breaks(Mutation::StopsWhenHeard);
        }
        Work::Judged { run, token, promotes: false } if leads => {
            model.write(world, Cmd::Lapse { run, token });
        }
        Work::Judged { run, token, promotes: true } if leads => {
            let proof = Some(Proof::Lapsed);
            if model.write(world, Cmd::Start { run, step: Step::Promote, token, attempt: 1, proof }) {
                world.net.insert(Message::Promote { token });
            }
        }
        // Whoever leads no more commits nothing.
        Work::Fencing { .. } | Work::Judged { .. } => {}
    }
    Some(())
}

/// The fence's intent.
pub fn fence(run: u8, token: u8) -> Cmd {
    Cmd::Start { run, step: Step::Fence, token, attempt: 1, proof: None }
}

/// `Executor::silence`: ends the holds, then the real `lapsed`. What is known of grants is looked at here in the same moment:
/// earlier, as it really is, can only make it longer.
fn is_silent(model: &LeaseModel, world: &mut World, n: u8, token: u8) -> bool {
    let breaks = |mutation| model.bound.breaks(mutation);
    let (moment, node) = (world.moment, &world.nodes[usize::from(n)]);
    let since = |then: u8| waiters_ms(moment) - waiters_ms(then);
    let led_ms = node.led_since.filter(|_| !breaks(Mutation::ForgetsEarlierLeaders)).map_or(AGES_MS, since);
    let last_granted_ms = node.last_granted.filter(|_| !breaks(Mutation::ForgetsOwnGrants)).map(since);
    let state = model.log.state(world.nodes[usize::from(n)].view);
    let Some(bound) = group_of(&state).lease.clone() else { return false };
    let bits = bits_of(&bound.holders);
    let asked: &[u8] = if breaks(Mutation::OnlyTheTargetIsAsked) { &[0] } else { &[0, 1] };
    let mut holds_over = true;
    for holder in asked.iter().filter(|holder| bits & (1 << **holder) > 0) {
        holds_over &= breaks(Mutation::HoldsAreNotAsked) || ends_hold(model, world, *holder, token);
    }
    // A shorter TTL takes the margin away.
    let ttl_ms = if breaks(Mutation::NoRateMargin) { bound.ttl_ms * 5 / 6 } else { bound.ttl_ms };
    let binding = LeaseBinding { ttl_ms, ..bound };
    lapsed(&binding, GrantsSeen { led_ms, last_granted_ms, holds_over }).is_ok()
}

fn ends_hold(model: &LeaseModel, world: &mut World, holder: u8, token: u8) -> bool {
    let moment = world.moment;
    let standby = &mut world.standbys[usize::from(holder)];
    if standby.held > token {
        return false;
    }
    if !model.bound.breaks(Mutation::HoldsAreNotEnded) {
        standby.held = token;
    }
    !standby.holds(moment) || model.bound.breaks(Mutation::HoldsInForceDoNotCount)
}

/// The trigger went away and the old primary was seen untouched.
pub fn withdraw(model: &LeaseModel, world: &mut World) -> bool {
    let leader = world.leader;
    let (run, token) = (model.log.brief(world.head).run, world.nodes[usize::from(leader)].token);
    let settled = [false; 3];
    model.write(world, Cmd::Close { run, token, end: End::Withdrawn, is_untouched: true, settled })
}
