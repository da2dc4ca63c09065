//! Plans as people read them: one line a step, what it does and with how much patience.

use watchdog::config::Config;
use watchdog::domain::plan::{Action, Check, Stage, Step};

/// Every plan of every group.
pub fn of(config: &Config) -> String {
    let mut text = String::new();
    for (name, group) in config.policy().groups {
        let rejoin = group.rejoin_plans.into_iter().map(|known| known.plan).collect();
        let sorts = [
            ("failover", group.failover_plans),
            ("switchover", group.switchover_plans),
            ("traffic", group.traffic_plans),
            ("rejoin", rejoin),
        ];
        for (sort, plan) in sorts.iter().flat_map(|(sort, plans)| plans.iter().map(move |plan| (sort, plan))) {
            text += &format!("{name}: {sort} {} -> {}\n", plan.from, plan.to);
            stages(&mut text, "", &plan.stages);
            stages(&mut text, "undo ", &plan.undo);
            text.push('\n');
        }
    }
    text
}

fn stages(text: &mut String, word: &str, stages: &[Stage]) {
    for (n, stage) in stages.iter().enumerate() {
        for step in &stage.steps {
            let Step { id, action, deadline_ms, retry, blocking } = step;
            let waits = if *blocking { "" } else { ", not waited for" };
            *text += &format!(
                "  {word}{} {id}: {deadline_ms} ms, {} attempts, {}..{} ms apart{waits}\n",
                n + 1,
                retry.max_attempts,
                retry.backoff_ms,
                retry.backoff_max_ms
            );
            for line in lines(action) {
                *text += &format!("      {line}\n");
            }
        }
    }
}

fn lines(action: &Action) -> Vec<String> {
    match action {
        Action::Fence { guard } => vec![format!("fence {} at {}@{}", guard.host, guard.user, guard.address)],
        Action::Promote { guard } => vec![format!("promote {} at {}@{}", guard.host, guard.user, guard.address)],
        Action::CatchUp { from, to } => vec![format!("{} has all of {}", to.host, from.host)],
        Action::Release { guard } => vec![format!("release {} at {}@{}", guard.host, guard.user, guard.address)],
        Action::Guarded { guard, name, params } => vec![format!("{name} {params:?} on {}", guard.host)],
        Action::UpsertDns { provider, token_record, records } => {
            let mut lines = vec![format!("at {}, token in {token_record}", provider.name())];
            for record in records {
                lines.push(format!("{} {} {} {}", record.name, record.ttl_s, record.kind, record.value));
            }
            lines
        }
        Action::Verify { checks } => checks.iter().map(check).collect(),
    }
}

fn check(check: &Check) -> String {
    match check {
        Check::Http { url, expect_status, connect_to, resolve_at } => {
            let to = connect_to.as_ref().map(|to| format!(" by way of {to}")).unwrap_or_default();
            let at = resolve_at.as_ref().map(|at| format!(" as {at} resolves it")).unwrap_or_default();
            format!("GET {url} answers {expect_status}{to}{at}")
        }
        Check::DnsAnswers { server, record } => {
            format!("{server} answers {} {} {}", record.name, record.kind, record.value)
        }
        Check::RedisWritable { server } => format!("{} is a Redis primary and takes a write", server.address),
        Check::DatabaseWritable { database } => format!("{} takes a write", database.conninfo),
    }
}
