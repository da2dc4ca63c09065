//! Cross-region failover by a Raft quorum of watchdogs. The map, in reading order:
//!
//! * [`domain`]: what decides, pure.
//! * [`config`]: the file, as typed and as validated.
//! * [`calendar`]: when something is due.
//! * [`consensus`]: the replicated log and state.
//! * [`probe`]: seeing. [`actuator`]: acting. [`notify`]: telling.
//! * [`resolve`]: asking one name server one question, for those who see and those who act. [`redis`]: one Redis server.
//! * [`metrics`]: what a node tells Prometheus.
//! * [`guard`]: the program on each host that is acted upon.
//! * [`coordinator`]: the leader's loop: decide, commit, act, read back, commit.
//! * [`drill`]: rehearsals that are due, begun and carried through.
//! * [`proto`]: the wire. [`api`]: the admin service. [`cli`]: what `watchdogctl` prints.
//! * [`tls`]: certificates, and the connections they prove.
//! * [`systemd`]: what the service manager is told.
//! * [`server`]: one node, put together.

pub mod actuator;
pub mod api;
pub mod calendar;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod coordinator;
pub mod domain;
pub mod drill;
pub mod guard;
pub mod metrics;
pub mod notify;
pub mod probe;
pub mod proto;
pub mod redis;
pub mod resolve;
pub mod server;
pub mod systemd;
pub mod tls;
