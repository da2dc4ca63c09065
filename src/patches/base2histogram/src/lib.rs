//! What openraft 0.10 uses of `base2histogram` 0.2.3, written anew from its interface: the published crate builds some
//! 26 MB of lookup tables at first use, for widths that nobody asks for. Here a bucket's number is computed.
//!
//! Buckets are logarithmic with two bits below the leading one: exact up to 7, within a quarter of the value above.
//!
//! ```
//! let mut sizes = base2histogram::Histogram::<()>::new();
//! (1..=100).for_each(|size| sizes.record(size));
//! let seen = sizes.percentile_stats();
//! assert_eq!(seen.samples, 100);
//! assert!((40..=60).contains(&seen.p50));
//! ```

use std::fmt;
use std::marker::PhantomData;

/// Bits kept below the leading one.
const FINE_BITS: u32 = 2;
/// Buckets to a power of two; values below it have a bucket each.
const FINE: u64 = 1 << FINE_BITS;

/// Counts values in logarithmic buckets over all of `u64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Up to the highest bucket ever counted in, so that equal counts are equal.
    counts: Vec<u64>,
    data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty one; it takes memory with the first value.
    pub const fn new() -> Self {
        Self { counts: Vec::new(), data: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket_of(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// About the value below which the fraction `p` of all lies; 0 where nothing was counted.
    pub fn percentile(&self, p: f64) -> u64 {
        let mut left = ((self.total() as f64 * p).ceil() as u64).max(1);
        for (bucket, count) in self.counts.iter().enumerate() {
            if left <= *count {
                let (least, width) = span_of(bucket);
                // Values are taken to lie evenly in their bucket.
                return least + (u128::from(width) * u128::from(left - 1) / u128::from(*count)) as u64;
            }
            left -= count;
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn bucket_of(value: u64) -> usize {
    if value < FINE {
        return value as usize;
    }
    let power = value.ilog2() - FINE_BITS;
    // The leading one counts as the group's number: FINE + power * FINE + the two bits below it, less FINE.
    (u64::from(power) * FINE + (value >> power)) as usize
}

/// A bucket's least value, and how many values it takes.
fn span_of(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < FINE {
        return (bucket, 1);
    }
    let power = bucket / FINE - 1;
    ((FINE + bucket % FINE) << power, 1 << power)
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "samples {samples}: 0.1% {p0_1}, 1% {p1}, 5% {p5}, 10% {p10}, 50% {p50}, 90% {p90}, 99% {p99}, 99.9% {p99_9}"
        )
    }
}

/// Named histograms, shown a line each.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self { series: Vec::new() }
    }
}

impl<T> AsciiChart<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// What is to be printed.
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.series.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every edge there is: around each power of two and each quarter of it.
    fn edges() -> impl Iterator<Item = u64> {
        let around = |edge: u64| [edge.saturating_sub(1), edge, edge.saturating_add(1)];
        (0..64).flat_map(move |bit| (0..4).flat_map(move |part| around((1u64 << bit) + (1u64 << bit) / 4 * part)))
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in edges().chain([0, u64::MAX]) {
            let (least, width) = span_of(bucket_of(value));
            assert!(least <= value && value - least < width, "{value} in {least} + {width}");
            assert!(width <= (value / 4).max(1), "{value} in {width} values");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let last = bucket_of(u64::MAX);
        assert_eq!(last, 251);
        for bucket in 0..last {
            let (least, width) = span_of(bucket);
            assert_eq!(least + width, span_of(bucket + 1).0, "after bucket {bucket}");
        }
    }

    #[test]
    fn nothing_counted_is_nothing_allocated() {
        let empty = Histogram::<()>::new();
        assert_eq!((empty.counts.capacity(), empty.total(), empty.percentile(0.5)), (0, 0, 0));
    }

    #[test]
    fn percentiles_are_within_a_quarter() {
        let mut seen = Histogram::<()>::new();
        (1..=10_000).for_each(|value| seen.record(value));
        assert_eq!(seen.total(), 10_000);
        for (p, exact) in [(0.001, 10.0), (0.01, 100.0), (0.5, 5000.0), (0.9, 9000.0), (0.999, 9990.0)] {
            let found = seen.percentile(p) as f64;
            assert!((found - exact).abs() <= exact / 4.0, "{p}: {found}, not about {exact}");
        }
    }

    #[test]
    fn the_whole_range_can_be_counted() {
        let mut seen = Histogram::<()>::new();
        edges().chain([u64::MAX; 3]).for_each(|value| seen.record(value));
        let PercentileStats { p0_1, p50, p99_9, .. } = seen.percentile_stats();
        assert!(p0_1 <= p50 && p50 <= p99_9);
    }

    #[test]
    fn equal_counts_are_equal() {
        let (mut one, mut other) = (Histogram::<()>::new(), Histogram::<()>::new());
        [5, 70].iter().for_each(|value| one.record(*value));
        assert_ne!(one, other);
        [(70, 1), (5, 1), (9000, 0)].iter().for_each(|(value, count)| other.record_n(*value, *count));
        assert_eq!(one, other);
        assert_eq!(AsciiChart::new().add("a", one).detailed().to_string().lines().count(), 1);
    }
}
