//! The configuration: every sample loads and its plans are as written down; every kind of fault is told precisely.

mod samples;
