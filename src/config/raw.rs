//! The file as typed: one struct a table, unknown keys refused, units in the names. Nothing is judged here.
//!
//! Every field may be absent, so that what is missing is told together with everything else that is wrong.

use std::collections::BTreeMap;

use serde::Deserialize;

mod whole;

pub use whole::{RawConfig, RawGroupTables};

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: Option<$kind>,)+ }
    )+};
}

tables! {
    /// `[cluster]`
    RawCluster {
        /// Identity in every remote call and guard request.
        name: String,
        /// Raised when a cluster is rebuilt.
        epoch: u64,
        /// Regions whose loss nobody will answer automatically, knowingly.
        accept_no_automatic_failover_from: Vec<String>,
    }

    /// `[tls]`
    RawTls {
        /// PEM file of the cluster's certificate authority.
        ca: String,
        /// PEM file of the node's certificate.
        certificate: String,
        /// PEM file of its private key.
        key: String,
        /// Instead of all that: `loopback`.
        plaintext: String,
    }

    /// `[[role]]`
    RawRole {
        /// A certificate's URI, or `CN=NAME`.
        identity: String,
        /// `viewer`, `operator`, `admin`, `node` or `guard`.
        role: String,
        /// node, guard: which node, or whose host.
        name: String,
    }

    /// `[timing]`
    RawTiming {
        /// Between two heartbeats of the leader.
        heartbeat_ms: u64,
        /// Shortest wait for a lost leader.
        election_min_ms: u64,
        /// Longest.
        election_max_ms: u64,
        /// Between two reports to the leader when nothing changes.
        report_interval_ms: u64,
        /// For one snapshot to arrive.
        install_snapshot_timeout_ms: u64,
        /// Between two judgements of a group's readiness.
        readiness_interval_s: u64,
    }

    /// `[audit]`
    RawAudit {
        /// Months of audit files that ended longer ago are deleted.
        retention_days: u32,
    }

    /// `[heartbeat]`
    RawHeartbeat {
        /// Where to.
        url: String,
        /// Instead: file whose first line is the address, where that is a secret.
        url_file: String,
        /// `post` or `get`.
        method: String,
        /// Between two beats.
        interval_s: u64,
        /// File with a bearer token.
        token_file: String,
    }

    /// `[traces]`
    RawTraces {
        /// Of the collector, without `/v1/traces`.
        endpoint: String,
        /// File with a bearer token.
        token_file: String,
    }

    /// `[probe_defaults]`
    RawProbe {
        /// Between two probes.
        interval_ms: u64,
        /// Between two probes while in doubt.
        fastinter_ms: u64,
        /// A probe that takes longer has failed.
        timeout_ms: u64,
        /// So many failures in a row: down.
        fall: u32,
        /// So many successes in a row: up.
        rise: u32,
    }

    /// `[[region]]`
    RawRegion {
        /// Name.
        name: String,
        /// Voter and observer only.
        witness: bool,
    }

    /// `[[node]]`
    RawNode {
        /// Number in Raft, never reused.
        id: u64,
        /// Name.
        name: String,
        /// Where it stands.
        region: String,
        /// What it binds for gRPC.
        listen: String,
        /// What peers dial.
        address: String,
        /// What it binds for metrics and liveness.
        http: String,
        /// What it binds for its status page.
        page: String,
        /// Where it keeps its log and state.
        data_dir: String,
        /// Where it keeps its audit files.
        audit_dir: String,
    }

    /// `[[receiver]]`
    RawReceiver {
        /// Name.
        name: String,
        /// `pagerduty`, `alertmanager` or `webhook`.
        kind: String,
        /// Of PagerDuty's Events API, or of the Alertmanager.
        base_url: String,
        /// File with the Alertmanager's bearer token.
        token_file: String,
        /// File with the integration's key.
        routing_key_file: String,
        /// Of the webhook.
        url: String,
        /// Instead: file whose first line is the address, where that is a secret.
        url_file: String,
        /// The webhook's body: `telegram`, `slack`, or JSON with placeholders.
        template: String,
        /// Telegram's chat.
        chat_id: String,
        /// File with the webhook's HMAC secret.
        secret_file: String,
    }

    /// `[[contact]]`
    RawContact {
        /// Name.
        name: String,
        /// `dr-coordinator`, `database-administrator` … or a word of one's own.
        role: String,
        /// For people.
        phone: String,
        /// For people.
        mail: String,
        /// For people.
        url: String,
        /// The `[[receiver]]`s that reach them.
        receivers: Vec<String>,
    }

    /// `[[escalation]]`
    RawEscalation {
        /// Name.
        name: String,
        /// Whose incidents; left out: all that no other ladder names.
        groups: Vec<String>,
        /// `critical`, `error`, `warning`, `info`; left out: all.
        severities: Vec<String>,
        /// Who is told, one after the other.
        steps: Vec<RawEscalationStep>,
        /// After the last step everybody is told again.
        repeat_every_min: u64,
        /// The same, finer.
        repeat_every_s: u64,
        /// At most so many times.
        repeat_max: u32,
        /// So long an acknowledgement keeps the ladder still; 0: until it is over.
        ack_lasts_min: u64,
        /// The same, finer.
        ack_lasts_s: u64,
    }

    /// `steps = [{ … }]`
    RawEscalationStep {
        /// So long after the incident opened.
        after_min: u64,
        /// The same, finer.
        after_s: u64,
        /// Who is told.
        contacts: Vec<String>,
    }

    /// `[[incident_level]]`
    RawIncidentLevel {
        /// 1 is the worst.
        level: u8,
        /// In a word.
        name: String,
        /// Of this group alone.
        group: String,
        /// `critical`, `error`, `warning` or `info`.
        severity: String,
        /// Objective: it serves again within.
        rto_s: u64,
        /// Objective: at most so much is lost.
        rpo_s: u64,
        /// Which events have it: a name, or its beginning and `*`.
        events: Vec<String>,
    }

    /// `[[host]]`
    RawHost {
        /// Name.
        name: String,
        /// Where it stands.
        region: String,
        /// `address:port` of its SSH server.
        ssh: String,
        /// SSH user.
        user: String,
        /// Its public key.
        host_key: String,
        /// Our private key's file.
        identity_file: String,
    }

    /// `[[dns]]`
    RawDns {
        /// Name.
        name: String,
        /// `rfc2136` or `route53`.
        kind: String,
        /// `address:port` of the primary name server.
        server: String,
        /// The zone's name. Optional for `route53`, where it is used to check names only.
        zone: String,
        /// The TSIG key's name.
        key_name: String,
        /// File with the TSIG key.
        key_file: String,
        /// Route 53's zone id.
        hosted_zone_id: String,
        /// A compatible server instead of AWS.
        endpoint_url: String,
        /// Shared credentials file.
        credentials_file: String,
    }

    /// `[[group]]`, without its sub-tables
    RawGroup {
        /// Name.
        name: String,
        /// Where it serves from when all is well.
        home: String,
        /// `confirm`, `lease` or `none`.
        fencing: String,
        /// Who asserts that two primaries do no harm, and when.
        fencing_none_asserted_by: String,
        /// `confirm` or `none`: whether an old Redis primary is fenced before another is promoted.
        redis_fencing: String,
        /// Who asserts that two Redis primaries do no harm, and when.
        redis_fencing_none_asserted_by: String,
        /// Mode `lease`: how long one renewal lasts.
        lease_ttl_ms: u64,
        /// Decide, record and page only.
        shadow: bool,
        /// How long a trigger must last.
        hold_down_ms: u64,
        /// Between two automatic failovers.
        cooldown_s: u64,
        /// Writes that an automatic failover may lose.
        rpo_limit_s: u64,
        /// Shown beside what was reached.
        rto_objective_s: u64,
        /// Readiness is weak when the last drill is older.
        drill_max_age_days: u64,
        /// Replication lag above this is told, or acted upon.
        lag_limit_s: u64,
        /// `page`, `gate` or `failover`.
        lag_action: String,
        /// An older observation is no evidence.
        observation_ttl_ms: u64,
        /// A fence without proof for so long makes the run stuck.
        fence_patience_s: u64,
        /// Everything of it is there for drills: its faults may be simulated.
        drill_resources: bool,
        /// What serves after a move is watched closely for so long; 0: not at all.
        monitor_for_s: u64,
        /// A planned move begins only while the standby lags no more.
        switchover_max_lag_ms: u64,
        /// A planned move that has stopped the writing for so long without promoting turns back.
        switchover_timeout_s: u64,
        /// The TXT record that keeps the token.
        token_record: String,
        /// Kinds of step, side by side within a stage.
        stages: Vec<Vec<String>>,
    }

    /// `trigger = { … }`
    RawTrigger {
        /// Targets of that region.
        targets: Vec<String>,
        /// How many of them.
        need: RawNeed,
    }

    /// `services = [{ … }]`
    RawService {
        /// Whose guard.
        host: String,
        /// The action's name in the guard's configuration.
        action: String,
        /// Its declared parameters.
        params: BTreeMap<String, String>,
    }

    /// `[[group.region]]`
    RawGroupRegion {
        /// Name of a `[[region]]`.
        name: String,
        /// What must be down before this region counts as lost.
        trigger: RawTrigger,
        /// Whose guard fences and promotes.
        database_host: String,
        /// What to start after promotion.
        services: Vec<RawService>,
        /// The target that measures replication into this region.
        replication: String,
        /// The load balancer's target.
        load_balancer: String,
        /// What the other regions' guards call this region's primary: their `[postgres.upstream.NAME]` and `[redis.upstream]`.
        upstream: String,
        /// The target that looks at this region's Redis server.
        redis: String,
        /// Whose guard fences and promotes this region's Redis server.
        redis_host: String,
    }

    /// `[[group.target]]` and `[[reference]]`
    RawTarget {
        /// Name, unique in the file.
        name: String,
        /// Where it stands.
        region: String,
        /// `http`, `tcp`, `postgres`, `replication`, `redis`, `backup` or `dns`.
        kind: String,
        /// Between two probes.
        interval_ms: u64,
        /// Between two probes while in doubt.
        fastinter_ms: u64,
        /// A probe that takes longer has failed.
        timeout_ms: u64,
        /// So many failures in a row: down.
        fall: u32,
        /// So many successes in a row: up.
        rise: u32,
        /// http: what to get.
        url: String,
        /// http: the status wanted.
        expect_status: u16,
        /// http: text that the body must hold.
        body_contains: String,
        /// http: PEM file of the authority to trust.
        ca_file: String,
        /// http: a redirect is followed instead of judged.
        follow_redirects: bool,
        /// tcp, redis: `address:port`.
        address: String,
        /// redis: the user of its access list.
        user: String,
        /// postgres: where.
        conninfo: String,
        /// postgres, replication, redis: file with the password.
        password_file: String,
        /// postgres, replication: PEM file of the authority to trust.
        tls_ca_file: String,
        /// postgres: `primary`, `standby` or `any`; redis: `primary`, `replica` or `any`.
        expect_role: String,
        /// postgres: try a write too.
        canary: bool,
        /// replication: conninfo of the primary; redis: `address:port` of the primary that it is to follow.
        primary: String,
        /// replication: conninfo of the standby.
        standby: String,
        /// backup: instead of `url`, a file on the node's machine.
        file: String,
        /// backup: pgBackRest's stanza; left out: the time of change counts.
        stanza: String,
        /// backup: older is late.
        max_age_h: u64,
        /// backup: which nodes look.
        nodes: Vec<String>,
        /// dns: the name server asked.
        server: String,
        /// dns: the name asked for.
        record_name: String,
        /// dns: `A`, `AAAA` or `CNAME`.
        record_type: String,
    }

    /// `[[group.record]]` and `[[group.traffic_record]]`
    RawRecord {
        /// Which `[[dns]]`.
        dns: String,
        /// Fully qualified.
        name: String,
        /// `A`, `AAAA` or `CNAME`.
        r#type: String,
        /// Time to live.
        ttl_s: u32,
        /// By region.
        values: BTreeMap<String, String>,
    }

    /// `[[group.service]]`
    RawGroupService {
        /// What it is called: the parameter `name` of the guard's action.
        name: String,
        /// Where it runs.
        region: String,
        /// Whose guard acts upon it.
        host: String,
        /// Of `restart`, `scale` and `rollback`.
        actions: Vec<String>,
        /// It is never scaled to more.
        replicas_max: u32,
        /// What must answer afterwards.
        health_url: String,
        /// The status wanted of it.
        expect_status: u16,
    }

    /// `[[group.verify]]`
    RawVerify {
        /// Used when moving to this region.
        region: String,
        /// `http`, `database_writable`, `redis_writable` or `dns_answers`.
        kind: String,
        /// redis_writable: `address:port`.
        address: String,
        /// redis_writable: the user of its access list.
        user: String,
        /// http: what to get.
        url: String,
        /// http: the status wanted.
        expect_status: u16,
        /// http: connect there instead of resolving.
        connect_to: String,
        /// http: resolve at this name server.
        resolve_at: String,
        /// database_writable: where.
        conninfo: String,
        /// database_writable, redis_writable: file with the password.
        password_file: String,
        /// database_writable: PEM file of the authority to trust.
        tls_ca_file: String,
        /// dns_answers: the name server asked.
        server: String,
    }

    /// `[[group.drill]]`
    RawDrill {
        /// Name.
        name: String,
        /// `tabletop`, `simulated` or `live`.
        kind: String,
        /// When.
        cron: String,
        /// Whose hours.
        time_zone: String,
        /// When not.
        blackouts: Vec<RawBlackout>,
        /// Told so long before.
        announce_before_s: u64,
        /// Begun so much later it is skipped.
        late_max_s: u64,
        /// Whose objectives.
        level: u8,
        /// Objective: it serves again within.
        rto_objective_s: u64,
        /// Objective: at most so much is lost.
        rpo_objective_s: u64,
        /// It is brought home after so long.
        limit_s: u64,
        /// Which `[[group.drill_check]]`s; left out: all.
        checks: Vec<String>,
        /// Down, these end it.
        abort_targets: Vec<String>,
        /// Told, these end it.
        abort_events: Vec<String>,
    }

    /// `blackouts = [{ … }]`
    RawBlackout {
        /// First day.
        from: String,
        /// Last day.
        to: String,
    }

    /// `[[group.drill_check]]`
    RawDrillCheck {
        /// Name.
        name: String,
        /// Looked at while this region serves.
        region: String,
        /// `http` or `sql`.
        kind: String,
        /// http: what to get.
        url: String,
        /// http: the status wanted.
        expect_status: u16,
        /// http: connect there instead of resolving.
        connect_to: String,
        /// http: resolve at this name server.
        resolve_at: String,
        /// sql: where.
        conninfo: String,
        /// sql: file with the password.
        password_file: String,
        /// sql: PEM file of the authority to trust.
        tls_ca_file: String,
        /// sql: what is asked.
        query: String,
        /// sql: the answer wanted.
        expect: String,
    }

    /// `[[group.step]]`
    RawStep {
        /// A kind of step, or one step's id.
        id: String,
        /// An attempt never outlives this.
        deadline_s: u64,
        /// The same, finer.
        deadline_ms: u64,
        /// Before the run is stuck.
        max_attempts: u32,
        /// After the first failure; doubles.
        backoff_ms: u64,
        /// At most.
        backoff_max_ms: u64,
        /// The next stage waits for it.
        blocking: bool,
    }
}

/// `need = "all"`, `"any"` or a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum RawNeed {
    /// So many.
    Number(u32),
    /// A word.
    Word(String),
}
