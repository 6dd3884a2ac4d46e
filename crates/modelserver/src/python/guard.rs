//! Decides which processes a worker may signal, trace or limit: those that it has started, and no others.
//!
//! The worker's filter (`_guard.py`) makes the kernel ask here, at a descriptor that the worker has sent before any code
//! of the model ran. The kernel holds the caller until it has the answer. Only numbers are looked at, which the
//! caller cannot change meanwhile.
#![allow(unsafe_code, reason = "the kernel's questions come by a call that has no safe form")]

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
};

use super::tree::{members, parent_and_group};

/// Questions that are answered before anything else is looked at again.
const AT_ONCE: usize = 16;
/// The deepest descendant that is recognised.
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

/// Lets the call go on.
const GO_ON: u32 = 1;

/// The kernel's two requests.
const RECEIVE: u64 = request(0, size_of::<Question>());
const SEND: u64 = request(1, size_of::<Verdict>());

const fn request(number: u64, size: usize) -> u64 {
    const READ_WRITE: u64 = 3 << 30;
    READ_WRITE | (size as u64) << 16 | (b'!' as u64) << 8 | number
}

/// What a call would do to which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To one process, or a thread of it.
    Process(i32),
    /// To a group of processes.
    Group(i32),
    /// To the caller, or to nothing.
    Own,
    /// To everything that it can reach.
    All,
}

/// The kernel's questions about one worker.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) questions: OwnedFd,
    /// The parent of the worker.
    root: Pid,
    told: bool,
}

impl Guard {
    pub(super) fn new(questions: OwnedFd, root: Pid) -> Self {
        Self { questions, root, told: false }
    }

    /// Answers what is asked, without waiting for more. `false`: nobody is left who could ask.
    pub(super) fn answer(&mut self, model: &str) -> bool {
        for _ in 0..AT_ONCE {
            let ready = self.ready();
            if !ready.contains(PollFlags::IN) {
                return !ready.intersects(PollFlags::HUP | PollFlags::ERR);
            }
            let mut question = Question::default();
            // SAFETY: the kernel writes at most the size that the request names, which is that of `question`.
            let asked = unsafe { libc::ioctl(self.questions.as_raw_fd(), RECEIVE, std::ptr::from_mut(&mut question)) };
            if asked != 0 {
                // Whoever asked has ended.
                continue;
            }
            let allowed = self.allows(target(&question));
            if !allowed && !self.told {
                self.told = true;
                tracing::warn!(model, "the model tried to signal, trace or limit a process of others: refused");
            }
            let (error, flags) = if allowed { (0, GO_ON) } else { (-libc::EPERM, 0) };
            let mut verdict = Verdict { id: question.id, value: 0, error, flags };
            // SAFETY: the kernel reads the size that the request names, which is that of `verdict`. It fails where
            // the caller has ended meanwhile, to whom there is nothing to say.
            unsafe { libc::ioctl(self.questions.as_raw_fd(), SEND, std::ptr::from_mut(&mut verdict)) };
        }
        true
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
                // There is nothing, as the kernel will say.
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

/// Whom a call is about. The numbers of the calls are those of `_guard.py`.
#[allow(clippy::cast_possible_truncation, reason = "the kernel takes the lower half of these arguments")]
fn target(question: &Question) -> Target {
    let argument = |place: usize| question.arguments[place] as i32;
    let process = |pid: i32| if pid == 0 { Target::Own } else { Target::Process(pid) };
    let whom = |pid: i32| match pid {
        0 => Target::Own,
        -1 => Target::All,
        pid if pid < 0 => Target::Group(pid.saturating_neg()),
        pid => Target::Process(pid),
    };
    match i64::from(question.call) {
        // Signal 0 only looks whether there is somebody.
        libc::SYS_kill | libc::SYS_tkill if argument(1) == 0 => Target::Own,
        libc::SYS_tgkill if argument(2) == 0 => Target::Own,
        // It only reads.
        libc::SYS_prlimit64 if question.arguments[2] == 0 => Target::Own,
        libc::SYS_kill => whom(argument(0)),
        libc::SYS_fcntl => whom(argument(2)),
        libc::SYS_ptrace => process(argument(1)),
        libc::SYS_tkill
        | libc::SYS_tgkill
        | libc::SYS_rt_sigqueueinfo
        | libc::SYS_rt_tgsigqueueinfo
        | libc::SYS_prlimit64
        | libc::SYS_process_vm_writev => process(argument(0)),
        _ => Target::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(call: i64, arguments: [i64; 3]) -> Target {
        let [first, second, third] = arguments.map(|argument| argument.cast_unsigned());
        let arguments = [first, second, third, 0, 0, 0];
        target(&Question { call: i32::try_from(call).unwrap(), arguments, ..Question::default() })
    }

    #[test]
    fn whom_a_call_is_about() {
        assert_eq!(of(libc::SYS_kill, [7, 9, 0]), Target::Process(7));
        assert_eq!(of(libc::SYS_kill, [-7, 9, 0]), Target::Group(7));
        assert_eq!(of(libc::SYS_kill, [-1, 9, 0]), Target::All);
        assert_eq!(of(libc::SYS_kill, [7, 0, 0]), Target::Own);
        assert_eq!(of(libc::SYS_ptrace, [16, 7, 0]), Target::Process(7));
        assert_eq!(of(libc::SYS_fcntl, [3, 8, -7]), Target::Group(7));
        assert_eq!(of(libc::SYS_prlimit64, [7, 0, 4096]), Target::Process(7));
        assert_eq!(of(libc::SYS_prlimit64, [7, 0, 0]), Target::Own);
        assert_eq!(of(libc::SYS_read, [0, 0, 0]), Target::All);
    }

    #[test]
    fn a_process_that_was_not_started_by_the_worker_is_refused() {
        let (questions, _) = std::io::pipe().unwrap();
        let me = rustix::process::getpid();
        let guard = Guard::new(questions.into(), me);
        assert!(!guard.allows(Target::Process(me.as_raw_nonzero().get())), "the worker's parent itself");
        assert!(!guard.allows(Target::Process(1)) && !guard.allows(Target::All));
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(guard.allows(Target::Process(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(guard.allows(Target::Process(pid)), "nothing is there");
    }
}
