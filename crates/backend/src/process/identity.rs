//! Identifies a process reliably.
//!
//! A pid is reused as soon as its process is gone, so a process is identified by its pid, its start time in ticks and
//! the boot id. Before a signal is sent, a pidfd is opened and the identity is checked again: from then on the pidfd
//! refers to that process.
//!
//! **Invariant:** no signal is sent to a process whose identity was not checked.

use std::{fs, io, os::fd::OwnedFd, sync::OnceLock};

use api::Epoch;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitpid,
};
use serde::{Deserialize, Serialize};

use super::pidfd::Pidfd;

/// The environment variable with the epoch in which a replica was started. Its record contains its current epoch.
pub(super) const EPOCH: &str = "MODELWAY_REPLICA_EPOCH";

/// The permanent identity of one process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its pid.
    pub(super) pid: u32,
    /// Its start time, in clock ticks since the boot.
    pub(super) start_ticks: u64,
    /// The boot id.
    pub(super) boot: String,
}

/// How a process ended, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
    /// It was a child of another process, which got the status.
    Unknown,
}

impl Identity {
    /// The process that has this pid now; `None` if there is none.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, start_ticks: stat.start_ticks, boot: boot_id().to_owned() })
    }

    /// Whether it is running. A zombie is not.
    pub(super) fn is_alive(&self) -> bool {
        self.stat().is_some_and(|stat| !stat.is_dead())
    }

    /// Whether it was started with both of these argument pairs.
    pub(super) fn has_arguments(&self, pairs: [(&str, &str); 2]) -> bool {
        has_arguments(self.pid, pairs)
    }

    /// Whether it is a replica that was started in this epoch.
    pub(super) fn is_of(&self, epoch: &Epoch) -> bool {
        has_environment(self.pid, &format!("{EPOCH}={}", epoch.0))
    }

    fn stat(&self) -> Option<Stat> {
        if self.boot != boot_id() {
            return None;
        }
        Stat::read(self.pid).filter(|stat| stat.start_ticks == self.start_ticks)
    }

    fn raw(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = self.raw() else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Checked after opening: now the pid cannot be reused.
        Ok(self.stat().is_some().then_some(fd))
    }

    /// Begins to watch for its end; `None` if it is gone.
    pub(super) fn watch(&self) -> io::Result<Option<Pidfd>> {
        self.open()?.map(Pidfd::watch).transpose()
    }

    /// Sends it a signal if it is running.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        match pidfd_send_signal(fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it and its process group, which it leads.
    ///
    /// Its children may outlive it. While it is a zombie, the group is certainly its own. Once it is gone, the number
    /// may refer to another group, and only processes that carry `mark` in their environment are killed.
    pub(super) fn kill_group(&self, mark: &str) -> io::Result<()> {
        let Some(pid) = self.raw().filter(|pid| !pid.is_init()) else { return Ok(()) };
        if let Some(stat) = self.stat() {
            if i64::from(stat.group) != i64::from(self.pid) {
                return self.signal(Signal::KILL);
            }
            return match kill_process_group(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        if self.boot != boot_id() {
            return Ok(());
        }
        let of_this_group = |pid: &u32| Stat::read(*pid).is_some_and(|it| i64::from(it.group) == i64::from(self.pid));
        for member in all_pids().filter(of_this_group).filter(|pid| has_environment(*pid, mark)) {
            if let Some(member) = Self::of(member) {
                member.signal(Signal::KILL)?;
            }
        }
        Ok(())
    }

    /// How it ended, once it has. Reaps it if it is a child of this process.
    pub(super) fn reap(&self) -> Exit {
        let remains = self.stat();
        let status = self.raw().and_then(|pid| waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten());
        match (status, remains) {
            (Some((_, status)), _) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Status(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            // The zombie of another process: the kernel shows its status to its owner.
            (None, Some(Stat { state: b'Z', exit_code: Some(code), .. })) => match (code & 0x7f, code >> 8) {
                (0, status) => Exit::Status(status & 0xff),
                (signal, _) => Exit::Signal(signal),
            },
            (None, _) => Exit::Unknown,
        }
    }
}

/// Searches all processes for the one that was started with both of these argument pairs.
pub(super) fn find_by_arguments(pairs: [(&str, &str); 2]) -> Option<Identity> {
    all_pids().filter(|pid| has_arguments(*pid, pairs)).find_map(|pid| Identity::of(pid).filter(Identity::is_alive))
}

/// All processes with this argument, and the value that follows it.
pub(super) fn all_with_argument(flag: &str) -> impl Iterator<Item = (String, Identity)> {
    all_pids().filter_map(move |pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let value = line.split(|byte| *byte == 0).skip_while(|argument| *argument != flag.as_bytes()).nth(1)?;
        let value = String::from_utf8(value.to_vec()).ok()?;
        Some((value, Identity::of(pid).filter(Identity::is_alive)?))
    })
}

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn has_arguments(pid: u32, pairs: [(&str, &str); 2]) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    pairs.iter().all(|(flag, value)| arguments.windows(2).any(|two| two == [flag.as_bytes(), value.as_bytes()]))
}

fn has_environment(pid: u32, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
}

/// The content of `/proc/<pid>/stat`; its fields are numbered as in proc(5).
#[derive(Debug)]
struct Stat {
    state: u8,
    group: i32,
    start_ticks: u64,
    exit_code: Option<i32>,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the name of the program in parentheses, which may contain anything, including `)`.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            group: field(5)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
            exit_code: field(52).and_then(|code| code.parse().ok()),
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_full_of_parentheses_does_not_shift_the_fields() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("77 (a) Z (b)) S {}", numbers.join(" "))).expect("it is well formed");
        assert_eq!((stat.state, stat.group, stat.start_ticks, stat.exit_code), (b'S', 5, 22, Some(52)));
    }

    #[test]
    fn a_process_is_itself_and_no_other_that_has_its_number() {
        let me = Identity::of(std::process::id()).expect("this test runs");
        assert!(me.is_alive());
        assert!(!Identity { start_ticks: me.start_ticks + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot: "another".to_owned(), ..me }.is_alive());
    }

    #[test]
    fn a_child_s_status_is_known_and_a_stranger_s_is_not() {
        #[allow(clippy::zombie_processes, reason = "taking the remains is what is tested")]
        let child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().expect("sh runs");
        let process = Identity::of(child.id()).expect("a child is at least a zombie");
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(process.reap(), Exit::Status(7));
        assert_eq!(process.reap(), Exit::Unknown);
        assert!(process.signal(Signal::TERM).is_ok(), "a signal to what is gone does nothing");
    }
}
