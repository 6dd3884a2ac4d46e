//! Ends runs that the server starts itself, without a client that would stop waiting: a model may loop forever on
//! generated inputs, and must not prevent the server from becoming ready.

use std::{
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use crate::runtime::Cancel;

/// Cancels after a delay, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Alarm {
    pub(crate) cancel: Cancel,
    _still_wanted: SyncSender<()>,
}

impl Alarm {
    /// An alarm that fires after `time`.
    pub(crate) fn after(time: Duration) -> std::io::Result<Self> {
        let cancel = Cancel::default();
        let (still_wanted, given_up) = mpsc::sync_channel::<()>(0);
        let to_cancel = cancel.clone();
        let wait = move || {
            if given_up.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                to_cancel.cancel();
            }
        };
        thread::Builder::new().name("alarm".to_owned()).stack_size(64 << 10).spawn(wait)?;
        Ok(Self { cancel, _still_wanted: still_wanted })
    }
}
