//! Seeing: probes, their windows, and the report a node pushes to the leader.
