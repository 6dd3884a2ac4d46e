//! Which model was running when a crash in native code ended the server: a line in a file, for the next start to read.
//!
//! A crash cannot be survived, and afterwards nobody knows whose it was. So each thread that runs a model says beforehand
//! which model it is, in its own memory: the threads of the server during a run, and those of the runtime for as long as
//! they live. The handler, which is called on the thread that crashed, writes that down and lets the crash go on. A crash
//! on any other thread is no model's.
//!
//! **Invariant:** the handler allocates nothing, takes no lock, and ends nothing that would not end anyway.
#![allow(unsafe_code, reason = "a signal's handler has no safe form; it and its installation are only here")]

mod again;

use std::{
    cell::Cell,
    collections::HashMap,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{Ordering, compiler_fence},
    },
    thread::{self, JoinHandle},
};

use ort::environment::ThreadManager;
use sha2::{Digest as _, Sha256};

pub use again::start_again_after_crashes;

/// The signals of crashes.
const SIGNALS: [(i32, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
];
/// The file of the lines, and how much of it is read.
const FILE: &str = "crashes";
const MOST_BYTES: u64 = 1 << 20;
/// How much of a large file's beginning and end tells it from others, and of each of some places between.
const PART: u64 = 64 << 10;
const SAMPLES: u64 = 16;
const SAMPLE: u64 = 4 << 10;

/// A signal by its name.
pub(super) fn name(signal: i32) -> String {
    let known = SIGNALS.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// Whether a signal is one of a crash.
pub(super) fn is_crash(signal: i32) -> bool {
    SIGNALS.iter().any(|(number, _)| *number == signal)
}

/// Tells a model's files and the runtime's build from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// Of a model's file, and the files of its weights.
    pub(super) fn of(model: &Path, weights: &[PathBuf]) -> io::Result<Self> {
        Self::of_files(ort::info(), model, weights)
    }

    fn of_files(build: &str, model: &Path, weights: &[PathBuf]) -> io::Result<Self> {
        let mut hash = Sha256::new();
        hash.update(build);
        add(&mut hash, model)?;
        for name in weights {
            hash.update(name.as_os_str().as_bytes());
            add(&mut hash, &model.with_file_name(name))?;
        }
        let hash = hash.finalize();
        let half = |from: usize| hash[from..from + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self([half(0), half(8)]))
    }

    /// In letters.
    pub(super) fn text(self) -> String {
        format!("{:016x}{:016x}", self.0[0], self.0[1])
    }
}

/// Adds a file to a hash: its length, and what is in it. Of a large one some parts are read: training anew changes them
/// all.
fn add(hash: &mut Sha256, file: &Path) -> io::Result<()> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    let mut part = Vec::new();
    let mut add = |from: u64, most: u64| {
        part.clear();
        file.seek(SeekFrom::Start(from))?;
        (&file).take(most).read_to_end(&mut part)?;
        hash.update(&part);
        io::Result::Ok(())
    };
    add(0, PART)?;
    if length > PART {
        add(length.saturating_sub(PART).max(PART), PART)?;
        for sample in 1..SAMPLES {
            add(length / SAMPLES * sample, SAMPLE)?;
        }
    }
    Ok(())
}

/// The signal that a model ended a server with, if one has.
pub(super) fn of_model(folder: &Path, key: Key) -> Option<String> {
    Noted::read(&file(folder))?.get(&key).copied().map(name)
}

/// What stands in a file of crashes. It is read again only after it has changed: every model that is loaded asks for it.
struct Noted {
    file: PathBuf,
    /// The file's number, length and time of change.
    state: (u64, u64, i64, i64),
    signals: Arc<HashMap<Key, i32>>,
}

impl Noted {
    fn read(path: &Path) -> Option<Arc<HashMap<Key, i32>>> {
        static LAST: Mutex<Option<Noted>> = Mutex::new(None);
        let file = File::open(path).ok()?;
        let found = file.metadata().ok()?;
        let state = (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.file == path && last.state == state) {
            return Some(Arc::clone(&last.signals));
        }
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
        let signals = Arc::new(String::from_utf8_lossy(&text).lines().filter_map(line).collect());
        *last = Some(Self { file: path.to_owned(), state, signals: Arc::clone(&signals) });
        Some(signals)
    }
}

/// The key and the signal of one line.
fn line(line: &str) -> Option<(Key, i32)> {
    let (key, signal) = line.split_once(' ')?;
    let half = |half: &str| u64::from_str_radix(half, 16).ok();
    let key = Key([half(key.get(..16)?)?, half(key.get(16..)?)?]);
    Some((key, signal.trim().parse().ok()?))
}

/// Notes that a model has ended a process of its own with a signal. If it cannot be noted, it is found out again.
pub(super) fn remember(folder: &Path, key: Key, signal: i32) {
    let line = format!("{} {signal:02} \n", key.text());
    let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(file(folder));
    let written = fs::create_dir_all(folder).and_then(|()| open()?.write_all(line.as_bytes()));
    if let Err(error) = written {
        tracing::warn!(%error, "{}: a crash cannot be noted there", file(folder).display());
    }
}

/// The file that a person deletes to have every model in the server again.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

thread_local! {
    /// Whose run a crash of this thread would be. It has nothing to be made or dropped, so that a handler may read it.
    static RUNNING: Cell<Option<Key>> = const { Cell::new(None) };
}

/// Runs `work`; a crash in it is this model's.
pub(super) fn during<T>(key: Key, work: impl FnOnce() -> T) -> T {
    let _over = Over(RUNNING.replace(Some(key)));
    // A handler reads what was written before, though no code here does.
    compiler_fence(Ordering::SeqCst);
    work()
}

/// Ends a run, also when it panics.
struct Over(Option<Key>);

impl Drop for Over {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        RUNNING.set(self.0);
    }
}

/// Starts the runtime's own threads for a model, which take part in its runs alone.
pub(super) struct Threads(pub(super) Key);

impl ThreadManager for Threads {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        let key = self.0;
        let named = thread::Builder::new().name("onnx".to_owned());
        named.spawn(move || during(key, work)).map_err(|error| ort::Error::new(error.to_string()))
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of the runtime panicked"))
    }
}

/// Where the handler writes.
struct Notes {
    /// The folders above the file, the outermost first.
    folders: Vec<CString>,
    file: CString,
}

static NOTES: OnceLock<Notes> = OnceLock::new();
/// What was done about each signal before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Sets the handlers, the first time. The file and its folder are made by the first crash: a server that works leaves
/// nothing behind.
pub(super) fn watch(folder: &Path) {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
    NOTES.get_or_init(|| {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let mut folders: Vec<_> = folder.ancestors().filter_map(text).collect();
        folders.reverse();
        install();
        Notes { folders, file: text(&file(&folder)).unwrap_or_default() }
    });
}

fn install() {
    // SAFETY: a `sigaction` of zeros is one that does nothing.
    let nothing = || unsafe { std::mem::zeroed::<libc::sigaction>() };
    let mut before = [(); SIGNALS.len()].map(|()| nothing());
    for ((signal, _), before) in SIGNALS.iter().zip(&mut before) {
        // SAFETY: the place for the old action is alive during the call.
        unsafe { libc::sigaction(*signal, std::ptr::null(), before) };
    }
    if BEFORE.set(before).is_err() {
        return;
    }
    for (signal, _) in SIGNALS {
        let mut action = nothing();
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = crashed;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the form that the flags promise, and does only what a handler may do.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// The handler: writes down whose run it was, and lets the signal do what it would have done without it.
extern "C" fn crashed(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid description.
    let code = unsafe { (*info).si_code };
    // Not if somebody sent it.
    let was_sent = code == libc::SI_USER || code == libc::SI_QUEUE;
    if !was_sent && RUNNING.get().is_some_and(|key| note(key, signal)) {
        again::again();
    }
    let place = SIGNALS.iter().position(|(known, _)| *known == signal);
    if let Some(before) = place.zip(BEFORE.get()).and_then(|(place, before)| before.get(place)) {
        // SAFETY: it was the action before. A fault happens again on return and meets it; what was sent is sent again.
        unsafe {
            libc::sigaction(signal, before, std::ptr::null_mut());
            if code <= 0 {
                libc::raise(signal);
            }
        }
    }
}

/// One line: the key, a space, the signal's number. Returns whether the next start will read it.
fn note(key: Key, signal: i32) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [b' '; 37];
    for (half, part) in key.0.into_iter().enumerate() {
        for digit in 0..16usize {
            let shift = 60 - 4 * digit;
            line[16 * half + digit] = DIGITS[usize::try_from(part >> shift & 15).unwrap_or(0)];
        }
    }
    line[33] = DIGITS[usize::try_from(signal / 10 % 10).unwrap_or(0)];
    line[34] = DIGITS[usize::try_from(signal % 10).unwrap_or(0)];
    line[36] = b'\n';
    let Some(notes) = NOTES.get() else { return false };
    // SAFETY: a handler may call these five, and the texts and bytes are alive meanwhile. Folders that are there already
    // are an error that changes nothing. If the line cannot be written, there is nobody to tell.
    unsafe {
        for folder in &notes.folders {
            libc::mkdir(folder.as_ptr(), 0o700);
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        let file = libc::open(notes.file.as_ptr(), flags, 0o600);
        if file < 0 {
            return false;
        }
        let before = libc::lseek(file, 0, libc::SEEK_END);
        let written = libc::write(file, line.as_ptr().cast(), line.len());
        libc::close(file);
        let fits = u64::try_from(before).is_ok_and(|before| before + line.len() as u64 <= MOST_BYTES);
        fits && usize::try_from(written) == Ok(line.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_whole_file_and_a_line_of_it_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        let key = |bytes: &[u8]| {
            fs::write(&model, bytes).unwrap();
            Key::of_files("a build", &model, &[]).unwrap()
        };
        let (one, other) = (key(b"one"), key(b"other"));
        assert_ne!(one, other);
        assert_ne!(other, Key::of_files("another build", &model, &[]).unwrap());
        assert_eq!(of_model(folder.path(), one), None);
        fs::write(file(folder.path()), format!("{} 11 \n{} 06 \n", one.text(), other.text())).unwrap();
        assert_eq!(of_model(folder.path(), one).as_deref(), Some("SIGSEGV"));
        assert_eq!(of_model(folder.path(), other).as_deref(), Some("SIGABRT"));
    }

    #[test]
    fn a_key_changes_with_the_files_of_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        fs::write(&model, "the graph").unwrap();
        let names = [PathBuf::from("model.onnx.data")];
        let key = |weights: &[u8]| {
            fs::write(folder.path().join(&names[0]), weights).unwrap();
            Key::of_files("a build", &model, &names).unwrap()
        };
        let (some, others) = (key(&[1; 100_000]), key(&[2; 100_000]));
        assert_ne!(some, others);
        assert_eq!(some, key(&[1; 100_000]));
        assert_ne!(some, key(&[1; 100_001]));
        assert_ne!(some, Key::of_files("a build", &model, &[]).unwrap());
        fs::remove_file(folder.path().join(&names[0])).unwrap();
        assert!(Key::of_files("a build", &model, &names).is_err());
    }

    const FOLDER: &str = "MODELWAY_TEST_CRASH_FOLDER";
    const WHERE: &str = "MODELWAY_TEST_CRASH_WHERE";

    /// Ends another process on a thread of this kind; the keys that are noted for it.
    fn noted_of_crash(on: &str) -> Vec<Key> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("not/there");
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "onnx::crash::tests::end_this_process"])
            .env(FOLDER, &folder)
            .env(WHERE, on)
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(libc::SIGABRT), "{child:?}");
        Noted::read(&file(&folder)).map(|noted| noted.keys().copied().collect()).unwrap_or_default()
    }

    #[test]
    fn a_crash_makes_the_file_and_names_the_model_that_its_thread_was_running() {
        assert_eq!(noted_of_crash("a run"), [Key([1, 2])]);
        assert_eq!(noted_of_crash("a thread of the runtime"), [Key([1, 2])]);
    }

    #[test]
    fn a_crash_outside_of_all_runs_is_no_models() {
        assert_eq!(noted_of_crash("another thread"), []);
        assert_eq!(noted_of_crash("a thread after its run"), []);
    }

    #[test]
    #[ignore = "it is the other process of the tests above"]
    fn end_this_process() {
        watch(Path::new(&base::config::variable(FOLDER).unwrap()));
        let (of_others, runs) = std::sync::mpsc::sync_channel(1);
        // Another model has threads of the runtime, and is running.
        let other = Threads(Key([1, 3])).create(move || of_others.send(()).map(|()| thread::park()).unwrap());
        runs.recv().unwrap();
        match base::config::variable(WHERE).unwrap().as_str() {
            "a run" => during(Key([1, 2]), || std::process::abort()),
            "a thread of the runtime" => {
                Threads::join(Threads(Key([1, 2])).create(|| std::process::abort()).unwrap()).unwrap()
            }
            "a thread after its run" => during(Key([1, 2]), || ()),
            _ => {}
        }
        drop(other);
        std::process::abort();
    }

    #[test]
    fn what_was_noted_since_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let keys = [Key([1, 2]), Key([u64::MAX, 3])];
        for (place, key) in keys.into_iter().enumerate() {
            assert_eq!(of_model(folder.path(), key), None);
            remember(folder.path(), key, libc::SIGFPE);
            for known in &keys[..=place] {
                assert_eq!(of_model(folder.path(), *known).as_deref(), Some("SIGFPE"));
            }
        }
        fs::remove_file(file(folder.path())).unwrap();
        assert_eq!(of_model(folder.path(), keys[0]), None);
        fs::write(file(folder.path()), "no line\n0123456789abcdeg0123456789abcdef 11 \n").unwrap();
        assert_eq!(of_model(folder.path(), keys[0]), None);
    }
}
