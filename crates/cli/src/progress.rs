//! Shows progress on standard error: a spinner on a terminal, otherwise a line for each change.

use std::{io::IsTerminal as _, time::Duration};

use base::visible;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::tell;

/// Shows the newest message. Disappears when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// Shows a message. A repeated message is not shown again.
    pub fn say(&mut self, message: impl Into<String>) {
        let message = visible::line(&message.into()).into_owned();
        if message == self.last {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(message.clone()),
            None => tell(&message),
        }
        self.last = message;
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
