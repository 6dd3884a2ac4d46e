//! Decides which processes a worker may signal, trace or limit: only those that it has started. Also limits the number
//! of its processes.
//!
//! The worker's filter (`_guard.py`) makes the kernel ask here, through a descriptor that the worker has sent before
//! any code of the model ran. The kernel suspends the caller until it has the answer. Only numbers are checked, which
//! the caller cannot change meanwhile.
//!
//! A pid may refer to another process by the time that the kernel uses it. So signals are sent from here, through a
//! pidfd of the process that was checked. Calls that only the caller can make (`ptrace`, `prlimit`) continue with the
//! pid.
#![allow(unsafe_code, reason = "the kernel's questions come by a call that has no safe form")]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::machine::{
    memory::MOST_PROCESSES,
    tree::{leader, members, parent_and_group, with_descendants},
};

/// How long a worker that has so many is not counted again.
const FULL: Duration = Duration::from_millis(50);
/// How often a group is checked for processes that were started meanwhile.
const LOOKS: usize = 8;
/// How many questions are answered before anything else is done.
const AT_ONCE: usize = 16;
/// Maximum depth of a descendant that is recognised.
const DEEPEST: usize = 256;

/// `struct seccomp_notif`, with `struct seccomp_data` in it.
#[repr(C)]
#[derive(Default)]
struct Question {
    id: u64,
    pid: u32,
    flags: u32,
    call: i32,
    machine: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Verdict {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Allows the call.
const GO_ON: u32 = 1;

/// The kernel's two requests.
const RECEIVE: u64 = request(0, size_of::<Question>());
const SEND: u64 = request(1, size_of::<Verdict>());

const fn request(number: u64, size: usize) -> u64 {
    const READ_WRITE: u64 = 3 << 30;
    READ_WRITE | (size as u64) << 16 | (b'!' as u64) << 8 | number
}

/// The target of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// One process, or a thread of it.
    Process(i32),
    /// A group of processes.
    Group(i32),
    /// The caller itself, or nothing.
    Own,
    /// Everything that the caller can reach.
    All,
}

/// The effect of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Send a signal.
    Signal(Target, i32),
    /// Another operation that only the caller can perform.
    Reach(Target),
    /// Start a process.
    Start,
}

/// The answer for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The kernel makes the call.
    GoOn,
    /// It was done here.
    Done,
    /// An error, by its number.
    Fails(i32),
}

/// The kernel's questions about one worker.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) questions: OwnedFd,
    /// The parent of the worker.
    root: Pid,
    /// How many processes may be started before they are counted again, and until when none may be.
    room: usize,
    full: Option<Instant>,
    told: bool,
    told_full: bool,
}

impl Guard {
    pub(super) fn new(questions: OwnedFd, root: Pid) -> Self {
        Self { questions, root, room: 0, full: None, told: false, told_full: false }
    }

    /// Answers all pending questions without waiting for more. A worker that is `ending` may start nothing. `false`:
    /// nobody is left who could ask.
    pub(super) fn answer(&mut self, model: &str, ending: bool) -> bool {
        for _ in 0..AT_ONCE {
            let ready = self.ready();
            if !ready.contains(PollFlags::IN) {
                return !ready.intersects(PollFlags::HUP | PollFlags::ERR);
            }
            let mut question = Question::default();
            // SAFETY: the kernel writes at most the size in the request, which is that of `question`.
            let asked = unsafe { libc::ioctl(self.questions.as_raw_fd(), RECEIVE, std::ptr::from_mut(&mut question)) };
            if asked != 0 {
                // The caller has ended.
                continue;
            }
            let answer = match wish(&question) {
                Wish::Start if ending => Answer::Fails(libc::EAGAIN),
                Wish::Start => self.start(model),
                Wish::Signal(target, number) => self.signal(question.pid.cast_signed(), target, number),
                Wish::Reach(target) if self.allows(target) => Answer::GoOn,
                Wish::Reach(_) => Answer::Fails(libc::EPERM),
            };
            if answer == Answer::Fails(libc::EPERM) && !self.told {
                self.told = true;
                tracing::warn!(model, "the model tried to signal, trace or limit a process of others: refused");
            }
            let (error, flags) = match answer {
                Answer::GoOn => (0, GO_ON),
                Answer::Done => (0, 0),
                Answer::Fails(error) => (-error, 0),
            };
            let mut verdict = Verdict { id: question.id, value: 0, error, flags };
            // SAFETY: the kernel reads the size in the request, which is that of `verdict`. It fails if the caller has
            // ended meanwhile, which does not matter.
            unsafe { libc::ioctl(self.questions.as_raw_fd(), SEND, std::ptr::from_mut(&mut verdict)) };
        }
        true
    }

    /// Whether one more process may be started.
    fn start(&mut self, model: &str) -> Answer {
        if self.room == 0 && self.full.is_none_or(|until| until <= Instant::now()) {
            self.room = MOST_PROCESSES.saturating_sub(with_descendants(self.root).len());
            self.full = (self.room == 0).then(|| Instant::now() + FULL);
        }
        if self.room > 0 {
            self.room -= 1;
            return Answer::GoOn;
        }
        if !self.told_full {
            self.told_full = true;
            tracing::warn!(model, "the model has {MOST_PROCESSES} processes, and may start no more of them");
        }
        Answer::Fails(libc::EAGAIN)
    }

    /// Sends a signal for a caller.
    fn signal(&self, caller: i32, target: Target, number: i32) -> Answer {
        let sent = match target {
            Target::Own => return Answer::GoOn,
            Target::All => return Answer::Fails(libc::EPERM),
            // It exists as long as it waits for the answer.
            Target::Process(pid) if leader(pid).is_some_and(|leading| Some(leading) == leader(caller)) => {
                return Answer::GoOn;
            }
            Target::Process(pid) => self.signal_process(pid, None, number),
            Target::Group(group) => self.signal_group(group, number),
        };
        sent.map_or_else(Answer::Fails, |()| Answer::Done)
    }

    /// Sends a signal to a process; if a group is given, only while the process is in it. Fails with the error number.
    fn signal_process(&self, pid: i32, group: Option<i32>, number: i32) -> Result<(), i32> {
        let leading = leader(pid).and_then(Pid::from_raw).ok_or(libc::ESRCH)?;
        // Everything that is checked from here on is about this process, or the signal reaches nobody.
        let process = pidfd_open(leading, PidfdFlags::empty()).map_err(rustix::io::Errno::raw_os_error)?;
        let (_, of) = parent_and_group(leading.as_raw_nonzero().get()).ok_or(libc::ESRCH)?;
        if group.is_some_and(|group| group != of) {
            return Err(libc::ESRCH);
        }
        if !self.is_below(leading.as_raw_nonzero().get()) {
            return Err(libc::EPERM);
        }
        // SAFETY: it takes numbers and no pointer except null.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, 0_usize, 0_u32) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM)) }
    }

    /// Sends a signal to a group that has none but the worker's own processes. As with `kill`, it is enough that one of them
    /// gets it.
    fn signal_group(&self, group: i32, number: i32) -> Result<(), i32> {
        let (mut reached, mut sent, mut refused) = (Vec::new(), false, None);
        for _ in 0..LOOKS {
            let all: Vec<i32> = members(group).collect();
            if !all.iter().all(|pid| self.is_below(*pid)) {
                return Err(libc::EPERM);
            }
            let news: Vec<i32> = all.into_iter().filter(|pid| !reached.contains(pid)).collect();
            if news.is_empty() {
                break;
            }
            for pid in news {
                reached.push(pid);
                match self.signal_process(pid, Some(group), number) {
                    Ok(()) => sent = true,
                    // It has ended, or left the group.
                    Err(libc::ESRCH) => {}
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
        }
        match refused {
            Some(error) if !sent => Err(error),
            Some(_) | None if !reached.is_empty() => Ok(()),
            Some(_) | None => Err(libc::ESRCH),
        }
    }

    fn ready(&self) -> PollFlags {
        let mut descriptor = [PollFd::new(&self.questions, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut descriptor, Some(&at_once)).map_or(PollFlags::empty(), |_| descriptor[0].revents())
    }

    fn allows(&self, target: Target) -> bool {
        match target {
            Target::Own => true,
            Target::All => false,
            Target::Process(pid) => match parent_and_group(pid) {
                Some(_) => self.is_below(pid),
                // The process does not exist; the kernel will report that.
                None => true,
            },
            Target::Group(group) => members(group).all(|pid| self.is_below(pid)),
        }
    }

    /// Whether a process descends from the worker's parent.
    fn is_below(&self, pid: i32) -> bool {
        let above = |pid: &i32| parent_and_group(*pid).map(|(parent, _)| parent);
        std::iter::successors(above(&pid), above).take(DEEPEST).any(|parent| parent == self.root.as_raw_nonzero().get())
    }
}

/// The effect of a call. The numbers of the calls are those of `_guard.py`.
#[allow(clippy::cast_possible_truncation, reason = "the kernel takes the lower half of these arguments")]
fn wish(question: &Question) -> Wish {
    let argument = |place: usize| question.arguments[place] as i32;
    let process = |pid: i32| if pid == 0 { Target::Own } else { Target::Process(pid) };
    let whom = |pid: i32| match pid {
        0 => Target::Own,
        -1 => Target::All,
        pid if pid < 0 => Target::Group(pid.saturating_neg()),
        pid => Target::Process(pid),
    };
    match i64::from(question.call) {
        call if STARTS.contains(&call) => Wish::Start,
        // Signal 0 only checks whether a process exists.
        libc::SYS_kill | libc::SYS_tkill if argument(1) == 0 => Wish::Reach(Target::Own),
        libc::SYS_tgkill if argument(2) == 0 => Wish::Reach(Target::Own),
        // It only reads.
        libc::SYS_prlimit64 if question.arguments[2] == 0 => Wish::Reach(Target::Own),
        libc::SYS_kill => Wish::Signal(whom(argument(0)), argument(1)),
        libc::SYS_tkill => Wish::Signal(process(argument(0)), argument(1)),
        // A thread of another process counts as that process.
        libc::SYS_tgkill => Wish::Signal(process(argument(0)), argument(2)),
        libc::SYS_fcntl => Wish::Reach(whom(argument(2))),
        libc::SYS_ptrace => Wish::Reach(process(argument(1))),
        libc::SYS_rt_sigqueueinfo | libc::SYS_rt_tgsigqueueinfo | libc::SYS_prlimit64 | libc::SYS_process_vm_writev => {
            Wish::Reach(process(argument(0)))
        }
        _ => Wish::Reach(Target::All),
    }
}

/// The calls that start a process.
#[cfg(target_arch = "x86_64")]
const STARTS: [i64; 3] = [libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const STARTS: [i64; 1] = [libc::SYS_clone];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(call: i64, arguments: [i64; 3]) -> Wish {
        let [first, second, third] = arguments.map(|argument| argument.cast_unsigned());
        let arguments = [first, second, third, 0, 0, 0];
        wish(&Question { call: i32::try_from(call).unwrap(), arguments, ..Question::default() })
    }

    #[test]
    fn whom_a_call_is_about() {
        assert_eq!(of(libc::SYS_kill, [7, 9, 0]), Wish::Signal(Target::Process(7), 9));
        assert_eq!(of(libc::SYS_kill, [-7, 9, 0]), Wish::Signal(Target::Group(7), 9));
        assert_eq!(of(libc::SYS_kill, [-1, 9, 0]), Wish::Signal(Target::All, 9));
        assert_eq!(of(libc::SYS_kill, [7, 0, 0]), Wish::Reach(Target::Own));
        assert_eq!(of(libc::SYS_tgkill, [7, 8, 9]), Wish::Signal(Target::Process(7), 9));
        assert_eq!(of(libc::SYS_ptrace, [16, 7, 0]), Wish::Reach(Target::Process(7)));
        assert_eq!(of(libc::SYS_fcntl, [3, 8, -7]), Wish::Reach(Target::Group(7)));
        assert_eq!(of(libc::SYS_prlimit64, [7, 0, 4096]), Wish::Reach(Target::Process(7)));
        assert_eq!(of(libc::SYS_prlimit64, [7, 0, 0]), Wish::Reach(Target::Own));
        assert_eq!(of(libc::SYS_clone, [17, 0, 0]), Wish::Start);
        assert_eq!(of(libc::SYS_read, [0, 0, 0]), Wish::Reach(Target::All));
    }

    /// A guard for the processes that this process has started.
    fn guard() -> (Guard, i32) {
        let (questions, _) = std::io::pipe().unwrap();
        let me = rustix::process::getpid();
        (Guard::new(questions.into(), me), me.as_raw_nonzero().get())
    }

    fn sleeping() -> (std::process::Child, i32) {
        let mut command = std::process::Command::new("sleep");
        let child = std::os::unix::process::CommandExt::process_group(command.arg("100"), 0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn signals_are_sent_to_the_process_that_was_looked_at() {
        use std::os::unix::process::ExitStatusExt as _;

        let (guard, me) = guard();
        let (mut child, pid) = sleeping();
        let (mut other, group) = sleeping();
        assert_eq!(guard.signal(pid, Target::Process(1), 23), Answer::Fails(libc::EPERM));
        assert_eq!(
            guard.signal(pid, Target::Process(me), 23),
            Answer::Fails(libc::EPERM),
            "the worker's parent itself"
        );
        assert_eq!(guard.signal(pid, Target::All, 23), Answer::Fails(libc::EPERM));
        assert_eq!(guard.signal(pid, Target::Process(pid), 15), Answer::GoOn, "the caller itself");
        assert_eq!(guard.signal(group, Target::Process(pid), 999), Answer::Fails(libc::EINVAL));
        assert_eq!(guard.signal(group, Target::Process(pid), 15), Answer::Done);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert_eq!(guard.signal(group, Target::Process(pid), 15), Answer::Fails(libc::ESRCH), "it was waited for");
        assert_eq!(guard.signal(1, Target::Group(group), 9), Answer::Done);
        assert_eq!(other.wait().unwrap().signal(), Some(9));
        assert_eq!(guard.signal(1, Target::Group(group), 9), Answer::Fails(libc::ESRCH));
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        assert_eq!(guard.signal(1, Target::Group(own), 23), Answer::Fails(libc::EPERM));
    }

    #[test]
    fn a_worker_that_has_as_many_processes_as_it_may_starts_no_more() {
        let (mut guard, _) = guard();
        guard.room = 2;
        assert_eq!([guard.start("m"), guard.start("m")], [Answer::GoOn, Answer::GoOn]);
        guard.full = Some(Instant::now() + Duration::from_secs(3600));
        assert_eq!(guard.start("m"), Answer::Fails(libc::EAGAIN));
        guard.full = None;
        assert_eq!(guard.start("m"), Answer::GoOn, "this process has few");
    }

    #[test]
    fn a_process_that_was_not_started_by_the_worker_is_refused() {
        let (guard, me) = guard();
        assert!(!guard.allows(Target::Process(me)), "the worker's parent itself");
        assert!(!guard.allows(Target::Process(1)) && !guard.allows(Target::All));
        let (mut child, pid) = sleeping();
        assert!(guard.allows(Target::Process(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(guard.allows(Target::Process(pid)), "nothing is there");
    }
}
