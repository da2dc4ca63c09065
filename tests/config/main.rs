//! The configuration: every sample loads and its plans are as written down; every kind of fault is told precisely.

mod certificates;
mod drills;
mod faults;
mod judging;
mod layouts;
mod on_call;
mod redis;
mod samples;
mod text_of_plans;
mod units;
