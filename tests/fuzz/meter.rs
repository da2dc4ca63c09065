//! What one case costs and breaks on its own thread: the memory it held at its highest, and the panics that somebody caught.

#![allow(unsafe_code, reason = "an allocator is unsafe by its signature; this one only counts and hands on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static HIGHEST: Cell<isize> = const { Cell::new(0) };
    static IN_CASE: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize, sign: isize) {
    // A thread that is ending has no counters any more, and nothing to measure.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + sign * isize::try_from(bytes).unwrap_or(isize::MAX));
        let _ = HIGHEST.try_with(|highest| highest.set(highest.get().max(live.get())));
    });
}

// Safety: every call is handed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Counts panics by thread. Those of a case are kept instead of printed: they are found again in its verdict.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_CASE.get() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// What running something cost.
pub struct Cost {
    /// Bytes held at the highest, above what was held before.
    pub bytes: usize,
    /// Panics, whoever caught them.
    pub panics: Vec<String>,
}

/// Runs it on this thread, counting. A panic that nobody caught goes on.
pub fn measured<T>(run: impl FnOnce() -> T) -> (T, Cost) {
    let before = LIVE.get();
    HIGHEST.set(before);
    PANICS.take();
    IN_CASE.set(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(run));
    IN_CASE.set(false);
    let bytes = usize::try_from(HIGHEST.get() - before).unwrap_or(0);
    let panics = PANICS.take();
    match result {
        Ok(result) => (result, Cost { bytes, panics }),
        // Its words were kept, not printed.
        Err(_) => panic!("{}", panics.join("; ")),
    }
}
