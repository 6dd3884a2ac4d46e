//! A limit on the memory that this process allocates. A part of it is reserved for Rust code.
//!
//! Libraries in other languages handle a failed allocation by giving up their operation. Rust code aborts the process.
//! So the kernel's limit is a little below the full limit, and [`Allocator`] retries a failed allocation with the full
//! limit.
#![allow(unsafe_code, reason = "an allocator has no safe form; it hands everything to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The part of the limit that is reserved for Rust code, as a divisor.
const KEPT: u64 = 20;

/// The limit; 0 if there is none.
static BOUND: AtomicU64 = AtomicU64::new(0);
/// Held while the limit of the kernel is changed.
static CHANGING: Mutex<()> = Mutex::new(());

/// Limits the allocations of this process to this many bytes (`RLIMIT_DATA`), of which a twentieth is reserved for Rust
/// code. May be called again. If the kernel refuses, nothing changes.
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

/// The system allocator, which can also use the part of the limit that is reserved for Rust code.
#[derive(Debug)]
pub struct Allocator;

/// Retries an allocation with the full limit.
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

// SAFETY: every call goes to the system allocator, with the guarantees of our caller; a second call follows only if the
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
