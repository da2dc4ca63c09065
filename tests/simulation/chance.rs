//! Chance from one seed: what the schedule draws, and what the libraries under the nodes draw.

use std::cell::Cell;

/// A stream of numbers (SplitMix64). Two streams of different names under one seed have nothing to do with each other.
#[derive(Debug, Clone)]
pub struct Chance(u64);

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    pub fn new(seed: u64, name: &str) -> Self {
        let named = name.bytes().fold(seed, |state, byte| mix(state.wrapping_add(u64::from(byte)).wrapping_add(1)));
        Self(mix(named))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Both ends included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        &from[at]
    }
}

thread_local! {
    static ENTROPY: Cell<u64> = const { Cell::new(0x5eed) };
}

/// From here on this thread's "randomness of the system" follows from the seed.
pub fn seed_the_system(seed: u64) {
    ENTROPY.set(mix(seed.wrapping_add(0x0005_7514)));
}

/// Stands in for the C library's function of this name in this test program: the standard library's hash maps, `rand`
/// (so openraft's election time-outs and our jitter) and tokio's own choices (which of two ready branches, in which order
/// waiters wake) all begin with what it gives. That makes a schedule repeatable without a word about it in the product.
#[expect(
    unsafe_code,
    reason = "a function of the C library can only be replaced by an unmangled one over a raw buffer"
)]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: whoever calls it gives a buffer of that length, as for the function it stands in for.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let mut state = ENTROPY.get();
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
    }
    ENTROPY.set(state);
    isize::try_from(length).unwrap_or(isize::MAX)
}
