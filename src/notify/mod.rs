//! Telling: takes pages from the replicated outbox to their receivers.
