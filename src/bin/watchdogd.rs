//! A node of the failover watchdog.

fn main() {}
