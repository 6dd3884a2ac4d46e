//! How much memory workers may have, and the server itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    sync::OnceLock,
};

use rustix::process::{Pid, Resource, getrlimit};

use super::tree::with_descendants;

/// File systems whose files are memory: tmpfs, hugetlbfs, ramfs.
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x9584_58f6, 0x8584_58f6];
/// The part of all memory that one worker may allocate, as a divisor's parts: 4 of 5.
const PARTS: u64 = 5;
const OF_THEM: u64 = 4;

/// Processes that there are of one worker at most, its keeper and those that have ended and were not waited for included.
pub(crate) const MOST_PROCESSES: usize = 512;
/// Threads of a worker and of what it has started, together.
const MOST_THREADS: u64 = 4096;

/// What one worker may allocate, in bytes: as configured, else four fifths of what this machine or its control
/// group has.
pub(crate) fn limit(configured: u64) -> u64 {
    if configured > 0 {
        return configured;
    }
    total().map_or(u64::MAX, |total| total / PARTS * OF_THEM)
}

/// The limit that a model hit, if Python's words say that it got no more memory: `limit` bytes, which follow from what is
/// `configured`.
pub(crate) fn beyond(reason: &str, limit: u64, configured: u64) -> Option<String> {
    let first = reason.lines().next().unwrap_or_default();
    if !["MemoryError", "not enough memory", "Cannot allocate memory"].iter().any(|words| first.contains(words)) {
        return None;
    }
    let limit = limit >> 20;
    Some(if configured > 0 {
        format!("{limit} MiB (serve.python_memory_limit_bytes)")
    } else {
        format!("{limit} MiB (four fifths of limit_res.memory, or of this machine's memory)")
    })
}

/// What a worker may hold after a run before it is replaced: three quarters of what it may allocate.
pub(crate) fn replaced_beyond(limit: u64) -> u64 {
    limit / 4 * 3
}

/// Lets this process allocate no more than nine tenths of all memory: a run that wants more than there is fails by itself,
/// where otherwise the kernel would end the server. What is only reserved, such as the stacks of threads, does not count;
/// so this is called again as it grows. A lower bound that somebody has set holds instead.
pub(crate) fn bound_this_process() {
    static GIVEN: OnceLock<Option<u64>> = OnceLock::new();
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Data).current);
    let Some((total, reserved)) = total().zip(reserved()) else { return };
    let most = total / 10 * 9 + reserved;
    base::memory::bound(given.map_or(most, |given| given.min(most)));
}

/// What this process has reserved beyond what it uses, in bytes.
fn reserved() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(kib("VmData:")?.saturating_sub(kib("RssAnon:")?) << 10)
}

/// The memory of this machine, or of the control group around this process if that is less.
fn total() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    machine.into_iter().chain(of_group()).min()
}

/// The smallest limit of the control groups around this process.
fn of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let (root, file) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                _ => return None,
            };
            // Within a container the path may be that of the host, and its own group is the root.
            let around = std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above));
            around.filter_map(|path| number(format!("{root}{}/{file}", path.trim_end_matches('/')))).min()
        })
        .min()
}

/// What one worker may hold, with all that it has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits(pub(crate) u64);

impl Limits {
    /// Why a worker is to be ended, if it is. `lent` is memory that the server has lent it.
    pub(crate) fn exceeded(self, root: Pid, lent: u64) -> Option<String> {
        let processes = with_descendants(root);
        // Where the kernel takes no filter nothing else bounds them; where it does, some may be about to start.
        if processes.len() > 2 * MOST_PROCESSES {
            return Some(format!("had {} processes: more than {MOST_PROCESSES}", processes.len()));
        }
        let threads: u64 = processes.iter().filter_map(|pid| threads(*pid)).sum();
        if threads > MOST_THREADS {
            return Some(format!("had {threads} threads with what it had started: more than {MOST_THREADS}"));
        }
        let held = held_by(&processes, lent, self.0)?;
        (held > self.0).then(|| {
            format!(
                "held {} MiB with what it had started, shared memory included: more than its {} MiB \
                 (serve.python_memory_limit_bytes)",
                held >> 20,
                self.0 >> 20
            )
        })
    }
}

/// The memory that a process and its descendants hold now, in bytes: their own, what they share with one another, and
/// files in memory that they have open; not what they share with files on disk, and not what was `lent` to them.
///
/// It is exact where it is more than `enough`; below that it may be too high.
pub(crate) fn held(root: Pid, lent: u64, enough: u64) -> Option<u64> {
    held_by(&with_descendants(root), lent, enough)
}

fn held_by(processes: &[i32], lent: u64, enough: u64) -> Option<u64> {
    let files = files_in_memory(processes);
    let roughly: u64 = processes.iter().filter_map(|pid| status(*pid)).sum::<u64>() + files.values().sum::<u64>();
    if roughly.saturating_sub(lent) <= enough {
        return (roughly > 0).then(|| roughly.saturating_sub(lent));
    }
    // Each page once: shared ones by parts, and files of which no process has pages in its address space.
    let mapped: BTreeSet<u64> = processes.iter().flat_map(|pid| mapped_files(*pid)).collect();
    let unmapped: u64 = files.iter().filter(|(file, _)| !mapped.contains(&file.1)).map(|(_, size)| size).sum();
    let exactly = processes.iter().filter_map(|pid| by_parts(*pid)).sum::<u64>() + unmapped;
    Some(exactly.saturating_sub(lent))
}

fn kib(text: &str, fields: &[&str]) -> u64 {
    let of = |line: &str| {
        let (name, value) = line.split_once(':')?;
        fields.contains(&name).then(|| value.trim().trim_end_matches(" kB").parse::<u64>().ok())?
    };
    text.lines().filter_map(of).sum::<u64>() << 10
}

fn status(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&text, &["RssAnon", "RssShmem", "VmSwap"]))
}

fn threads(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

fn by_parts(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kib(&text, &["Pss_Anon", "Pss_Shmem", "SwapPss"]))
}

/// Files in memory that processes have open, and the bytes that they hold.
fn files_in_memory(processes: &[i32]) -> BTreeMap<(u64, u64), u64> {
    /// Smaller ones are not worth the look.
    const SMALLEST: u64 = 1 << 20;
    let open = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).flatten().flatten();
    open.filter_map(|entry| {
        let path = entry.path();
        let file = fs::metadata(&path).ok()?;
        let size = file.blocks() * 512;
        let in_memory = || rustix::fs::statfs(&path).is_ok_and(|system| IN_MEMORY.contains(&(system.f_type as u64)));
        (file.is_file() && size >= SMALLEST && in_memory()).then(|| ((file.dev(), file.ino()), size))
    })
    .collect()
}

/// The numbers of files in a process' address space.
fn mapped_files(pid: i32) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(4)?.parse().ok())
        .filter(|file| *file > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_so_has_this_process() {
        assert!(total().unwrap() > 1 << 20);
        assert!(held(rustix::process::getpid(), 0, u64::MAX).unwrap() > 1 << 16);
        assert_eq!((limit(7), replaced_beyond(400)), (7, 300));
    }

    #[test]
    fn a_model_that_got_no_memory_is_told_its_limit() {
        let numpy = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB\nTraceback";
        for words in ["MemoryError\nTraceback", numpy, "OSError: [Errno 12] Cannot allocate memory"] {
            assert!(
                beyond(words, 3 << 20, 0).unwrap().starts_with("3 MiB (four fifths of limit_res.memory"),
                "{words}"
            );
            assert_eq!(beyond(words, 3 << 20, 1).unwrap(), "3 MiB (serve.python_memory_limit_bytes)");
        }
        assert_eq!(beyond("ValueError: x\nMemoryError", 1, 0), None);
    }
}
