//! Which processes there are, as the kernel says.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

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
