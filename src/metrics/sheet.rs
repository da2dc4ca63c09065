//! One scrape: gauges written down one by one, and printed with what was counted.

use std::collections::BTreeMap;

use prometheus::core::Collector as _;
use prometheus::{CounterVec, GaugeVec, Opts, TextEncoder};

use super::events;
use super::families::Family;

/// The content type of the answer: Prometheus' text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The gauges of one scrape. A family that is given no value is left out: absent says "not known here".
#[derive(Default)]
pub struct Sheet {
    values: BTreeMap<&'static str, Column>,
}

/// A family with the values written down for it.
struct Column {
    family: &'static Family,
    values: Vec<(Vec<String>, f64)>,
}

impl Sheet {
    /// Writes one value down. `labels` are the family's, in its order.
    pub fn set(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        debug_assert_eq!(family.labels.len(), labels.len(), "labels of {}", family.name);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let column = self.values.entry(family.name).or_insert_with(|| Column { family, values: Vec::new() });
        column.values.push((labels, value));
    }

    /// 1 or 0.
    pub fn flag(&mut self, family: &'static Family, labels: &[&str], is: bool) {
        self.set(family, labels, f64::from(u8::from(is)));
    }

    /// A whole number. Beyond 2^53 neighbours look alike, which no value here reaches.
    pub fn count(&mut self, family: &'static Family, labels: &[&str], n: u64) {
        #[expect(clippy::cast_precision_loss, reason = "the text format knows no other numbers")]
        self.set(family, labels, n as f64);
    }

    /// Everything as text.
    ///
    /// # Errors
    /// A value with labels that are not its family's: a fault of this program, in words.
    pub fn text(self) -> Result<String, prometheus::Error> {
        let mut families = Vec::new();
        for Column { family, values } in self.values.into_values() {
            let opts = Opts::new(family.name, family.help);
            if family.name.ends_with("_total") {
                let counter = CounterVec::new(opts, family.labels)?;
                for (labels, value) in &values {
                    counter.get_metric_with_label_values(labels)?.inc_by(value.max(0.0));
                }
                families.extend(counter.collect());
            } else {
                let gauge = GaugeVec::new(opts, family.labels)?;
                for (labels, value) in &values {
                    gauge.get_metric_with_label_values(labels)?.set(*value);
                }
                families.extend(gauge.collect());
            }
        }
        families.extend(events::gather());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        TextEncoder::new().encode_to_string(&families)
    }
}
