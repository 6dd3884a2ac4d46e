//! The bound on memory, in a process of its own.
#![allow(unsafe_code, reason = "memory is mapped as a library in C does it")]

use std::hint::black_box;

use modelway_base::memory::{Allocator, bound};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const MIB: usize = 1 << 20;

/// Whether a library gets so many bytes. They are never given back.
fn maps(bytes: usize) -> bool {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: the kernel chooses the place, and nobody uses it.
    unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) }.is_ok()
}

#[test]
fn beyond_what_libraries_may_have_rust_code_still_gets_memory() {
    assert!(maps(8 * MIB));
    bound(1 << 30);
    let pieces = (0..1024).take_while(|_| maps(8 * MIB)).count();
    assert!((1..1024 / 8).contains(&pieces), "{pieces} pieces");
    let data = black_box(vec![1u8; 16 * MIB]);
    let zeros = black_box(vec![0u8; 8 * MIB]);
    let mut grown: Vec<u8> = Vec::with_capacity(MIB);
    grown.reserve_exact(9 * MIB);
    assert_eq!((data.len(), zeros.len()), (16 * MIB, 8 * MIB));
    assert!(!maps(8 * MIB), "a library still gets nothing");
    assert!(Vec::<u8>::new().try_reserve_exact(256 * MIB).is_err(), "the bound holds for Rust code too");
}
