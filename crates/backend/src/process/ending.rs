//! Why a replica ended, in a text for the user.

use std::{fs, path::Path, time::Duration};

use api::{
    RevisionNumber,
    deployment::StatusError,
    replica::{EXIT_MODEL_INVALID, TerminationMessage},
    revision::FoundFiles,
};

use super::{
    cgroup,
    identity::Exit,
    log,
    slot::{LastFailure, Record, Run},
};

/// The file for the reason why a replica cannot serve.
pub(super) const TERMINATION_FILE: &str = "termination.json";
/// Maximum length of a valid message.
const TERMINATION_MAX_BYTES: u64 = 64 * 1024;
const LOG_LINES: usize = 20;

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It ended by itself.
    Exited(Exit),
    /// It was killed by the backend, because it had not answered for this time.
    Silent(Duration),
}

/// Describes an end, with all information in the slot.
pub(super) fn explain(slot: &Path, record: &Record, run: &Run, revision: RevisionNumber, end: End) -> LastFailure {
    let words = last_words(&slot.join(TERMINATION_FILE));
    let out_of_memory = cgroup::oom_kills(&record.groups) > run.oom_kills_before;
    let (code, message) = describe(end, words, out_of_memory.then_some(record.memory_limit.as_deref().unwrap_or("?")));
    let error = StatusError { code, message, revision, log: log::last_lines(slot, run.log_from, LOG_LINES) };
    LastFailure { error, permanent: is_permanent(end) }
}

/// The files that a process found, if it reported why it ended.
pub(super) fn files(slot: &Path) -> Option<FoundFiles> {
    last_words(&slot.join(TERMINATION_FILE))?.files
}

fn is_permanent(end: End) -> bool {
    matches!(end, End::Exited(Exit::Status(status)) if status == i32::from(EXIT_MODEL_INVALID))
}

fn describe(end: End, words: Option<TerminationMessage>, memory_limit: Option<&str>) -> (String, String) {
    if let Some(words) = words {
        return (words.code, words.message);
    }
    let how = match end {
        End::Silent(time) => format!("killed because it had not answered for {} s", time.as_secs()),
        End::Exited(Exit::Status(status)) => format!("exited with status {status}"),
        End::Exited(Exit::Signal(signal)) => format!("killed by signal {signal}{}", signal_name(signal)),
        End::Exited(Exit::Unknown) => {
            "ended while its worker was away, so that its exit status is not known".to_owned()
        }
    };
    match (memory_limit, end) {
        (Some(limit), _) => (
            "out_of_memory".to_owned(),
            format!("{how} (out of memory: the limit is {limit}); raise limit_res.memory or serve a smaller model"),
        ),
        (None, _) if is_permanent(end) => ("model_invalid".to_owned(), format!("{how}; its log says what to change")),
        (None, End::Silent(_)) => ("unresponsive".to_owned(), how),
        (None, End::Exited(_)) => ("crash_loop".to_owned(), how),
    }
}

fn last_words(path: &Path) -> Option<TerminationMessage> {
    if fs::metadata(path).ok()?.len() > TERMINATION_MAX_BYTES {
        return None;
    }
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(words) => Some(words),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a replica's last words cannot be read");
            None
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(end: Exit, memory_limit: Option<&str>) -> String {
        describe(End::Exited(end), None, memory_limit).1
    }

    #[test]
    fn an_end_is_told_as_a_person_would() {
        assert_eq!(says(Exit::Status(1), None), "exited with status 1");
        assert_eq!(says(Exit::Signal(11), None), "killed by signal 11 (SIGSEGV)");
        assert!(says(Exit::Signal(9), Some("512Mi")).contains("out of memory: the limit is 512Mi"));
        assert!(says(Exit::Unknown, None).contains("not known"));
    }

    #[test]
    fn a_replica_s_own_words_come_first() {
        let words =
            TerminationMessage { code: "golden_mismatch".into(), message: "output `p` differs".into(), files: None };
        let told = describe(End::Exited(Exit::Status(78)), Some(words), None);
        assert_eq!(told, ("golden_mismatch".to_owned(), "output `p` differs".to_owned()));
    }
}
