//! Starts the process of a worker.
//!
//! The process gets its own session, so that it and its children can be ended together; a minimal environment; a memory
//! limit; and a death signal from the kernel when the thread that started it ends for any reason.
#![allow(unsafe_code, reason = "what a process must do to itself before it becomes another program has no safe form")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags},
    io::FdFlags,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process_group, pidfd_open,
        set_child_subreaper, set_parent_process_death_signal, setrlimit, setsid,
    },
};

use super::entry::Entry;
use crate::{machine::shared::Area, runtime::own};

const SCRIPT: &str = "import sys; \
    sys.version_info < (3, 9) and sys.exit('models want Python 3.9 or newer, and this is ' + sys.version.split()[0]); \
    sys.path[:1] == [''] and sys.path.pop(0); sys.path.insert(0, sys.argv[1]); from modelway._worker import main; \
    main(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])";

/// How a worker is started.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) interpreter: PathBuf,
    /// The folder with the package.
    pub(super) package: PathBuf,
    pub(super) entry: Entry,
    /// Its environment.
    pub(super) variables: BTreeMap<String, OsString>,
    /// Its memory limit, in bytes.
    pub(super) memory: u64,
}

/// The process of a worker: its keeper, whose child runs the model.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) pid: Pid,
    /// Readable once it and all that it has started have ended.
    pub(super) pidfd: OwnedFd,
    pub(super) socket: Arc<OwnedFd>,
    /// Where it counts, until somebody else takes that.
    pub(super) counts: Option<Area>,
}

impl Process {
    /// Starts one; its standard output and error come out of the two descriptors. It ends with the calling thread at
    /// the latest.
    pub(super) fn start(plan: &Plan) -> io::Result<(Self, OwnedFd, OwnedFd)> {
        let counts = Area::new(own::AREA)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(&plan.interpreter);
        // Without this user's own packages; standard output is unbuffered, so that the log is in order.
        command.args(["-s", "-u"]);
        if !plan.variables.contains_key("PYTHONUTF8") {
            command.args(["-X", "utf8"]);
        }
        command.args(["-c", SCRIPT]);
        command.arg(&plan.package).arg(theirs.as_raw_fd().to_string());
        command.arg(counts.descriptor().as_raw_fd().to_string());
        command.arg(plan.entry.kind.name()).arg(&plan.entry.path);
        command.env_clear().envs(&plan.variables);
        if let Some(folder) = plan.entry.folder() {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (server, memory) = (getpid(), plan.memory);
        let shared = counts.descriptor().as_raw_fd();
        // SAFETY: between fork and exec it only makes system calls, which allocate nothing and take no lock.
        unsafe {
            command.pre_exec(move || prepare(server, memory, &theirs, shared));
        }
        let mut child = command.spawn()?;
        // It holds their end of the socket.
        drop(command);
        let pid = Pid::from_child(&child);
        let pipes = child.stdout.take().zip(child.stderr.take());
        let attached = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(|pidfd| {
            let (stdout, stderr) = pipes.ok_or_else(|| io::Error::other("a process without pipes"))?;
            let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
            for pipe in [&stdout, &stderr] {
                rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)?;
            }
            Ok((pidfd, stdout, stderr))
        });
        let (pidfd, stdout, stderr) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                end_group(pid);
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok((Self { child, pid, pidfd, socket: Arc::new(ours), counts: Some(counts) }, stdout, stderr))
    }
}

/// In the new process, before it executes Python.
fn prepare(server: Pid, memory: u64, socket: &OwnedFd, counts: RawFd) -> io::Result<()> {
    setsid()?;
    // The new process becomes the keeper of the worker, which ends the worker and its descendants first.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    set_child_subreaper(Some(getpid()))?;
    if getppid() != Some(server) {
        // The server ended before the death signal was set.
        return Err(rustix::io::Errno::SRCH.into());
    }
    for (resource, most) in [(Resource::Data, memory), (Resource::Core, 0)] {
        // A crash must not fill the disk with a core dump, and nobody may raise an existing limit.
        let most = Some(getrlimit(resource).maximum.map_or(most, |before| before.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    // If memory runs out, the kernel should kill a worker before the server. It may refuse this setting.
    let _ = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())
        .and_then(|file| rustix::io::write(&file, b"1000"));
    rustix::io::fcntl_setfd(socket, FdFlags::empty())?;
    // SAFETY: the server keeps it open until the process exists.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(counts) }, FdFlags::empty())?;
    Ok(())
}

/// Ends a worker's keeper and what is left in its group.
pub(super) fn end_group(leader: Pid) {
    // They may have ended already.
    let _ = kill_process_group(leader, Signal::KILL);
}
