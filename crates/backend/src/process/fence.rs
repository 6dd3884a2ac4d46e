//! The highest fence of each epoch, in the lock file of a deployment.
//!
//! A line contains twenty digits, a space and the epoch. A number overwrites the previous one with the same length, so
//! that a crash cannot leave half a number, and a full disk does not matter. The first line of a file of version 0.1.0
//! contains only a number: the fence of an unknown database, which is no longer used.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use api::Fence;

use super::failure::unavailable;
use crate::BackendError;

/// The number of an epoch that is over; no fence is higher.
const CLOSED: i64 = i64::MAX;

/// The number of one epoch, and its position in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: usize,
    number: i64,
}

fn find(text: &str, epoch: &str) -> Option<Entry> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let found = line.strip_suffix('\n').and_then(|line| line.split_once(' ')).filter(|(_, of)| *of == epoch);
        if let Some(number) = found.and_then(|(number, _)| number.parse().ok()) {
            return Some(Entry { at, number });
        }
        at += line.len();
    }
    None
}

/// Refuses a fence that is older than the highest one seen of its epoch. Otherwise stores it, and closes the former
/// epochs of its own.
pub(super) fn admit(file: &mut File, fence: &Fence) -> Result<(), BackendError> {
    let text = read(file).map_err(unavailable)?;
    let known = find(&text, &fence.epoch.0);
    if let Some(Entry { number: newest, .. }) = known
        && fence.number < newest
    {
        return Err(BackendError::Fenced { given: fence.number, newest });
    }
    match known {
        Some(entry) if entry.number == fence.number => {}
        Some(entry) => write_at(file, entry.at, &digits(fence.number)).map_err(unavailable)?,
        None => {
            // A crash may have truncated the last line.
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            let line = format!("{end}{} {}\n", digits(fence.number), fence.epoch.0);
            write_at(file, text.len(), &line).map_err(unavailable)?;
        }
    }
    for former in fence.former.iter().filter_map(|former| find(&text, &former.0)) {
        if former.number != CLOSED {
            write_at(file, former.at, &digits(CLOSED)).map_err(unavailable)?;
        }
    }
    Ok(())
}

fn digits(number: i64) -> String {
    format!("{number:020}")
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    // Invalid UTF-8 is not part of a known line; its length must not change.
    Ok(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect())
}

fn write_at(file: &mut File, at: usize, text: &str) -> io::Result<()> {
    file.seek(SeekFrom::Start(at as u64))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use api::Epoch;

    use super::*;

    fn fence(epoch: &str, number: i64) -> Fence {
        Fence { epoch: Epoch(epoch.to_owned()), former: Vec::new(), number }
    }

    #[test]
    fn a_fence_is_remembered_and_an_older_one_of_its_epoch_is_refused() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut admit = |epoch, number| admit(&mut file, &fence(epoch, number));
        assert!(admit("a", 5).is_ok());
        assert!(admit("a", 5).is_ok());
        assert!(matches!(admit("a", 4), Err(BackendError::Fenced { given: 4, newest: 5 })));
        assert!(admit("b", 1).is_ok(), "another database counts by itself");
        assert!(admit("a", 123_456).is_ok());
        assert!(matches!(admit("a", 5), Err(BackendError::Fenced { given: 5, newest: 123_456 })));
        assert!(matches!(admit("b", 0), Err(BackendError::Fenced { given: 0, newest: 1 })));
    }

    #[test]
    fn an_epoch_that_another_continues_is_over() {
        let mut file = tempfile::tempfile().expect("a file");
        admit(&mut file, &fence("a", 900)).expect("it is new");
        let later = Fence { former: vec![Epoch("a".to_owned()), Epoch("never seen".to_owned())], ..fence("b", 1) };
        admit(&mut file, &later).expect("it is new");
        assert!(matches!(admit(&mut file, &fence("a", 901)), Err(BackendError::Fenced { given: 901, newest: CLOSED })));
        admit(&mut file, &later).expect("it goes on");
    }

    #[test]
    fn the_number_of_0_1_0_and_half_a_line_bind_nobody() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"09223372036854775807\n00000000000000").expect("it is written");
        admit(&mut file, &fence("a", 1)).expect("nobody is before it");
        assert!(matches!(admit(&mut file, &fence("a", 0)), Err(BackendError::Fenced { given: 0, newest: 1 })));
    }
}
