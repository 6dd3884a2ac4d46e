//! Commands in a process group of their own.
#![allow(unsafe_code, reason = "what a process must do to itself before it becomes another program has no safe form")]

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Starts a command in a process group of its own, which Ctrl-C at a terminal does not reach. It gets SIGTERM when the calling
/// thread ends.
pub(crate) fn start_in_group(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    // SAFETY: between fork and exec it makes one system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_command_in_its_group_ends_with_the_thread_that_started_it() {
        let began = Instant::now();
        let started = thread::spawn(|| start_in_group(Command::new("sleep").arg("60")).unwrap());
        let status = started.join().unwrap().wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
}
