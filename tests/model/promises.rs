//! The promises, by name, as properties of every state.

use stateright::Property;

use super::rules::Rules;
use super::steps::Step;
use super::watchdogs::Watchdogs;
use super::world::{Request, World};

/// An effect begins: was it meant, and may it?
pub fn judge_effect(model: &Watchdogs, world: &mut World, request: Request) {
    let Some(place) = request.step.place() else { return };
    let brief = model.log.brief(world.head);
    let record = brief.step(request.step);
    let is_open = brief.run == request.run && record.phase.is_open_question();
    let is_fenced = !world.resources.old_runs && world.resources.latch > 0;
    let is_promote = request.step == Step::Promote;
    let is_excused = model.rules.is_mode_none() || world.seen.is_asserted;
    let seen = &mut world.seen;
    seen.effect_without_intent |= !seen.intents.contains(&request);
    seen.acted_under_lower |= request.token < world.resources.keeper(place).held;
    seen.promoted_unfenced |= is_promote && !is_fenced && !is_excused;
    seen.effect_after_end |= !is_open && !brief.unsettled.contains_key(&place);
}

const COMPLETES: &str = "p6 a failover completes";
const AFTER_A_LEADER: &str = "p6 it completes after its leader was replaced";
const ASSERTED: &str = "p4 it completes by an operator's assertion";
const CALLED_OFF: &str = "p6 a run is withdrawn or aborted";

/// What must be met somewhere within these rules.
pub fn possible(rules: &Rules) -> Vec<&'static str> {
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
            let is_excused = model.rules.is_mode_none() || world.seen.is_asserted;
            is_excused || !(world.resources.old_runs && world.resources.promoted)
        }),
        always("p6 each effect lands once", |_, world| {
            let seen = &world.seen;
            let started_twice = seen.starts.values().any(|n| *n > 1);
            seen.promotions <= 1 && seen.repointings <= 1 && !started_twice
        }),
        always("p6 no effect after it was called off", |_, world| !world.seen.effect_after_end),
        always("p9 nothing starts while paused", |_, world| !world.seen.started_while_paused),
        always("the state's invariants hold", |_, world| !world.seen.broken_invariant),
        sometimes(COMPLETES, |_, world| !world.seen.completed_in.is_empty()),
        sometimes(AFTER_A_LEADER, |_, world| world.spent.elections > 0 && !world.seen.completed_in.is_empty()),
        sometimes(ASSERTED, |_, world| world.seen.is_asserted && !world.seen.completed_in.is_empty()),
        sometimes(CALLED_OFF, |_, world| world.seen.closed > 0 && world.seen.completed_in.is_empty()),
    ]
}
