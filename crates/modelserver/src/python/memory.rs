//! How much memory workers may have.

use std::fs;

/// The part of all memory that one worker may allocate, as a divisor's parts: 4 of 5.
const PARTS: u64 = 5;
const OF_THEM: u64 = 4;

/// What one worker may allocate, in bytes: as configured, else four fifths of what this machine or its control
/// group has.
pub(super) fn limit(configured: u64) -> u64 {
    if configured > 0 {
        return configured;
    }
    total().map_or(u64::MAX, |total| total / PARTS * OF_THEM)
}

/// What a worker may hold after a run before it is replaced: three quarters of what it may allocate.
pub(super) fn replaced_beyond(limit: u64) -> u64 {
    limit / 4 * 3
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

/// The memory that a process holds now, in bytes, without what it shares with files.
pub(super) fn held(pid: rustix::process::Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = status.split(' ').skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_so_has_this_process() {
        assert!(total().unwrap() > 1 << 20);
        assert!(held(rustix::process::getpid()).unwrap() > 1 << 16);
        assert_eq!((limit(7), replaced_beyond(400)), (7, 300));
    }
}
