//! Every family of metrics there is: its name, what it says, its labels. Names follow the field's conventions (base units,
//! `_total` for counters, `_info` for constants: <https://prometheus.io/docs/practices/naming/>).
//!
//! Label values are bounded by the configuration and by this program's own words: nothing a caller or a target sends
//! becomes one.

/// One family of gauges, filled anew at each scrape.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// The labels' names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident = $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            $(#[$doc])*
            #[doc = $help]
            pub const $id: Family = Family { name: $name, help: $help, labels: &[$($label),*] };
        )+
        /// All gauges.
        pub const GAUGES: &[&Family] = &[$(&$id),+];
    };
}

families! {
    BUILD_INFO = "watchdog_build_info" ["version"]
        "Always 1; the program's version.";
    NODE_INFO = "watchdog_node_info" ["cluster", "node", "region"]
        "Always 1; who this node is.";
    CONFIG_IN_FORCE = "watchdog_config_in_force" []
        "1 where this node runs under the configuration in force; where not, it observes and votes but never acts.";
    CERTIFICATE_EXPIRY = "watchdog_certificate_expiry_timestamp_seconds" []
        "When this node's certificate expires, unix time.";

    RAFT_TERM = "watchdog_raft_term" []
        "Raft's term.";
    RAFT_IS_LEADER = "watchdog_raft_is_leader" []
        "1 where this node leads with a majority in contact.";
    RAFT_HAS_QUORUM = "watchdog_raft_has_quorum" []
        "1 where this node is in contact with a majority, directly or through its leader.";
    RAFT_QUORUM_AGE = "watchdog_raft_quorum_age_seconds" []
        "How long ago a majority last answered the leader, as far as this node knows; absent where none ever did.";
    RAFT_VOTERS = "watchdog_raft_voters" []
        "Voters of the membership in force.";
    RAFT_LAST_LOG_INDEX = "watchdog_raft_last_log_index" []
        "Newest entry in this node's log.";
    RAFT_COMMIT_INDEX = "watchdog_raft_commit_index" []
        "Newest entry that this node knows to be committed.";
    RAFT_APPLIED_INDEX = "watchdog_raft_applied_index" []
        "Newest entry applied to the replicated state here.";

    PEER_UP = "watchdog_peer_up" ["peer"]
        "1 where that node answers this one's pings.";
    REFERENCE_UP = "watchdog_reference_up" ["reference"]
        "1 where the reference, which has nothing to do with any group, answers from here.";
    TARGET_VERDICT = "watchdog_target_verdict" ["group", "target", "region", "verdict"]
        "1 for this node's present verdict of the target (up, suspect or down), 0 for the others.";
    TARGET_VERDICT_SINCE = "watchdog_target_verdict_age_seconds" ["group", "target", "region"]
        "How long this node's verdict has been so.";
    TARGET_VOTES = "watchdog_target_votes" ["group", "target", "region", "verdict"]
        "Leader only: voters whose verdict of the target is so and counts.";
    REPLICATION_LAG = "pg_replication_lag_seconds" ["group", "region", "target"]
        "Age of the newest WAL position of the primary that the standby in the region is known to have received: what promoting now could lose. Stays small on an idle primary.";
    REPLICATION_LAG_BYTES = "pg_replication_lag_bytes" ["group", "region", "target"]
        "WAL of the primary that the standby in the region has not received.";
    REPLICATION_REPLAY_AGE = "pg_replication_replay_age_seconds" ["group", "region", "target"]
        "Age of the last replayed commit by the standby's clock. Grows on an idle primary: for people, not for alerts.";
    REPLICATION_STREAMING = "pg_replication_is_streaming" ["group", "region", "target"]
        "1 where the standby's receiver is connected and streaming.";

    REDIS_IS_PRIMARY = "redis_is_primary" ["group", "region", "target"]
        "1 where the Redis server in the region takes writes, 0 where it is a replica.";
    REDIS_REPLICATION_LINKED = "redis_replication_is_linked" ["group", "region", "target"]
        "1 where the Redis replica in the region is connected to its primary and in step; absent where it is a primary.";
    REDIS_REPLICATION_LAG_BYTES = "redis_replication_lag_bytes" ["group", "region", "target"]
        "What the Redis replica in the region has not received of what its primary is known to have written; absent where the two share no history.";
    REDIS_REPLICATION_LAST_IO_AGE = "redis_replication_last_io_age_seconds" ["group", "region", "target"]
        "How long ago the Redis replica in the region last heard of its primary, which speaks every ten seconds at least.";

    BACKUP_LAST_SUCCESS = "backup_last_success_timestamp" ["group", "region", "target"]
        "When the newest good backup was finished, unix time; absent where there is none, or nothing is known.";
    BACKUP_MAX_AGE = "backup_max_age_seconds" ["group", "region", "target"]
        "Older than this the newest good backup is late, by the configuration.";
    BACKUP_KNOWN = "backup_is_known" ["group", "region", "target"]
        "1 where this node could read at its last look what there is of backups.";
    BACKUP_OK = "backup_is_ok" ["group", "region", "target"]
        "1 where the backup tool had no complaint when it was last read; absent before.";
    BACKUP_DURATION = "backup_last_duration_seconds" ["group", "region", "target"]
        "How long the newest good backup took, where that is said.";
    BACKUP_SIZE = "backup_last_size_bytes" ["group", "region", "target"]
        "How large the database of the newest good backup is, where that is said.";

    GROUP_INFO = "watchdog_group_info" ["group", "home", "fencing", "mode"]
        "Always 1; home region, fencing mode in force, and automatic, shadow or paused.";
    GROUP_SERVING = "watchdog_group_serving" ["group", "region"]
        "1 for the region that may accept writes, 0 for the others; 0 everywhere while nobody may.";
    GROUP_SERVING_EPOCH = "watchdog_group_serving_epoch" ["group"]
        "Counts changes of the serving region.";
    GROUP_TRAFFIC = "watchdog_group_traffic" ["group", "region"]
        "1 for the region whose load balancer takes the traffic.";
    GROUP_PAUSED = "watchdog_group_paused" ["group"]
        "1 while paused: nothing automatic starts.";
    GROUP_BLOCKED = "watchdog_group_failover_blocked" ["group"]
        "Leader only: 1 where a failover is due and does not start.";
    GROUP_TOKEN_EPOCH = "watchdog_group_token_epoch" ["group"]
        "The cluster epoch of the last fencing token issued.";
    GROUP_TOKEN = "watchdog_group_token_number" ["group"]
        "The number of the last fencing token issued within its epoch.";
    GROUP_UNSETTLED = "watchdog_group_unsettled_resources" ["group"]
        "Resources where an aborted or skipped step may still take effect.";
    GROUP_RTO = "watchdog_group_rto_objective_seconds" ["group"]
        "The recovery-time objective.";
    GROUP_RPO = "watchdog_group_rpo_limit_seconds" ["group"]
        "What an automatic promotion may lose at most.";
    EXPECTED_LOSS = "watchdog_group_expected_loss_seconds" ["group", "region"]
        "Leader only: what promoting in the region now could lose; absent where that is not known.";

    RUN_OPEN = "watchdog_run_open" ["group", "kind"]
        "1 while a run of that kind is open.";
    RUN_STUCK = "watchdog_run_stuck" ["group"]
        "1 while the open run waits for an operator.";
    RUN_OPEN_SINCE = "watchdog_run_opened_timestamp_seconds" ["group"]
        "When the open run was opened, unix time.";
    RUN_STEPS = "watchdog_run_steps" ["group", "phase"]
        "The open run's steps by phase.";
    LAST_RUN_CLOSED = "watchdog_last_run_closed_timestamp_seconds" ["group", "kind", "outcome"]
        "When the last run of that kind and outcome closed, unix time; of the runs that are kept, drills left out.";
    LAST_RECOVERY = "watchdog_last_recovery_time_seconds" ["group", "kind"]
        "From the first failure seen (else the opening) to the end of the last run of that kind that succeeded, drills left out.";

    DRILL_LAST_SUCCESS = "watchdog_drill_last_success_timestamp_seconds" ["group"]
        "When the last drill that did something (simulated or live) and passed ended, unix time; 0 where none of those remembered did. Only of groups that have such drills planned, or had one.";
    DRILL_LAST_RECOVERY = "watchdog_drill_last_recovery_time_seconds" ["group", "kind"]
        "Recovery time of the last drill of that kind that measured one.";
    DRILLS = "watchdog_drills" ["group", "kind", "outcome"]
        "Drills among those remembered, by kind and how they ended.";

    DRILL_MONTH = "watchdog_drill_month_drills" ["group", "month", "outcome"]
        "Drills of the current and the previous month by how they ended: passed, failed, aborted; or skipped.";
    DRILL_MONTH_SUCCESS = "watchdog_drill_month_success_ratio" ["group", "month"]
        "Of the month's drills that came to an end by themselves, the part that passed; absent where none did.";
    DRILL_MONTH_RECOVERY = "watchdog_drill_month_recovery_time_seconds" ["group", "month", "stat"]
        "Recovery times that the month's drills measured: mean and worst; absent where none was measured.";
    DRILL_MONTH_RTO_MET = "watchdog_drill_month_recovery_objective_met_ratio" ["group", "month"]
        "Of the recovery times that the month's drills measured, the part within the objective.";
    DRILL_MONTH_NO_LOSS = "watchdog_drill_month_without_loss_ratio" ["group", "month"]
        "Of the month's drills that measured what is lost, the part that lost nothing.";
    DRILL_MONTH_ROWS_LOST = "watchdog_drill_month_rows_lost" ["group", "month"]
        "Acknowledged marker rows that were gone after a drill, at worst in the month.";
    DRILL_MONTH_BYTES_LOST = "watchdog_drill_month_lost_bytes" ["group", "month"]
        "Acknowledged log that was gone after a drill, at worst in the month.";
    DRILL_RTO = "watchdog_drill_rto_objective_seconds" ["group"]
        "The recovery-time objective that the last drill was held against.";
    DRILL_RPO = "watchdog_drill_rpo_objective_seconds" ["group"]
        "The data-loss objective that the last drill was held against, as time of writes.";

    LEASE_BOUND = "watchdog_lease_bound" ["group"]
        "Mode lease: 1 while the serving primary's silence would be a fence proof.";
    LEASE_TTL = "watchdog_lease_ttl_seconds" ["group"]
        "Mode lease: how long one renewal lasts.";
    LEASE_GRANT_AGE = "watchdog_lease_grant_age_seconds" ["group"]
        "Leader only, mode lease: how long ago the last granted request arrived.";
    LEASE_HOLDERS = "watchdog_lease_holders" ["group"]
        "Mode lease: standby guards whose promotion hold renews it too.";

    READINESS = "watchdog_group_readiness" ["group", "verdict"]
        "1 for what the leaders last judged would become of the group if its serving region vanished (yes, weak, no or unknown), 0 for the others.";
    READINESS_SINCE = "watchdog_group_readiness_since_timestamp_seconds" ["group"]
        "Since when the group's readiness is what it is, unix time.";
    INCIDENTS = "watchdog_incidents_open" ["severity", "acknowledged"]
        "Incidents that are not over, by severity and whether somebody has them.";
    OLDEST_INCIDENT = "watchdog_oldest_unacknowledged_incident_age_seconds" ["severity"]
        "How long the oldest incident that nobody has is open.";
    AUDIT_SEQ = "watchdog_audit_newest_seq" []
        "The number of the newest entry of the audit.";

    ALARMS = "watchdog_alarms_active" ["event"]
        "Conditions that were paged and are not over.";
    OUTBOX_PENDING = "watchdog_outbox_pages_pending" ["receiver"]
        "Pages that the receiver has not taken yet.";
    OUTBOX_OLDEST = "watchdog_outbox_oldest_pending_age_seconds" ["receiver"]
        "Age of the oldest page that the receiver has not taken yet; 0 where there is none.";
    OUTBOX_REFUSED = "watchdog_outbox_pages_refused" ["receiver"]
        "Pages among those kept that the receiver will never take.";

    HEARTBEAT_LAST = "watchdog_heartbeat_last_success_timestamp_seconds" []
        "When the outside receiver last took a heartbeat of this node, unix time; absent where it never did.";
    HEARTBEAT_INTERVAL = "watchdog_heartbeat_interval_seconds" []
        "Seconds between two heartbeats of the leader; absent where none are configured.";

    PROCESS_CPU = "process_cpu_seconds_total" []
        "User and system time of this process.";
    PROCESS_RESIDENT = "process_resident_memory_bytes" []
        "Resident memory of this process.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes" []
        "Virtual memory of this process.";
    PROCESS_FDS = "process_open_fds" []
        "Open file descriptors of this process.";
    PROCESS_MAX_FDS = "process_max_fds" []
        "How many it may open.";
    PROCESS_THREADS = "process_threads" []
        "Threads of this process.";
    PROCESS_START = "process_start_time_seconds" []
        "When this process started, unix time.";
}
