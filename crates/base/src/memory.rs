//! A bound on the memory that this process allocates, and a part of it that only Rust code gets.
//!
//! Libraries in other languages see a failed allocation and give up what they were doing. Rust code aborts the process.
//! So the kernel's limit stands a little below the bound. What fails there is tried again by [`Allocator`] up to the bound.
#![allow(unsafe_code, reason = "an allocator has no safe form; it hands everything to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The part of the bound that is kept for Rust code, as a divisor.
const KEPT: u64 = 20;

/// The bound; 0 while there is none.
static BOUND: AtomicU64 = AtomicU64::new(0);
/// Held while the kernel's limit is changed.
static CHANGING: Mutex<()> = Mutex::new(());

/// Lets this process allocate at most so many bytes (`RLIMIT_DATA`), of which a twentieth is for Rust code alone. May be
/// called again. Where the kernel refuses, nothing changes.
pub fn bound(most: u64) {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    if limit(most - most / KEPT) {
        BOUND.store(most, Ordering::Relaxed);
    }
}

fn limit(bytes: u64) -> bool {
    let maximum = getrlimit(Resource::Data).maximum;
    let current = maximum.map_or(bytes, |maximum| maximum.min(bytes));
    setrlimit(Resource::Data, Rlimit { current: Some(current), maximum }).is_ok()
}

/// The system's allocator, which also gives out the part of the bound that is kept for Rust code.
#[derive(Debug)]
pub struct Allocator;

/// Allocates again, with the whole bound.
#[cold]
fn again(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    if BOUND.load(Ordering::Relaxed) == 0 {
        return std::ptr::null_mut();
    }
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let most = BOUND.load(Ordering::Relaxed);
    limit(most);
    let made = allocate();
    limit(most - most / KEPT);
    made
}

// SAFETY: every call is the system's allocator's, with the caller's own promises; a second call follows only where the
// first one allocated nothing.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let allocate = || unsafe { System.alloc(layout) };
        let made = allocate();
        if made.is_null() { again(allocate) } else { made }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let allocate = || unsafe { System.alloc_zeroed(layout) };
        let made = allocate();
        if made.is_null() { again(allocate) } else { made }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let allocate = || unsafe { System.realloc(at, layout, size) };
        let made = allocate();
        if made.is_null() { again(allocate) } else { made }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}
