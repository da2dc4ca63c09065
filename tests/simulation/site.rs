//! The cluster that is simulated: three sites, one group with a database and services in two of them.

use std::sync::Arc;

use watchdog::config::Config;
use watchdog::domain::ids::{GroupName, RegionName};
use watchdog::domain::policy::ClusterPolicy;

use crate::chance::Chance;

/// The regions that can serve, home first; then the witness.
pub const REGIONS: [&str; 3] = ["hcmc", "hanoi", "witness"];
/// What the public name answers in each.
pub const VALUES: [&str; 2] = ["127.0.0.11", "127.0.0.12"];

const CLUSTER: &str = r#"
[cluster]
name = "model"
epoch = 1
[tls]
plaintext = "loopback"
[[region]]
name = "hcmc"
[[region]]
name = "hanoi"
[[region]]
name = "witness"
witness = true
[[reference]]
name = "outside"
kind = "tcp"
address = "192.0.2.1:53"
"#;

/// What differs from schedule to schedule.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Each node's site, by number of the region.
    pub nodes: Vec<usize>,
    pub hold_down_ms: u64,
    pub cooldown_s: u64,
    pub rpo_limit_s: u64,
    pub is_fencing_none: bool,
    /// Mode `lease`.
    pub lease: Option<LeaseSettings>,
    /// The group has Redis beside its database.
    pub redis: Option<RedisSettings>,
}

#[derive(Debug, Clone, Copy)]
pub struct RedisSettings {
    /// The old server is fenced before another is promoted.
    pub is_fenced: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct LeaseSettings {
    pub ttl_ms: u64,
    /// How much faster each host's clock runs than it should, in parts per million: within what the margin allows.
    pub fast_ppm: [i64; 2],
}

impl LeaseSettings {
    fn draw(chance: &mut Chance) -> Self {
        let rates = [[0, 0], [-150_000, 0], [-150_000, 10_000], [-90_000, 80_000], [80_000, -90_000], [100_000, 0]];
        Self { ttl_ms: *chance.pick(&[1000, 2000, 3000]), fast_ppm: *chance.pick(&rates) }
    }
}

impl Settings {
    pub fn draw(chance: &mut Chance) -> Self {
        let nodes = if chance.percent(25) { vec![0, 0, 1, 1, 2] } else { vec![0, 1, 2] };
        Self {
            nodes,
            hold_down_ms: *chance.pick(&[500, 1000, 3000]),
            cooldown_s: *chance.pick(&[10, 60, 3600]),
            rpo_limit_s: *chance.pick(&[4, 8, 30, 60]),
            is_fencing_none: chance.percent(5),
            lease: chance.percent(50).then(|| LeaseSettings::draw(chance)),
            redis: None,
        }
    }
}

pub fn group() -> GroupName {
    GroupName::from("shop")
}

pub fn region(at: usize) -> RegionName {
    RegionName::from(REGIONS[at])
}

/// The real configuration's policy, with deadlines for short schedules.
pub fn policy(settings: &Settings) -> Arc<ClusterPolicy> {
    let mut text = CLUSTER.to_owned();
    for (id, site) in settings.nodes.iter().enumerate() {
        text.push_str(&format!(
            "[[node]]\nid = {0}\nname = \"node-{0}\"\nregion = \"{1}\"\nlisten = \"127.0.0.1:{2}\"\ndata_dir = \"/nowhere/{0}\"\n",
            id + 1,
            REGIONS[*site],
            7101 + id,
        ));
    }
    for (at, region) in REGIONS[..2].iter().enumerate() {
        text.push_str(&format!(
            "[[host]]\nname = \"db-{region}\"\nregion = \"{region}\"\nssh = \"127.0.0.1:{}\"\nuser = \"watchdog\"\n\
             host_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}\"\nidentity_file = \"/nowhere/id\"\n",
            2201 + at,
            "A".repeat(43),
        ));
    }
    let fencing = if settings.is_fencing_none {
        "fencing = \"none\"\nfencing_none_asserted_by = \"operator:linh\"".to_owned()
    } else if let Some(LeaseSettings { ttl_ms, .. }) = settings.lease {
        format!("fencing = \"lease\"\nlease_ttl_ms = {ttl_ms}")
    } else {
        "fencing = \"confirm\"".to_owned()
    };
    let redis_host = |at: usize| settings.redis.map(|_| format!("redis_host = \"db-{}\"", REGIONS[at]));
    let is_unfenced = settings.redis.is_some_and(|redis| !redis.is_fenced);
    let word = "redis_fencing = \"none\"\nredis_fencing_none_asserted_by = \"operator:linh\"";
    text.push_str(
        &include_str!("group.toml")
            .replace("REDIS_FENCING", if is_unfenced { word } else { "" })
            .replace("REDIS_HERE", &redis_host(0).unwrap_or_default())
            .replace("REDIS_THERE", &redis_host(1).unwrap_or_default())
            .replace("FENCING", &fencing)
            .replace("HOLD_DOWN_MS", &settings.hold_down_ms.to_string())
            .replace("COOLDOWN_S", &settings.cooldown_s.to_string())
            .replace("RPO_LIMIT_S", &settings.rpo_limit_s.to_string()),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("watchdog.toml");
    std::fs::write(&file, text).expect("a file");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    let mut policy = config.policy();
    for rules in policy.groups.values_mut() {
        let plans = rules.failover_plans.iter_mut().chain(&mut rules.switchover_plans);
        let plans = plans.chain(rules.rejoin_plans.iter_mut().map(|known| &mut known.plan));
        let plans = plans.chain(rules.services.iter_mut().flat_map(|service| service.plans.values_mut()));
        let stages = plans.flat_map(|plan| plan.stages.iter_mut().chain(&mut plan.undo));
        for step in stages.flat_map(|stage| &mut stage.steps) {
            step.deadline_ms = step.deadline_ms.min(5000);
            step.retry.backoff_ms = 200;
            step.retry.backoff_max_ms = 1000;
        }
    }
    Arc::new(policy)
}
