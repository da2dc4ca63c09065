//! The admin service over gRPC: status, pause, resume, failover, runs. Any node answers; writes reach the leader.
