//! What a node does with a move, after `src/coordinator/steps.rs` and `settle.rs`: each function is one stretch between
//! two points where the node may freeze, die, or find the world changed.

use watchdog::domain::mutation::Mutation as Gate;
use watchdog::domain::run::StepPhase;

use super::command::{Cmd, End, Ended, Places, Proof};
use super::log::{Brief, StepSeen};
use super::rules::Mutation;
use super::steps::{Place, Step};
use super::watchdogs::{Due, Luck, Watchdogs};
use super::world::{Look, Node, Request, Slot, Task, World};

/// `Runs::begin`: what is under way is waited for, and the bound is kept.
pub fn may_begin(model: &Watchdogs, node: &Node, brief: &Brief, due: Due) -> bool {
    let rules = model.rules;
    let is_free = |slot: Slot| !node.tasks.contains_key(&slot);
    match due {
        Due::Claim => node.busy().is_empty() && is_free(Slot::Run) && brief.token < rules.claims,
        Due::Start { step, attempt } => {
            // `Executor::start`: nothing is done to what is unsettled.
            let is_settled = step.place().is_none_or(|place| !brief.unsettled.contains_key(&place));
            is_free(Slot::Of(step)) && attempt <= rules.attempts && is_settled
        }
        Due::Settle { step, .. } | Due::Watch { step } | Due::GiveUp { step } => is_free(Slot::Of(step)),
        Due::Abort | Due::Close | Due::Revert | Due::CallOff | Due::TurnBack => is_free(Slot::Run),
    }
}

/// Leadership is confirmed by a quorum round.
fn is_confirmed(model: &Watchdogs, world: &World, n: u8) -> bool {
    n == world.leader || model.rules.breaks(Mutation::LeadershipIsNotConfirmed)
}

fn node_mut(world: &mut World, n: u8) -> &mut Node {
    &mut world.nodes[usize::from(n)]
}

/// Begins a move.
pub fn begin(model: &Watchdogs, world: &mut World, n: u8, due: Due, luck: Luck) {
    let node = world.nodes[usize::from(n)].clone();
    let brief = model.log.brief(node.view);
    let (run, token) = (node.run, node.token);
    if luck == Luck::Lost {
        world.spent.losses += 1;
    }
    match due {
        Due::Claim => {
            let answer = model.propose(world, n, Cmd::Claim { run, expected: brief.token });
            if let Some(answer) = answer.filter(|answer| answer.done && luck == Luck::Good) {
                node_mut(world, n).token = answer.token;
            }
        }
        Due::Start { step: Step::Promote, attempt } => {
            if is_confirmed(model, world, n) && luck == Luck::Good {
                let is_fence_done = brief.step(Step::Fence).phase == StepPhase::Done;
                let task = Task::Confirmed { attempt, is_fence_done, is_asserted: brief.is_asserted };
                node_mut(world, n).tasks.insert(Slot::Of(Step::Promote), task);
            }
        }
        Due::Start { step, attempt } => {
            let may = step != Step::Release || may_release(model, world, n, &brief, luck);
            if is_confirmed(model, world, n) && may {
                start(model, world, n, Cmd::Start { run, step, token, attempt, proof: None }, luck);
            }
        }
        Due::Settle { step, attempt } if step.is_look() => {
            let task = Task::Reporting { attempt, ended: Ended::Failed };
            node_mut(world, n).tasks.insert(Slot::Of(step), task);
        }
        Due::Settle { step, attempt } => {
            if is_confirmed(model, world, n) {
                node_mut(world, n).tasks.insert(Slot::Of(step), Task::Looking { attempt });
            }
        }
        Due::Watch { step } => watch(model, world, n, step, luck),
        Due::GiveUp { step } => {
            give_up(model, world, n, step);
        }
        Due::TurnBack => {
            model.propose(world, n, Cmd::TurnBack { run, token });
        }
        Due::Abort => {
            let (is_untouched, settled) = look_before_abort(model, world, &node, &brief, luck);
            node_mut(world, n).tasks.insert(Slot::Run, Task::Closing { end: End::Aborted, is_untouched, settled });
        }
        Due::Close => {
            close(model, world, n, End::Succeeded);
        }
        Due::Revert => close(model, world, n, End::Reverted),
        Due::CallOff => close(model, world, n, End::Withdrawn),
    }
}

fn close(model: &Watchdogs, world: &mut World, n: u8, end: End) {
    let (run, token) = (world.nodes[usize::from(n)].run, world.nodes[usize::from(n)].token);
    model.propose(world, n, Cmd::Close { run, token, end, is_untouched: false, settled: Places::default() });
}

/// `Executor::give_up`: a planned move that promoted nothing goes back, anything else calls a person.
fn give_up(model: &Watchdogs, world: &mut World, n: u8, step: Step) {
    let node = &world.nodes[usize::from(n)];
    let (run, token) = (node.run, node.token);
    let turns_back = model.log.brief(node.view).turns_back;
    let cmd = if turns_back { Cmd::TurnBack { run, token } } else { Cmd::Stuck { run, step, token } };
    model.propose(world, n, cmd);
}

/// Commits the intent; only then the request goes out. Lost: the log took it, and the node never hears of it.
fn start(model: &Watchdogs, world: &mut World, n: u8, cmd: Cmd, luck: Luck) {
    let Cmd::Start { run, step, token, attempt, .. } = cmd else { return };
    let is_committed = model.propose(world, n, cmd).is_some_and(|answer| answer.done);
    node_mut(world, n).tasks.remove(&Slot::Of(step));
    if luck == Luck::Lost || !(is_committed || model.rules.breaks(Mutation::ActsWithoutIntent)) {
        return;
    }
    world.mail.insert(Request { run, step, attempt, token });
    node_mut(world, n).tasks.insert(Slot::Of(step), Task::Waiting { attempt });
}

/// The request's answer never comes.
pub fn time_out(model: &Watchdogs, world: &mut World, n: u8, step: Step) {
    world.spent.losses += 1;
    let is_guessed = model.rules.breaks(Mutation::SilenceIsFailure);
    // A repeatable action may be done again, whatever it did.
    let ended = if is_guessed || step.is_look() { Ended::Failed } else { Ended::Unknown };
    if let Some(task) = node_mut(world, n).tasks.get_mut(&Slot::Of(step))
        && let Task::Waiting { attempt } = *task
    {
        *task = Task::Reporting { attempt, ended };
    }
}

/// Goes on with what is under way.
pub fn go_on(model: &Watchdogs, world: &mut World, n: u8, slot: Slot, luck: Luck) {
    let node = &world.nodes[usize::from(n)];
    let (run, token) = (node.run, node.token);
    let Some(task) = node.tasks.get(&slot).copied() else { return };
    if luck == Luck::Lost {
        world.spent.losses += 1;
    }
    match (slot, task) {
        (_, Task::Open { token, epoch }) => {
            node_mut(world, n).tasks.remove(&slot);
            world.spent.runs += 1;
            model.propose(world, n, Cmd::Open { run: world.seen.opened + 1, token, epoch });
        }
        (_, Task::Confirmed { attempt, is_fence_done, is_asserted }) => {
            prove(model, world, n, (attempt, is_fence_done, is_asserted), luck);
        }
        (_, Task::Proven { attempt, proof }) => {
            let cmd = Cmd::Start { run, step: Step::Promote, token, attempt, proof: Some(proof) };
            start(model, world, n, cmd, luck);
        }
        (Slot::Of(step), Task::Looking { attempt }) => settle(model, world, n, (step, attempt), luck),
        (Slot::Of(step), Task::Reporting { attempt, ended }) => {
            node_mut(world, n).tasks.remove(&slot);
            if luck == Luck::Good {
                model.propose(world, n, Cmd::Finish { run, step, token, attempt, ended });
            }
            if ended == Ended::Refused {
                model.propose(world, n, Cmd::Stuck { run, step, token });
            }
        }
        (_, Task::Closing { end, is_untouched, settled }) => {
            node_mut(world, n).tasks.remove(&slot);
            if luck == Luck::Good {
                model.propose(world, n, Cmd::Close { run, token, end, is_untouched, settled });
            }
        }
        (Slot::Settling(place), Task::Settled { is_untouched }) => {
            node_mut(world, n).tasks.remove(&slot);
            model.propose(world, n, Cmd::Settle { place, is_untouched });
        }
        _ => {}
    }
}

/// `Executor::may_promote`: the fence is read again under the present token.
fn prove(model: &Watchdogs, world: &mut World, n: u8, known: (u8, bool, bool), luck: Luck) {
    let (attempt, is_fence_done, is_asserted) = known;
    let slot = Slot::Of(Step::Promote);
    let (run, token) = (world.nodes[usize::from(n)].run, world.nodes[usize::from(n)].token);
    let mut seen = None;
    let is_standing = model.rules.is_mode_none() && !proves_all(model, run);
    if !is_standing && is_fence_done && luck == Luck::Good {
        let fence = Request { run, step: Step::Fence, attempt: 1, token };
        let is_skipped = model.rules.breaks(Mutation::FenceIsNotReadAgain);
        seen = Some(if is_skipped { Look::Done } else { world.resources.look(fence, false, model.rules) });
    }
    let proof = match seen {
        _ if is_standing => Some(Proof::Standing),
        Some(Look::Done) if lacks_something(model, world, run, token) => None,
        Some(Look::Done) => Some(Proof::Guard),
        Some(Look::Refused) => None,
        _ if is_asserted => Some(Proof::Asserted),
        _ => None,
    };
    match proof {
        Some(proof) => {
            node_mut(world, n).tasks.insert(slot, Task::Proven { attempt, proof });
        }
        // Tried again, or given up: patience decides.
        None => {
            node_mut(world, n).tasks.remove(&slot);
            if luck == Luck::Good {
                match seen {
                    Some(Look::Refused) => drop(model.propose(world, n, Cmd::Stuck { run, step: Step::Fence, token })),
                    _ => give_up(model, world, n, Step::Promote),
                }
            }
        }
    }
}

/// Whether this run's promotion stands on its guard's own proof alone.
fn proves_all(model: &Watchdogs, run: u8) -> bool {
    model.rules.is_planned(run) && !model.rules.breaks(Mutation::Product(Gate::PlannedOnAnyProof))
}

/// `Executor::caught_up`: both guards are looked at once more.
fn lacks_something(model: &Watchdogs, world: &World, run: u8, token: u8) -> bool {
    let asks = model.rules.is_planned(run) && !model.rules.breaks(Mutation::Product(Gate::NoCatchUp));
    asks && !world.resources.has_caught_up(token)
}

/// `Executor::may_release`: a promotion that was tried is seen not to have happened, under our token.
fn may_release(model: &Watchdogs, world: &mut World, n: u8, brief: &Brief, luck: Luck) -> bool {
    let (record, node) = (brief.step(Step::Promote), &world.nodes[usize::from(n)]);
    if record.attempts == 0 || model.rules.breaks(Mutation::Product(Gate::ReleaseWithoutLook)) {
        return true;
    }
    let request = Request { run: node.run, step: Step::Promote, attempt: record.attempts, token: node.token };
    luck == Luck::Good && world.resources.look(request, false, model.rules) == Look::NotDone
}

/// `Executor::settle`: raises the token at the resource and reads it back.
fn settle(model: &Watchdogs, world: &mut World, n: u8, (step, attempt): (Step, u8), luck: Luck) {
    let node = &world.nodes[usize::from(n)];
    let (run, token) = (node.run, node.token);
    let record = model.log.brief(node.view).step(step);
    let was_started = record.phase == StepPhase::Started;
    let slot = Slot::Of(step);
    let request = Request { run, step, attempt, token };
    let look = (luck == Luck::Good).then(|| world.resources.look(request, false, model.rules));
    let ended = match look {
        Some(Look::Done) => Some(Ended::Done),
        // "Not there" is "not yet" as long as the last request is not kept out.
        Some(Look::NotDone | Look::Untouched) => keeps_out(model, record, token).then_some(Ended::Failed),
        Some(Look::InFlight) => None,
        Some(Look::Refused) => {
            model.propose(world, n, Cmd::Stuck { run, step, token });
            None
        }
        None => was_started.then_some(Ended::Unknown),
    };
    match ended {
        Some(ended) => node_mut(world, n).tasks.insert(slot, Task::Reporting { attempt, ended }),
        None => node_mut(world, n).tasks.remove(&slot),
    };
}

fn keeps_out(model: &Watchdogs, record: StepSeen, token: u8) -> bool {
    record.token < token || model.rules.breaks(Mutation::NotThereIsNever)
}

/// `Executor::watch`: what keeps a stuck run may be gone.
fn watch(model: &Watchdogs, world: &mut World, n: u8, step: Step, luck: Luck) {
    let node = world.nodes[usize::from(n)].clone();
    let brief = model.log.brief(node.view);
    let (run, token, record) = (node.run, node.token, brief.step(step));
    if luck == Luck::Lost {
        return;
    }
    let unstick = Cmd::Unstick { run, token };
    if step == Step::Promote && record.phase == StepPhase::Pending {
        if brief.has_turned_back {
            return;
        }
        let fence = Request { run, step: Step::Fence, attempt: 1, token };
        let is_fence_done = brief.step(Step::Fence).phase == StepPhase::Done;
        let is_proven = is_fence_done && world.resources.look(fence, false, model.rules) == Look::Done;
        if is_proven || brief.is_asserted || model.rules.is_mode_none() {
            model.propose(world, n, unstick);
        }
        return;
    }
    if record.attempts == 0 && step == Step::Release {
        if may_release(model, world, n, &brief, luck) {
            model.propose(world, n, unstick);
        }
        return;
    }
    if record.attempts == 0 || step.is_look() {
        return;
    }
    let look = world.resources.look(Request { run, step, attempt: record.attempts, token }, false, model.rules);
    let finish = |ended| Cmd::Finish { run, step, token, attempt: record.attempts, ended };
    match look {
        Look::Done => {
            model.propose(world, n, finish(Ended::Done));
            model.propose(world, n, unstick);
        }
        Look::NotDone | Look::Untouched => {
            if record.phase.is_open_question() && keeps_out(model, record, token) {
                model.propose(world, n, finish(Ended::Failed));
            }
            if matches!(step, Step::Fence | Step::Release) {
                model.propose(world, n, unstick);
            }
        }
        Look::InFlight => {}
        Look::Refused => {
            model.propose(world, n, Cmd::Stuck { run, step, token });
        }
    }
}

/// `Executor::abort`, its first half: every open question and the fence are looked at. Lost: nobody answers.
fn look_before_abort(model: &Watchdogs, world: &mut World, node: &Node, brief: &Brief, luck: Luck) -> (bool, Places) {
    let mut settled = Places::default();
    let mut is_untouched = true;
    for (step, record) in &brief.steps {
        let is_fence = *step == Step::Fence;
        if record.attempts == 0 || !(record.phase.is_open_question() || is_fence) {
            continue;
        }
        let request = Request { run: node.run, step: *step, attempt: record.attempts, token: node.token };
        let look = (luck == Luck::Good).then(|| world.resources.look(request, false, model.rules));
        is_untouched &= !is_fence || look == Some(Look::Untouched);
        let Some(place) = step.place() else { continue };
        if matches!(look, Some(Look::Done | Look::NotDone | Look::Untouched)) {
            settled[place as usize] = true;
        }
    }
    (is_untouched, settled)
}

/// `Executor::withdraw`: the trigger is gone; a fence that was tried must be seen untouched.
pub fn withdraw(model: &Watchdogs, world: &mut World, n: u8) {
    world.spent.recoveries += 1;
    let node = world.nodes[usize::from(n)].clone();
    let record = model.log.brief(node.view).step(Step::Fence);
    let is_tried = record.attempts > 0;
    if is_tried {
        let request = Request { run: node.run, step: Step::Fence, attempt: record.attempts, token: node.token };
        if world.resources.look(request, false, model.rules) != Look::Untouched {
            return;
        }
    }
    let task = Task::Closing { end: End::Withdrawn, is_untouched: is_tried, settled: Places::default() };
    node_mut(world, n).tasks.insert(Slot::Of(Step::Fence), task);
}

/// `settle_left`: raises the group's last token where an aborted or skipped step may still act, and reads.
pub fn look_at_unsettled(model: &Watchdogs, world: &mut World, n: u8, place: Place) {
    let view = world.nodes[usize::from(n)].view;
    let Some(step) = left_step(model, view, place) else { return };
    let request = Request { run: 0, step, attempt: 0, token: model.log.brief(view).token };
    let is_untouched = match world.resources.look(request, true, model.rules) {
        Look::InFlight => return,
        Look::Untouched => true,
        Look::Done | Look::NotDone | Look::Refused => false,
    };
    node_mut(world, n).tasks.insert(Slot::Settling(place), Task::Settled { is_untouched });
}

fn left_step(model: &Watchdogs, view: u32, place: Place) -> Option<Step> {
    let state = model.log.state(view);
    let left = super::cluster::group_of(&state).unsettled.get(&place.resource())?;
    super::steps::ALL.into_iter().find(|step| {
        step.place() == Some(place)
            && left.action.verb() == if *step == Step::Services { "start-services" } else { step.name() }
    })
}

/// Leaves out requests that can only be refused and for which nobody waits: they change nothing any more.
pub fn forget_dead_letters(model: &Watchdogs, world: &mut World) {
    let World { mail, resources, nodes, .. } = world;
    mail.retain(|request| {
        let is_refused = request.step.place().is_some_and(|place| resources.refuses(place, request.token, model.rules));
        let is_awaited = nodes.iter().any(|node| {
            node.token == request.token
                && node.tasks.get(&Slot::Of(request.step)) == Some(&Task::Waiting { attempt: request.attempt })
        });
        !is_refused || is_awaited
    });
}
