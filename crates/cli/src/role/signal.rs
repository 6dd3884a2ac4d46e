//! The signals that end a role: SIGINT, SIGTERM, and SIGHUP, which is sent when a terminal closes.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Who tells a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A person, with Ctrl-C.
    Interrupt,
    /// A supervisor, or a closed terminal.
    Other,
}

/// The signals that tell a process to end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if the process was started to outlive its terminal, as with `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on the signals no longer kill the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")));
        let hangup = if ignores_hangup() { None } else { Some(listen(SignalKind::hangup())?) };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, hangup })
    }

    /// Resolves at the next signal.
    pub(super) async fn next(&mut self) -> By {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => By::Interrupt,
            _ = self.terminate.recv() => By::Other,
            _ = hangup => By::Other,
        }
    }
}

/// Whether this process was started with SIGHUP ignored; a handler would undo that.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
