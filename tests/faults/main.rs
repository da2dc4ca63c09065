//! Faults on real processes: the built programs on the lab's parts, with one of them killed, frozen, cut off, starved or
//! lied to at a chosen moment; and then the ledgers, the zone, the databases, the pages and the run's own story are read.

#[path = "../lab/mod.rs"]
mod lab;

mod clocks;
mod disks;
mod one_way;
mod purged;
mod random;
mod resident;
mod rolling;
mod route53;
mod ssh_stalls;
mod strike;
mod struck;
mod table;
mod upheld;

use lab::{calm, scene};
