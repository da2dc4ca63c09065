//! The resource side, on each host that is acted upon.

fn main() {}
