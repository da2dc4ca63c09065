//! A leader's desk: `server/leases.rs` and `coordinator/leases.rs` retold around **the real `domain::lease::answer`**, cut
//! wherever a node may freeze or another may act: arrival → quorum round, state, finding → commit → grant and answer.

use watchdog::domain::lease::{LeaseAnswer, LeaseRequest, answer};

use super::super::cluster::{self, HOME, OLD_HOST, group_name};
use super::super::command::{Cmd, bits_of, holders};
use super::super::log::NOW;
use super::bounds::Mutation;
use super::keepers::seen;
use super::model::{LeaseModel, Luck};
use super::world::{Finding, Gate, Message, Paper, Reply, Request, Said, TTL_MS, Unheard, World};

/// Whether a node that believes to lead takes a request up: one at a time.
pub fn takes(model: &LeaseModel, world: &World, n: u8) -> bool {
    let node = &world.nodes[usize::from(n)];
    let at_once = if model.bound.breaks(Mutation::TakesNoTurns) { 2 } else { 1 };
    // Whoever can never lead again never confirms.
    let may_lead = n == world.leader
        || world.spent.elections < model.bound.elections
        || model.bound.breaks(Mutation::GrantsUnconfirmed);
    node.term > 0 && may_lead && node.desk.len() < at_once
}

/// A request arrives at a leader, or is carried to it.
pub fn arrive(world: &mut World, n: u8, request: Request) {
    world.net.remove(&Message::Renew(request));
    let at = world.moment;
    world.node(n).desk.insert(request.nonce, Paper::Arrived { request, at });
}

/// Goes on with a request. `None`: it cannot now.
pub fn go_on(model: &LeaseModel, world: &mut World, n: u8, nonce: u64, luck: Luck) -> Option<()> {
    match *world.nodes[usize::from(n)].desk.get(&nonce)? {
        Paper::Arrived { request, at } if luck == Luck::Good => confirm(model, world, n, request, at),
        Paper::Found { request, at, term, finding } => commit(model, world, n, (request, at, term, finding), luck),
        Paper::Granting { request, at } if luck == Luck::Good => {
            grant(model, world, n, request, at);
            Some(())
        }
        _ => None,
    }
}

/// The quorum round, whatever has to be undone first, and what the state says.
fn confirm(model: &LeaseModel, world: &mut World, n: u8, request: Request, at: u8) -> Option<()> {
    let leads = n == world.leader;
    let breaks = |mutation| model.bound.breaks(mutation);
    if !leads && !breaks(Mutation::GrantsUnconfirmed) {
        return None;
    }
    let head = world.head;
    let node = world.node(n);
    if leads {
        node.view = head;
    }
    if node.turn_term != node.term {
        node.turn_term = node.term;
        node.unheard = false;
        if !breaks(Mutation::ChallengeOutlivesTerm) {
            node.challenge = None;
        }
    }
    if node.unheard && leads && !breaks(Mutation::UnheardBindingStands) {
        if !unbind(model, world) {
            world.node(n).desk.remove(&request.nonce);
            return Some(());
        }
        world.node(n).unheard = false;
    }
    let challenge = challenge(world, n);
    let may_bind = challenge == request.challenge || breaks(Mutation::AnyRequestBinds);
    if request.gate != Gate::Bounded {
        draw_anew(model, world, n);
    }
    let finding = find(model, world, n, request, may_bind);
    if matches!(finding, Finding::Open { .. }) {
        draw_anew(model, world, n);
    }
    match finding {
        Finding::Open { unbind: false } => open(model, world, n, request, at),
        Finding::Denied => say(model, world, n, request, Said::Denied),
        Finding::Grant { bind: None } => {
            world.node(n).desk.insert(request.nonce, Paper::Granting { request, at });
        }
        Finding::Grant { .. } | Finding::Open { .. } | Finding::Unreliable => {
            let node = world.node(n);
            let term = node.term;
            node.desk.insert(request.nonce, Paper::Found { request, at, term, finding });
        }
    }
    Some(())
}

/// The real `answer`.
fn find(model: &LeaseModel, world: &World, n: u8, request: Request, may_bind: bool) -> Finding {
    let node = &world.nodes[usize::from(n)];
    let mut state = (*model.log.state(node.view)).clone();
    if model.bound.breaks(Mutation::StateForbidsNothing) {
        let group = cluster::group_mut(&mut state);
        group.serving.region = Some(HOME.into());
    }
    let is_unseen = model.bound.breaks(Mutation::BindsUnattested);
    let asked = LeaseRequest {
        group: group_name(),
        host: OLD_HOST.into(),
        region: HOME.into(),
        ttl_ms: TTL_MS,
        gate: seen(if is_unseen { Gate::Bounded } else { request.gate }),
        holders: holders(request.holders),
        may_bind: may_bind || is_unseen,
    };
    match answer(&state, &asked, node.stopped, NOW) {
        LeaseAnswer::Granted { bind } => Finding::Grant { bind: bind.map(|binding| bits_of(&binding.holders)) },
        LeaseAnswer::OpenEnded { unbind, .. } => Finding::Open { unbind },
        LeaseAnswer::Unreliable { .. } => Finding::Unreliable,
        LeaseAnswer::Denied { .. } => Finding::Denied,
    }
}

fn commit(
    model: &LeaseModel,
    world: &mut World,
    n: u8,
    (request, at, term, finding): (Request, u8, u8, Finding),
    luck: Luck,
) -> Option<()> {
    let node = &world.nodes[usize::from(n)];
    let is_same_term = node.term == term || model.bound.breaks(Mutation::ProposesInAnyTerm);
    let is_taken = n == world.leader && is_same_term;
    let unheard = luck == Luck::Unheard;
    if unheard && (!is_taken || node.proposed.is_some()) {
        return None;
    }
    match finding {
        Finding::Grant { bind: Some(bits) } => {
            if is_taken && !unheard {
                world.seen.rebound |= model.write(world, Cmd::Bind { holders: bits });
            } else {
                let node = world.node(n);
                node.unheard |= node.turn_term == term;
                node.proposed = if unheard { Some(Unheard::Bind(bits)) } else { node.proposed };
            }
            world.node(n).desk.insert(request.nonce, Paper::Granting { request, at });
        }
        Finding::Open { .. } if model.bound.breaks(Mutation::OpensBeforeUnbinding) => {
            open(model, world, n, request, at);
        }
        Finding::Open { .. } | Finding::Unreliable => {
            if is_taken && !unheard && unbind(model, world) {
                world.node(n).unheard = false;
                // Where a promotion ended the binding, it counts on a gate that stays shut.
                let serves = model.log.brief(world.head).serving.as_deref() == Some(HOME);
                let opens = matches!(finding, Finding::Open { .. });
                if opens && (serves || model.bound.breaks(Mutation::OpensWhateverServes)) {
                    open(model, world, n, request, at);
                } else {
                    say(model, world, n, request, Said::Denied);
                }
            } else {
                // No answer.
                let node = world.node(n);
                node.proposed = if unheard { Some(Unheard::Unbind) } else { node.proposed };
                node.desk.remove(&request.nonce);
            }
        }
        Finding::Grant { bind: None } | Finding::Denied => return None,
    }
    Some(())
}

/// False: a promotion counts on the binding.
fn unbind(model: &LeaseModel, world: &mut World) -> bool {
    model.write(world, Cmd::Unbind) || model.log.brief(world.head).bound.is_none()
}

/// A guard that cannot write down that its gate is open takes it for a grant, and so it counts as one.
fn open(model: &LeaseModel, world: &mut World, n: u8, request: Request, at: u8) {
    let node = world.node(n);
    if model.bound.breaks(Mutation::OpenEndedIsNoGrant) || model.bound.breaks(Mutation::OpensWhateverServes) {
        return say(model, world, n, request, Said::OpenEnded);
    }
    if node.stopped {
        return say(model, world, n, request, Said::Denied);
    }
    node.last_granted = node.last_granted.max(Some(at));
    say(model, world, n, request, Said::OpenEnded);
}

fn grant(model: &LeaseModel, world: &mut World, n: u8, request: Request, at: u8) {
    let node = world.node(n);
    if node.stopped {
        return say(model, world, n, request, Said::Denied);
    }
    node.last_granted = node.last_granted.max(Some(at));
    say(model, world, n, request, Said::Granted);
}

/// `Desk::word`.
fn say(model: &LeaseModel, world: &mut World, n: u8, request: Request, said: Said) {
    let challenge = challenge(world, n);
    let node = world.node(n);
    node.desk.remove(&request.nonce);
    let brief = model.log.brief(node.view);
    let is_told = brief.run == 0 || model.bound.breaks(Mutation::GroundWhileRunOpen);
    let ground = is_told.then_some(brief.token);
    // A denial shuts no gate that shuts by itself.
    if said != Said::Denied || model.bound.can_unbind() || model.bound.holders > 0 {
        let (nonce, sent) = (request.nonce, request.sent);
        world.net.insert(Message::Reply(Reply { nonce, said, bound: brief.bound, ground, challenge, sent }));
    }
}

fn challenge(world: &mut World, n: u8) -> u8 {
    if let Some(challenge) = world.node(n).challenge {
        return challenge;
    }
    let drawn = world.draw();
    world.node(n).challenge = Some(drawn);
    drawn
}

fn draw_anew(model: &LeaseModel, world: &mut World, n: u8) {
    if !model.bound.breaks(Mutation::ChallengeIsNotDrawnAnew) {
        let drawn = world.draw();
        world.node(n).challenge = Some(drawn);
    }
}
