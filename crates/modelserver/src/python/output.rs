//! Copies a worker's standard output and error to the log, line by line.
//!
//! **Invariant:** whatever a model writes, and for however long, it uses no more memory than a few lines, no more of
//! the log than [`LINES_A_SECOND`], and nothing of it reaches the protocol. The log reports the number of dropped lines
//! at most [`NOTE_AFTER`] later, even if the model writes nothing more.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;

/// Maximum length of a logged line.
const LONGEST_LINE: usize = 2 << 10;
/// How many lines are kept for the error if the worker dies.
const KEPT: usize = 24;
/// How many lines are logged at once, and then in each second.
const BURST: u32 = 200;
const LINES_A_SECOND: u32 = 20;
/// How long after the first dropped line the log reports their number.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// Bytes that are read in one go.
const CHUNK: usize = 64 << 10;

/// One of a worker's two streams.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) pipe: OwnedFd,
    name: &'static str,
    line: Vec<u8>,
    /// The last lines.
    kept: VecDeque<String>,
    allowance: u32,
    refilled: Instant,
    left_out: u64,
    /// When to log the number of dropped lines.
    note_at: Option<Instant>,
    pub(super) ended: bool,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd, name: &'static str) -> Self {
        Self {
            pipe,
            name,
            line: Vec::new(),
            kept: VecDeque::new(),
            allowance: BURST,
            refilled: Instant::now(),
            left_out: 0,
            note_at: None,
            ended: false,
        }
    }

    /// Reads the available data, a bounded part of it, without waiting.
    pub(super) fn take(&mut self, model: &str) {
        let mut chunk = vec![0; CHUNK];
        match rustix::io::read(&self.pipe, &mut chunk[..]) {
            Ok(0) => {
                self.ended = true;
                if !self.line.is_empty() {
                    self.finish_line(model);
                }
                self.note(model);
            }
            Ok(size) => {
                let mut lines = chunk[..size].split(|byte| *byte == b'\n');
                // The last part is the beginning of a line, or nothing.
                let rest = lines.next_back().unwrap_or_default();
                for part in lines {
                    self.add(part);
                    self.finish_line(model);
                }
                self.add(rest);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.ended = true,
        }
        if self.note_at.is_some_and(|at| at <= Instant::now()) {
            self.note(model);
        }
    }

    /// When [`Self::take`] must be called although nothing may have been written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.note_at
    }

    fn note(&mut self, model: &str) {
        self.note_at = None;
        if self.left_out > 0 {
            tracing::warn!(model, stream = self.name, lines = self.left_out, "the model writes too much: left out");
            self.left_out = 0;
        }
    }

    fn add(&mut self, part: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn finish_line(&mut self, model: &str) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        if self.may_log() {
            self.note(model);
            tracing::info!(model, stream = self.name, "{line}");
        } else {
            self.left_out += 1;
            self.note_at.get_or_insert_with(|| Instant::now() + NOTE_AFTER);
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    fn may_log(&mut self) -> bool {
        if self.allowance == 0 {
            let seconds = u32::try_from(self.refilled.elapsed().as_secs()).unwrap_or(BURST);
            if seconds > 0 {
                self.refilled = Instant::now();
                self.allowance = seconds.saturating_mul(LINES_A_SECOND).min(BURST);
            }
        }
        let may = self.allowance > 0;
        self.allowance = self.allowance.saturating_sub(1);
        may
    }

    /// The last lines, each on its own.
    pub(super) fn last_lines(&self) -> String {
        self.kept.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn garbage_without_end_takes_bounded_memory_and_bounded_log() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut output = Output::new(reader.into(), "stdout");
        for round in 0..200 {
            writer.write_all(&[0xFF; 50_000]).unwrap();
            output.take("m");
            if round % 10 == 0 {
                writer.write_all(b"\nshort\n").unwrap();
                output.take("m");
            }
        }
        assert!(output.line.len() <= LONGEST_LINE && output.kept.len() <= KEPT);
        for line in 0..1000 {
            writeln!(writer, "line {line}").unwrap();
        }
        output.take("m");
        assert!(output.left_out > 0);
        let due = output.due().expect("the log is to say that lines were left out");
        while Instant::now() < due {
            std::thread::yield_now();
        }
        output.take("m");
        assert_eq!((output.left_out, output.due()), (0, None), "it is said although no line came");
        assert!(output.last_lines().ends_with("line 998\nline 999"), "{}", output.last_lines());
        drop(writer);
        output.take("m");
        assert!(output.ended);
    }
}
