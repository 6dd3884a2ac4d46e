//! The memory that ONNX Runtime computes in, of all models together.
//!
//! By itself the runtime keeps for each model all that its largest run has taken. One large request then leaves nothing for
//! other models, and at the bound of the process threads cannot start and the runtime's own small allocations fail, which
//! it does not survive. So it is given an allocator that all models share:
//!
//! - All large blocks together are bounded ([`most`]), so that the rest of the process always has some memory.
//! - A large block that is given back is kept for the next run of the same thread, but only until somebody else needs the
//!   memory. Small ones are the system's business.
//! - What there is no memory for is told as C++ tells it, by an exception. The runtime does not look for a null pointer.
//! - A run that gets no memory is told whether it would get it on an idle server ([`of_a_run`]).
//!
//! **Invariant:** nothing is shared between threads in a run but a counter, and that only for a block that is new.
#![allow(unsafe_code, reason = "an allocator for a library in C++ has no safe form; it is only here")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::c_void,
    mem, ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use ort::{
    AsPointer as _,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    sys::{OrtAllocator, OrtEnv, OrtMemoryInfo},
};

/// What kernels may expect of an address, and the room before each block.
const ALIGNED: usize = 64;
/// Blocks of so many bytes are large.
const LARGE: usize = 64 << 10;
/// A kept block may be so many times as large as what it is used for.
const LOOSE: usize = 2;
/// Groups of threads that keep blocks together.
const SHARDS: usize = 64;

/// The most that large blocks may take together, in bytes.
static MOST: AtomicUsize = AtomicUsize::new(0);
/// What they take, those included that are kept.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// What was taken outside of runs: the weights of all models.
static LOADED: AtomicUsize = AtomicUsize::new(0);
/// Blocks that are kept, by their sizes.
static KEPT: [Mutex<BTreeMap<usize, Vec<Address>>>; SHARDS] = [const { Mutex::new(BTreeMap::new()) }; SHARDS];

/// Where a block begins.
struct Address(*mut c_void);

// SAFETY: whoever has the address of a kept block is its only owner.
unsafe impl Send for Address {}

/// Stands before each block.
#[repr(C)]
struct Head {
    /// What the system gave.
    begin: *mut c_void,
    /// How much that is, where the block is large; else 0.
    large: usize,
    /// Whether it is kept for other runs.
    kept: bool,
    /// Whether a run took it.
    of_run: bool,
}

/// The run of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// What it holds in large blocks, in bytes.
    held: usize,
    /// Whether it did not get a block that it would get if no other run held memory.
    crowded_out: bool,
}

thread_local! {
    static RUN: Cell<Option<Run>> = const { Cell::new(None) };
}

/// Runs `work`, and returns whether it lacked memory only because other runs hold it.
pub(super) fn of_a_run<T>(work: impl FnOnce() -> T) -> (T, bool) {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            RUN.set(None);
        }
    }
    RUN.set(Some(Run::default()));
    let over = Over;
    let made = work();
    let crowded_out = RUN.get().is_some_and(|run| run.crowded_out);
    drop(over);
    (made, crowded_out)
}

/// Notes for the run of this thread that it does not get `size` bytes more.
fn refuse(size: usize) {
    if let Some(run) = RUN.get() {
        let for_runs = MOST.load(Ordering::Relaxed).saturating_sub(LOADED.load(Ordering::Relaxed));
        let crowded_out = run.held.saturating_add(size) <= for_runs;
        RUN.set(Some(Run { crowded_out, ..run }));
    }
}

/// Counts a large block that was taken, and returns whether a run took it.
fn count(size: usize) -> bool {
    if let Some(run) = RUN.get() {
        RUN.set(Some(Run { held: run.held + size, ..run }));
        return true;
    }
    LOADED.fetch_add(size, Ordering::Relaxed);
    false
}

/// Counts a large block that is given back.
fn count_back(size: usize, of_run: bool) {
    if !of_run {
        LOADED.fetch_sub(size, Ordering::Relaxed);
    } else if let Some(run) = RUN.get() {
        // Another run may have taken it.
        RUN.set(Some(Run { held: run.held.saturating_sub(size), ..run }));
    }
}

/// An allocator as the runtime wants it.
struct Shared(OrtAllocator);

// SAFETY: it is never written after it was made.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Gives sessions of this environment, which ask for it, the allocator of this module. `false`: this runtime does not take
/// it. To be called once.
pub(super) fn share(environment: &Environment) -> bool {
    static ALLOCATOR: OnceLock<Shared> = OnceLock::new();
    MOST.store(most(), Ordering::Relaxed);
    if throw().is_none() {
        return false;
    }
    let allocator = ALLOCATOR.get_or_init(|| {
        // SAFETY: as the function says, what it leaves out is set here.
        let mut allocator = unsafe { OrtAllocator::default() };
        // SAFETY: the forms differ in that these may throw, and they are called by C++.
        unsafe {
            type Unwinding = extern "C-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void;
            allocator.Alloc = Some(mem::transmute::<
                Unwinding,
                unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void,
            >(allocate));
            type Reserving = extern "C-unwind" fn(*const OrtAllocator, usize) -> *mut c_void;
            allocator.Reserve = Some(mem::transmute::<
                Reserving,
                unsafe extern "system" fn(*const OrtAllocator, usize) -> *mut c_void,
            >(reserve));
        }
        allocator.Free = Some(free);
        allocator.Info = Some(info);
        Shared(allocator)
    });
    let (allocator, environment) = (ptr::from_ref(&allocator.0).cast_mut(), environment.ptr().cast_mut());
    !info(allocator).is_null() && register(environment, allocator)
}

fn register(environment: *mut OrtEnv, allocator: *mut OrtAllocator) -> bool {
    let api = ort::api();
    // SAFETY: both live as long as the process.
    unsafe {
        let status = (api.RegisterAllocator)(environment, allocator);
        if status.0.is_null() {
            return true;
        }
        (api.ReleaseStatus)(status.0);
    }
    false
}

/// Four fifths of what this process may allocate, or of all memory.
fn most() -> usize {
    let given = rustix::process::getrlimit(rustix::process::Resource::Data).current.unwrap_or(u64::MAX);
    usize::try_from(crate::machine::memory::limit(0).min(given / 5 * 4)).unwrap_or(usize::MAX)
}

type Throw = extern "C-unwind" fn() -> !;

/// What throws C++'s `std::bad_alloc`, if the runtime came with the usual library of C++.
fn throw() -> Option<Throw> {
    static THROW: OnceLock<Option<Throw>> = OnceLock::new();
    *THROW.get_or_init(|| {
        // SAFETY: the library is there already or not opened, so that nothing of it runs. The function has had this name and
        // form since there is an ABI of C++.
        unsafe {
            let library = libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if library.is_null() {
                return None;
            }
            let found = libc::dlsym(library, c"_ZSt17__throw_bad_allocv".as_ptr());
            (!found.is_null()).then(|| mem::transmute::<*mut c_void, Throw>(found))
        }
    })
}

extern "system" fn info(_: *const OrtAllocator) -> *const OrtMemoryInfo {
    static INFO: OnceLock<Option<MemoryInfo<'static>>> = OnceLock::new();
    let made = || MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default).ok();
    INFO.get_or_init(made).as_ref().map_or(ptr::null(), |info| info.ptr())
}

/// A block for a run.
extern "C-unwind" fn allocate(_: *mut OrtAllocator, size: usize) -> *mut c_void {
    let made = block(size, true);
    if made.is_null()
        && size > 0
        && let Some(throw) = throw()
    {
        throw();
    }
    made
}

/// A block that stays as long as its model.
extern "C-unwind" fn reserve(_: *const OrtAllocator, size: usize) -> *mut c_void {
    let made = block(size, false);
    if made.is_null()
        && size > 0
        && let Some(throw) = throw()
    {
        throw();
    }
    made
}

/// A block of so many bytes, for which there may be no memory: then it is null.
fn block(size: usize, kept: bool) -> *mut c_void {
    if size == 0 {
        return ptr::null_mut();
    }
    if size < LARGE {
        // Kernels may read a few bytes behind a block; there is room for that as behind the large ones.
        // SAFETY: any size may be asked for.
        let begin = unsafe { libc::malloc(size + 3 * ALIGNED) };
        if begin.is_null() {
            refuse(size);
            return begin;
        }
        return behind(Head { begin, large: 0, kept, of_run: false });
    }
    let size = class(size).unwrap_or(usize::MAX);
    let reused = if kept { take(size) } else { None };
    match reused.or_else(|| map(size)) {
        Some((Address(begin), large)) => behind(Head { begin, large, kept, of_run: count(large) }),
        None => {
            refuse(size);
            ptr::null_mut()
        }
    }
}

/// Writes a head, and returns the address of the block after it.
fn behind(head: Head) -> *mut c_void {
    const { assert!(size_of::<Head>() <= ALIGNED && ALIGNED.is_multiple_of(align_of::<Head>())) };
    let to_next = ALIGNED - head.begin.addr() % ALIGNED;
    // SAFETY: the memory has room for a head and the way to the next aligned address, beside the block.
    unsafe {
        let at = head.begin.byte_add(to_next).byte_add(if to_next < ALIGNED { ALIGNED } else { 0 });
        at.byte_sub(ALIGNED).cast::<Head>().write(head);
        at
    }
}

/// The size of large blocks for so many bytes: one of four between two powers of two.
fn class(size: usize) -> Option<usize> {
    let whole = size.checked_add(2 * ALIGNED)?;
    whole.checked_next_multiple_of((whole.checked_next_power_of_two()? / 8).max(4096))
}

/// A kept block of this thread.
fn take(size: usize) -> Option<(Address, usize)> {
    let mut kept = shard().lock().unwrap_or_else(PoisonError::into_inner);
    let (&large, blocks) = kept.range_mut(size..=size.saturating_mul(LOOSE)).next()?;
    let found = blocks.pop();
    if blocks.is_empty() {
        kept.remove(&large);
    }
    found.map(|found| (found, large))
}

fn shard() -> &'static Mutex<BTreeMap<usize, Vec<Address>>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let own = OWN.get().unwrap_or_else(|| {
        let own = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
        OWN.set(Some(own));
        own
    });
    &KEPT[own]
}

/// A new block.
fn map(size: usize) -> Option<(Address, usize)> {
    let more = |held: usize| held.checked_add(size).filter(|held| *held <= MOST.load(Ordering::Relaxed));
    let count = || HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
    if !count() {
        give_back();
        if !count() {
            return None;
        }
    }
    let new = || {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping touches nothing that is there.
        let made = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        (made != libc::MAP_FAILED).then_some((Address(made), size))
    };
    let made = new().or_else(|| {
        give_back();
        new()
    });
    if made.is_none() {
        HELD.fetch_sub(size, Ordering::Relaxed);
    }
    made
}

extern "system" fn free(_: *mut OrtAllocator, at: *mut c_void) {
    if at.is_null() {
        return;
    }
    // SAFETY: the runtime gives back what it got here, once; a head stands before it.
    let Head { begin, large, kept, of_run } = unsafe { at.byte_sub(ALIGNED).cast::<Head>().read() };
    if large > 0 {
        count_back(large, of_run);
    }
    match (large, kept) {
        // SAFETY: as above.
        (0, _) => unsafe { libc::free(begin) },
        (_, true) => {
            let mut all = shard().lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(large).or_default().push(Address(begin));
        }
        (_, false) => unmap(Address(begin), large),
    }
}

fn unmap(Address(begin): Address, size: usize) {
    // SAFETY: nobody else has the address of the block.
    unsafe { libc::munmap(begin, size) };
    HELD.fetch_sub(size, Ordering::Relaxed);
}

/// Gives all blocks that are kept back to the system.
pub(super) fn give_back() {
    KEPT.iter().for_each(empty);
}

/// Gives the blocks that are kept for this thread back to the system.
pub(super) fn give_back_own() {
    empty(shard());
}

fn empty(shard: &Mutex<BTreeMap<usize, Vec<Address>>>) {
    let blocks = mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
    for (size, blocks) in blocks {
        blocks.into_iter().for_each(|block| unmap(block, size));
    }
}

/// Gives back what a model's loading and runs have left, once the model is gone.
#[derive(Debug)]
pub(super) struct GivesBack;

impl Drop for GivesBack {
    fn drop(&mut self) {
        give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: *mut c_void, size: usize) {
        assert_eq!(at.addr() % ALIGNED, 0);
        // SAFETY: it is a block of so many bytes.
        unsafe { ptr::write_bytes(at.cast::<u8>(), 7, size) };
    }

    #[test]
    fn blocks_of_all_sizes_are_aligned_and_whole_and_large_ones_are_kept_within_the_bound() {
        MOST.store(64 << 20, Ordering::Relaxed);
        for size in [1, 63, 64, 1000, LARGE - 1, LARGE, LARGE + 1, 1 << 20, (5 << 20) + 3] {
            for kept in [true, false] {
                let blocks: Vec<_> = (0..3).map(|_| block(size, kept)).collect();
                blocks.iter().for_each(|at| write(*at, size));
                blocks.iter().for_each(|at| free(ptr::null_mut(), *at));
            }
        }
        let held = HELD.load(Ordering::Relaxed);
        assert!((15 << 20..64 << 20).contains(&held), "{held}");
        // Another thread gives back nothing of this one's.
        std::thread::spawn(give_back_own).join().unwrap();
        assert_eq!(HELD.load(Ordering::Relaxed), held);
        // A kept block is used again, also for a little less.
        let again = block(5 << 20, true);
        assert_eq!(HELD.load(Ordering::Relaxed), held);
        free(ptr::null_mut(), again);
        assert!(
            block(usize::MAX, true).is_null()
                && block(usize::MAX / 2 + 2, true).is_null()
                && block(65 << 20, true).is_null()
        );
        assert!(block(0, true).is_null());
        // What is kept is given up for what is wanted.
        let most = block(60 << 20, true);
        assert!(!most.is_null() && block(8 << 20, true).is_null());
        write(most, 60 << 20);
        free(ptr::null_mut(), most);
        give_back_own();
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_size_of_a_block_is_little_more_than_what_is_wanted() {
        for size in (0..200).map(|power| LARGE + (1usize << (power / 5)) * 1000) {
            let class = class(size).unwrap();
            assert!(class >= size + 2 * ALIGNED && class <= size / 4 * 5 + 8192, "{size}: {class}");
        }
        for absurd in [usize::MAX, usize::MAX - 1000, usize::MAX / 2 + 2] {
            assert_eq!(class(absurd), None);
        }
    }
}
