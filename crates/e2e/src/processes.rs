//! Which processes there are, as the kernel says.

use std::{fs, path::Path};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// The processes that live (zombies do not) and whose command line contains all of `words`, by pid.
#[must_use]
pub fn processes_naming(words: &[&str]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let folder = Path::new("/proc").join(pid.to_string());
            let command = fs::read(folder.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let lives = fs::read_to_string(folder.join("stat"))
                .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')));
            lives && words.iter().all(|word| command.contains(word))
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Sends a signal to one process; it may be gone already.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// The most resident memory that a process has had, in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Lets this process open as many files as it may at all; says how many that are.
#[must_use]
pub fn raise_open_files() -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    most.map_or(usize::MAX, |most| usize::try_from(most).unwrap())
}
