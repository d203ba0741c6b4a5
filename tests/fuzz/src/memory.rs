//! The allocator that counts: how much a thread holds more than when its execution began.

#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that are held since `begin`, and how many may be; 0: nobody counts.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static LIMIT: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts from now on; more than `limit` bytes held end the process.
pub fn begin(limit: usize) {
    HELD.set(0);
    PEAK.set(0);
    LIMIT.set(isize::try_from(limit).unwrap_or(isize::MAX));
}

/// Stops counting; the most that was held.
pub fn end() -> usize {
    LIMIT.set(0);
    PEAK.get().unsigned_abs()
}

fn count(bytes: isize) {
    // A thread that is going away has no counters any more.
    let Ok(limit) = LIMIT.try_with(Cell::get) else {
        return;
    };
    if limit == 0 {
        return;
    }
    let held = HELD.get().saturating_add(bytes);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
    if held > limit {
        // An allocator may not unwind.
        LIMIT.set(0);
        crate::watch::end(&format!(
            "holds {held} bytes, more than {limit}, which is out of proportion"
        ));
    }
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
