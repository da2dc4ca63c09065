//! The promises, by name, as properties of every state.

use stateright::Property;

use super::cluster::{AWAY, HOME};
use super::rules::Rules;
use super::steps::Step;
use super::watchdogs::Watchdogs;
use super::world::{Request, Resources, Spent, World};

/// An effect begins: was it meant, and may it?
pub fn judge_effect(model: &Watchdogs, world: &mut World, request: Request) {
    let Some(place) = request.step.place() else { return };
    let brief = model.log.brief(world.head);
    let record = brief.step(request.step);
    let is_open = brief.run == request.run && record.phase.is_open_question();
    let is_fenced = !world.resources.old_runs && world.resources.latch > 0;
    let is_promote = request.step == Step::Promote;
    let is_planned = model.rules.is_planned(request.run);
    let is_excused = !is_planned && (model.rules.is_mode_none() || world.seen.is_asserted);
    let has_turned = brief.run == request.run && brief.has_turned_back;
    // A fence that was under way may still come; the release undoes it.
    let is_release_begun = brief.step(Step::Release).attempts > 0;
    let lacks_something = is_planned && is_promote && !world.resources.has_all;
    let seen = &mut world.seen;
    seen.lost_by_plan |= lacks_something;
    seen.forward_after_turning |=
        has_turned && request.step != Step::Release && (request.step != Step::Fence || is_release_begun);
    seen.effect_without_intent |= !seen.intents.contains(&request);
    seen.acted_under_lower |= request.token < world.resources.keeper(place).held;
    seen.promoted_unfenced |= is_promote && !is_fenced && !is_excused;
    seen.effect_after_end |= !is_open && !brief.unsettled.contains_key(&place);
}

/// Its database takes writes, or may start by itself; and nothing that could stop it again is on its way.
pub fn is_home_served(resources: &Resources, spent: &Spent) -> bool {
    let is_lost = spent.crashes > 0 || spent.deaths > 0;
    resources.latch == 0 && (resources.old_runs || is_lost) && resources.old.at_work.is_none()
}

/// Whoever leads and has nothing under way finds something to do in an open run, or has called a person.
fn is_somebody_at_it(model: &Watchdogs, world: &World) -> bool {
    let node = &world.nodes[usize::from(world.leader)];
    let brief = model.log.brief(world.head);
    let is_idle = brief.is_planned && node.tasks.is_empty() && node.view == world.head && !brief.is_paused;
    !is_idle || brief.is_stuck || !model.due(node).is_empty()
}

const MOVES: &str = "a planned move is carried out";
const TURNS_BACK: &str = "a planned move turns back";
const COMPLETES: &str = "p6 a failover completes";
const AFTER_A_LEADER: &str = "p6 it completes after its leader was replaced";
const ASSERTED: &str = "p4 it completes by an operator's assertion";
const CALLED_OFF: &str = "p6 a run is withdrawn or aborted";

/// What must be met somewhere within these rules.
pub fn possible(rules: &Rules) -> Vec<&'static str> {
    if rules.planned > 0 {
        return vec![MOVES, TURNS_BACK];
    }
    let mut wanted = vec![COMPLETES];
    wanted.extend((rules.elections > 0).then_some(AFTER_A_LEADER));
    wanted.extend((rules.orders > 0).then_some(ASSERTED));
    wanted.extend((rules.orders > 0 || rules.recoveries > 0).then_some(CALLED_OFF));
    wanted
}

/// All that must hold, and what must be possible.
pub fn properties() -> Vec<Property<Watchdogs>> {
    let always = Property::<Watchdogs>::always;
    let sometimes = Property::<Watchdogs>::sometimes;
    vec![
        always("p1 one run is open at a time", |_, world| world.seen.opened <= world.seen.closed + 1),
        always("p1 one failover completes per serving epoch", |_, world| {
            let done = &world.seen.completed_in;
            done.iter().enumerate().all(|(n, epoch)| !done[..n].contains(epoch))
        }),
        always("p2 no effect without its intent", |_, world| !world.seen.effect_without_intent),
        always("p2 no intent under an old claim", |_, world| !world.seen.started_under_old_claim),
        always("p3 no resource acts under a lower token", |_, world| !world.seen.acted_under_lower),
        always("p4 promoted only when fenced", |_, world| !world.seen.promoted_unfenced),
        always("p4 one database takes writes", |model, world| {
            let is_excused = model.rules.is_mode_none() && world.seen.opened > model.rules.planned;
            is_excused || world.seen.is_asserted || !(world.resources.old_runs && world.resources.promoted)
        }),
        always("p4 serving names who may write", |model, world| {
            let is_excused = model.rules.is_mode_none() && world.seen.opened > model.rules.planned;
            let serving = model.log.brief(world.head).serving.clone();
            let is_wrong = world.resources.old_runs && serving.as_deref() == Some(AWAY) && !world.seen.is_asserted
                || world.resources.promoted && serving.as_deref() == Some(HOME);
            is_excused || !is_wrong
        }),
        always("p5 a planned move loses nothing", |_, world| !world.seen.lost_by_plan),
        always("p6 each effect lands once", |_, world| {
            let seen = &world.seen;
            let started_twice = seen.starts.values().any(|n| *n > 1);
            seen.promotions <= 1 && seen.repointings <= 1 && !started_twice
        }),
        always("p6 no effect after it was called off", |_, world| !world.seen.effect_after_end),
        always("p6 nothing goes forward after turning back", |_, world| !world.seen.forward_after_turning),
        always("p6 whoever turned back serves", |_, world| !world.seen.reverted_unserved),
        always("p6 somebody goes on with a planned move", is_somebody_at_it),
        sometimes(MOVES, |_, world| world.seen.moved && world.resources.promoted && world.seen.closed > 0),
        sometimes(TURNS_BACK, |_, world| world.seen.reverted),
        always("p9 nothing starts while paused", |_, world| !world.seen.started_while_paused),
        always("the state's invariants hold", |_, world| !world.seen.broken_invariant),
        sometimes(COMPLETES, |_, world| !world.seen.completed_in.is_empty()),
        sometimes(AFTER_A_LEADER, |_, world| world.spent.elections > 0 && !world.seen.completed_in.is_empty()),
        sometimes(ASSERTED, |_, world| world.seen.is_asserted && !world.seen.completed_in.is_empty()),
        sometimes(CALLED_OFF, |_, world| world.seen.closed > 0 && world.seen.completed_in.is_empty()),
    ]
}
