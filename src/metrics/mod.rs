//! What a node tells Prometheus: [`families`] names every gauge, [`events`] counts what happens, [`process`] asks the kernel,
//! and a [`Sheet`] is one scrape of it all.

pub mod events;
pub mod families;
pub mod process;
mod sheet;

pub use sheet::{CONTENT_TYPE, Sheet};

/// The names of all families, counted ones too: what rules and dashboards may name.
pub fn names() -> Vec<String> {
    families::GAUGES.iter().map(|family| family.name.to_owned()).chain(events::names()).collect()
}
