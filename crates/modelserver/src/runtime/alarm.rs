//! Ends runs that the server makes by itself, without a caller who would stop waiting: a model may loop for ever on
//! made-up inputs, and must not keep the server from being ready.

use std::{
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use crate::runtime::Cancel;

/// Cancels after a while, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Alarm {
    pub(crate) cancel: Cancel,
    _still_wanted: SyncSender<()>,
}

impl Alarm {
    /// One that goes off after `time`.
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
