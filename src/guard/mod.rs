//! The resource side: the program on each host that is acted upon. [`protocol`] is what it is asked and what it answers.

pub mod protocol;
