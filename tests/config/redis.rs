//! Redis in a group: what is told of its keys, and that a group without it is as if there were none.

use watchdog::config::{Config, DatabaseRole, TargetKind, judge, render};

use crate::faults::BASE;
use crate::text_of_plans;

/// Both regions' servers, each following the other's.
const TARGETS: &str = r#"[[group.target]]
name = "hcmc-redis"
region = "hcmc"
kind = "redis"
address = "10.1.0.41:6379"
password_file = "/etc/watchdog/redis.password"
primary = "10.2.0.41:6379"
[[group.target]]
name = "hanoi-redis"
region = "hanoi"
kind = "redis"
address = "10.2.0.41:6379"
user = "watcher"
password_file = "/etc/watchdog/redis.password"
primary = "10.1.0.41:6379"
[[group.target]]
name = "hcmc-db""#;

/// The base with Redis in both regions.
pub fn with_redis(changes: &[(&str, &str)]) -> String {
    let replaced = [
        ("[[group.target]]\nname = \"hcmc-db\"", TARGETS),
        ("replication = \"hanoi-rep\"", "replication = \"hanoi-rep\"\nredis = \"hanoi-redis\""),
        ("replication = \"hcmc-rep\"", "replication = \"hcmc-rep\"\nredis = \"hcmc-redis\""),
    ];
    let mut text = BASE.to_owned();
    for (old, new) in replaced.iter().chain(changes) {
        assert!(text.contains(old), "there is no {old:?}");
        text = text.replacen(old, new, 1);
    }
    text
}

pub fn sound(text: &str) -> Config {
    let (config, report) = judge(text.as_bytes());
    config.unwrap_or_else(|| panic!("{}", render(&report, "test")))
}

#[test]
fn both_servers_are_looked_at() {
    let config = sound(&with_redis(&[]));
    let group = &config.groups[&"g".into()];
    assert_eq!(group.policy.redis[&"hanoi".into()], "hanoi-redis".into());
    let TargetKind::Redis { server, primary, expect_role } = &group.targets[&"hanoi-redis".into()].kind else {
        panic!("{:?}", group.targets)
    };
    assert_eq!((server.address.as_str(), server.user.as_deref()), ("10.2.0.41:6379", Some("watcher")));
    assert_eq!(*expect_role, DatabaseRole::Any);
    let primary = primary.as_ref().unwrap();
    assert_eq!((primary.address.as_str(), &primary.password_file), ("10.1.0.41:6379", &server.password_file));
    let named = config.files.iter().filter(|file| file.path.ends_with("redis.password") && file.secret).count();
    assert_eq!(named, 2, "the password's file is checked, once for each target");
}

#[test]
fn each_fault_is_told_by_its_key() {
    for (old, new, path, phrase) in [
        (
            "address = \"10.2.0.41:6379\"",
            "address = \"10.2.0.41\"",
            "group[g].target[hanoi-redis].address",
            "10.2.0.41",
        ),
        ("primary = \"10.1.0.41:6379\"", "primary = \"redis\"", "group[g].target[hanoi-redis].primary", "redis"),
        (
            "primary = \"10.1.0.41:6379\"",
            "primary = \"10.2.0.41:6379\"",
            "group[g].target[hanoi-redis].primary",
            "the same server",
        ),
        (
            "user = \"watcher\"\npassword_file = \"/etc/watchdog/redis.password\"",
            "user = \"watcher\"",
            "group[g].target[hanoi-redis].user",
            "without password_file",
        ),
        (
            "user = \"watcher\"\n",
            "expect_role = \"standby\"\n",
            "group[g].target[hanoi-redis].expect_role",
            "choose \"primary\" or \"replica\" or \"any\"",
        ),
        ("redis = \"hanoi-redis\"", "redis = \"hanoi-db\"", "group[g].region[hanoi].redis", "of kind postgres"),
        (
            "redis = \"hanoi-redis\"",
            "redis = \"hcmc-redis\"",
            "group[g].region[hanoi].redis",
            "does not stand in hanoi",
        ),
        (
            "redis = \"hanoi-redis\"",
            "load_balancer = \"hanoi-redis\"",
            "group[g].region[hanoi].load_balancer",
            "of kind redis",
        ),
        (
            "replication = \"hanoi-rep\"",
            "replication = \"hanoi-redis\"",
            "group[g].region[hanoi].replication",
            "name a target of kind replication",
        ),
    ] {
        let (config, report) = judge(with_redis(&[(old, new)]).as_bytes());
        let found = report.errors.iter().any(|fault| fault.path == path && fault.to_string().contains(phrase));
        assert!(config.is_none() && found, "wanted {path}: …{phrase}…\n{}", render(&report, "test"));
    }
    let replica = [("user = \"watcher\"\n", "user = \"watcher\"\nexpect_role = \"replica\"\n")];
    sound(&with_redis(&replica));
    let triggers = [replica[0], ("targets = [\"hanoi-db\"]", "targets = [\"hanoi-db\", \"hanoi-redis\"]")];
    let (_, report) = judge(with_redis(&triggers).as_bytes());
    assert!(render(&report, "test").contains("expects a replica"), "{}", render(&report, "test"));
}

#[test]
fn a_group_without_it_keeps_its_digest() {
    // As it was before there was Redis at all.
    let text = serde_json::to_string(&sound(BASE).groups[&"g".into()].policy).unwrap();
    assert!(!text.contains("redis"), "{text}");
    assert_ne!(sound(BASE).digest, sound(&with_redis(&[])).digest);
}

/// The servers move with the group: their guards stand on the databases' hosts.
fn moved(changes: &[(&str, &str)]) -> String {
    let hosts = [
        ("redis = \"hcmc-redis\"", "redis = \"hcmc-redis\"\nredis_host = \"db-hcmc\""),
        ("redis = \"hanoi-redis\"", "redis = \"hanoi-redis\"\nredis_host = \"db-hanoi\""),
    ];
    with_redis(&[&hosts[..], changes].concat())
}

/// The plan's lines that begin a step, without their patience.
fn steps(text: &str, plan: &str) -> Vec<String> {
    let plans = text_of_plans::of(&sound(text));
    let plan =
        plans.split("\n\n").find(|found| found.starts_with(&format!("g: {plan} hcmc -> "))).expect("a plan").to_owned();
    let first = |line: &str| line.split(':').next().map(|words| words.trim().to_owned());
    plan.lines().skip(1).filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(first).collect()
}

#[test]
fn redis_moves_behind_the_database() {
    let text = moved(&[]);
    let failover = steps(&text, "failover").join(" ");
    assert!(failover.contains("2 promote 3 redis-fence 3 redis-promote 4 services"), "{failover}");
    let planned = steps(&text, "switchover").join(" ");
    assert!(planned.starts_with("1 fence 2 catch-up 3 redis-hand-over 4 promote 5 redis-promote 6 dns"), "{planned}");
    assert!(
        planned.contains("rejoin 8 redis-rejoin") && planned.ends_with("undo 1 release undo 1 redis-release"),
        "{planned}"
    );
    assert_eq!(steps(&text, "rejoin").join(" "), "1 rejoin 2 redis-fence 3 redis-rejoin");
    let config = sound(&text);
    let group = &config.groups[&"g".into()].policy;
    let plan = &group.failover_plans[0];
    let step = |id: &str| plan.step(&id.into()).unwrap();
    // Neither holds up the services; the promotion waits for the fence, and the database's for nothing of Redis.
    assert!(!step("redis-fence").blocking && !step("redis-promote").blocking);
    let waited: Vec<_> = plan.waited_for(step("redis-promote")).map(|step| step.id.as_str()).collect();
    assert_eq!(waited, ["redis-fence"]);
    assert_eq!(plan.waited_for(step("promote")).count() + plan.waited_for(step("redis-fence")).count(), 0);
    assert!(group.switchover_plans[0].step(&"redis-hand-over".into()).unwrap().blocking);
}

#[test]
fn a_cache_is_promoted_on_a_standing_word() {
    let word = "redis_fencing = \"none\"\nredis_fencing_none_asserted_by = \"Linh, 2026-11-01\"";
    let text = moved(&[("hold_down_ms = 3000", &format!("hold_down_ms = 3000\n{word}"))]);
    let failover = steps(&text, "failover").join(" ");
    assert!(failover.contains("2 promote 3 redis-promote 4 services"), "{failover}");
    let (_, report) = judge(text.as_bytes());
    assert!(render(&report, "test").contains("on the word of Linh"), "{}", render(&report, "test"));
}

#[test]
fn each_fault_of_moving_it_is_told_by_its_key() {
    let hold_down = "hold_down_ms = 3000";
    for (old, new, path, phrase) in [
        ("redis_host = \"db-hanoi\"", "redis_host = \"db-hue\"", "group[g].region[hanoi].redis_host", "db-hue"),
        (
            "redis_host = \"db-hanoi\"",
            "redis_host = \"db-hcmc\"",
            "group[g].region[hanoi].redis_host",
            "stands in hcmc",
        ),
        ("\nredis_host = \"db-hanoi\"", "", "group[g].region[hanoi]", "no redis_host"),
        (hold_down, "redis_fencing = \"lease\"", "group[g].redis_fencing", "choose \"confirm\" or \"none\""),
        (hold_down, "redis_fencing = \"none\"", "group[g].redis_fencing", "needs a person's word"),
        (
            hold_down,
            "redis_fencing_none_asserted_by = \"Linh\"",
            "group[g].redis_fencing_none_asserted_by",
            "means nothing without",
        ),
    ] {
        let (config, report) = judge(moved(&[(old, new)]).as_bytes());
        let found = report.errors.iter().any(|fault| fault.path == path && fault.to_string().contains(phrase));
        assert!(config.is_none() && found, "wanted {path}: …{phrase}…\n{}", render(&report, "test"));
    }
    let (config, report) = judge(with_redis(&[(hold_down, "redis_fencing = \"confirm\"")]).as_bytes());
    assert!(config.is_none() && render(&report, "test").contains("no region has a redis_host"));
}
