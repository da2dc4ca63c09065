//! One node, put together: stores, Raft, probes, coordinator, API; started in order and stopped in reverse.
