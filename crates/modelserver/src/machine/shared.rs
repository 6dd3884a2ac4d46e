//! Memory that the server and one worker share.
//!
//! The server creates an area with its size, and seals it against resizing, so that no worker can take away memory that
//! the server reads. Its content may change at any time while the worker runs: it is always copied first, and then
//! validated.
#![allow(unsafe_code, reason = "memory that another process may write to has no safe form; it is touched only here")]

use std::{
    ffi::c_void,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
};

use half::{bf16, f16};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// A piece of shared memory.
#[derive(Debug)]
pub(crate) struct Area {
    descriptor: OwnedFd,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and threads share one address space.
unsafe impl Send for Area {}

/// Numbers: every pattern of bits is one, and their bytes mean the same to the worker on the same machine.
///
/// # Safety
/// Only for types without padding, for which every pattern of bits is a value.
pub(crate) unsafe trait Number: Copy + Default {}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        // SAFETY: a number without padding, of which every pattern of bits is a value.
        unsafe impl Number for $type {}
    )*};
}

numbers!(u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64);

impl Area {
    /// New memory, all zero, of exactly this many bytes.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let descriptor = memfd_create("modelway", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, len as u64)?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &descriptor, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self { descriptor, start, len })
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the worker maps it by.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Copies numbers to the bytes from `at`. `false`, without copying, if they do not fit.
    #[must_use]
    pub(crate) fn write<N: Number>(&mut self, at: usize, numbers: &[N]) -> bool {
        let bytes = size_of_val(numbers);
        if !self.holds(at, bytes) {
            return false;
        }
        // SAFETY: source and target are `bytes` long, the target within the mapping, and they cannot overlap, since
        // nobody is ever given a reference into the mapping.
        unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), self.start.as_ptr().add(at), bytes) };
        true
    }

    /// The same for booleans.
    #[must_use]
    pub(crate) fn write_bools(&mut self, at: usize, values: &[bool]) -> bool {
        // SAFETY: a `bool` is one byte, 0 or 1.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), values.len()) };
        self.write(at, bytes)
    }

    /// Copies `count` numbers out of the bytes from `at`. `None` if there are not so many.
    pub(crate) fn read<N: Number>(&self, at: usize, count: usize) -> Option<Vec<N>> {
        let bytes = count.checked_mul(size_of::<N>())?;
        if !self.holds(at, bytes) {
            return None;
        }
        let mut numbers = Vec::<N>::with_capacity(count);
        // SAFETY: the source is within the mapping; the target has room for `count` numbers, which are all written
        // before the length says so, and any bits are a number.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr().add(at), numbers.as_mut_ptr().cast::<u8>(), bytes);
            numbers.set_len(count);
        }
        Some(numbers)
    }

    fn holds(&self, at: usize, bytes: usize) -> bool {
        at.checked_add(bytes).is_some_and(|end| end <= self.len)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it was ever given away.
        // It only fails for what was never mapped.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_the_end() {
        let mut area = Area::new(4096).unwrap();
        assert!(area.write(64, &[1.5f32, -2.0]));
        assert_eq!(area.read::<f32>(64, 2).unwrap(), [1.5, -2.0]);
        assert!(area.write_bools(3, &[true, false, true]));
        assert_eq!(area.read::<u8>(3, 3).unwrap(), [1, 0, 1]);
        assert!(!area.write(4095, &[1u16]) && !area.write(usize::MAX, &[1u8]));
        assert!(area.write(4094, &[1u16]));
        assert!(area.read::<u8>(4096, 1).is_none() && area.read::<u64>(0, usize::MAX).is_none());
        assert_eq!(area.read::<u8>(4096, 0).unwrap(), [0u8; 0]);
    }

    #[test]
    fn nobody_can_change_the_size() {
        let area = Area::new(4096).unwrap();
        assert!(ftruncate(area.descriptor(), 0).is_err() && ftruncate(area.descriptor(), 8192).is_err());
    }
}
