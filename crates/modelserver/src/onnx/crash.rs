//! Which model was running when a crash in native code ended the server: a line in a file, for the next start to read.
//!
//! A crash cannot be survived, and afterwards nobody knows whose it was. So each run says beforehand, in memory that a
//! signal's handler may read, which model it is of. The handler writes that down and lets the crash go on.
//!
//! **Invariant:** the handler allocates nothing, takes no lock, and ends nothing that would not end anyway.
#![allow(unsafe_code, reason = "a signal's handler has no safe form; it and its installation are only here")]

use std::{
    cell::Cell,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt},
        fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
};

use sha2::{Digest as _, Sha256};

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
/// Models that can be told from one another while they run. The crash of a further one is nobody's.
const MOST: usize = 16_384;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let mut text = Vec::new();
    File::open(folder.join(FILE)).ok()?.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let key = key.text();
    let signal = text.lines().find_map(|line| line.strip_prefix(&key)?.trim().parse().ok())?;
    Some(name(signal))
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

/// One loaded model, as the handler sees it.
struct Place {
    /// The thread that runs it; 0 while none does.
    thread: AtomicI32,
    key: [AtomicU64; 2],
    /// Threads of the runtime's own take part in its runs.
    pooled: AtomicBool,
}

static PLACES: [Place; MOST] = [const {
    Place { thread: AtomicI32::new(0), key: [const { AtomicU64::new(0) }; 2], pooled: AtomicBool::new(false) }
}; MOST];
/// Places that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Where the handler writes.
struct Notes {
    /// The folders above the file, the outermost first.
    folders: Vec<CString>,
    file: CString,
}

static NOTES: OnceLock<Notes> = OnceLock::new();
/// What was done about each signal before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// A loaded model's place. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Marker(Option<usize>);

impl Marker {
    /// For a model of this key; `pooled` says whether other threads take part in its runs.
    pub(super) fn new(key: Key, pooled: bool) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = free.or_else(|| {
            let next = |used: usize| (used < MOST).then_some(used + 1);
            USED.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()
        });
        if let Some(place) = place.map(|place| &PLACES[place]) {
            place.pooled.store(pooled, Ordering::Relaxed);
            place.key.iter().zip(key.0).for_each(|(part, key)| part.store(key, Ordering::Release));
        }
        Self(place)
    }

    /// Runs `work`; a crash in it is this model's.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(place) = self.0.map(|place| &PLACES[place]) else { return work() };
        place.thread.store(this_thread(), Ordering::Release);
        let _over = Over(place);
        work()
    }
}

/// Ends a run, also when it panics.
struct Over(&'static Place);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::Release);
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        }
    }
}

/// This thread's number in the system, asked for once.
fn this_thread() -> i32 {
    thread_local! {
        static NUMBER: Cell<i32> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(rustix::thread::gettid().as_raw_nonzero().get());
    }
    NUMBER.get()
}

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
    if code != libc::SI_USER && code != libc::SI_QUEUE {
        // SAFETY: asks for a number, nothing else.
        let this = i32::try_from(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap_or(0);
        let running = || PLACES.iter().take(USED.load(Ordering::Acquire));
        let mut noted = false;
        if let Some(place) = running().find(|place| place.thread.load(Ordering::Acquire) == this) {
            noted = note(place, signal);
        } else {
            let others =
                |place: &&Place| place.thread.load(Ordering::Acquire) != 0 && place.pooled.load(Ordering::Relaxed);
            running().filter(others).for_each(|place| noted |= note(place, signal));
        }
        if noted {
            again();
        }
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
fn note(place: &Place, signal: i32) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [b' '; 37];
    for (half, part) in place.key.iter().enumerate() {
        let part = part.load(Ordering::Acquire);
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

/// Set where a crash that was noted starts this program again.
static AGAIN: OnceLock<[Pointers; 2]> = OnceLock::new();

/// Texts as `execve` wants them, which stay for as long as the process.
struct Pointers(&'static [*const libc::c_char]);

// SAFETY: nothing writes the texts.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn of(texts: impl Iterator<Item = Vec<u8>>) -> Self {
        let texts = texts.filter_map(|text| CString::new(text).ok());
        let pointers = texts.map(|text| text.into_raw().cast_const()).chain([std::ptr::null()]);
        Self(Box::leak(pointers.collect::<Box<[_]>>()))
    }
}

/// From now on a crash whose model was noted starts this program again, in the same process, for whom nobody else would.
/// Each start reads the notes, so that one model does it once.
pub fn start_again_after_crashes() {
    AGAIN.get_or_init(|| {
        let words = std::env::args_os().map(OsStringExt::into_vec);
        #[allow(clippy::disallowed_methods, reason = "they are handed on, not read")]
        let variables = std::env::vars_os().map(|(name, value)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            text
        });
        [Pointers::of(words), Pointers::of(variables)]
    });
}

/// Returns if that is not wanted or fails.
fn again() {
    let Some([words, variables]) = AGAIN.get() else { return };
    // SAFETY: a handler may call these, and the texts stay. The signal that is being handled would stay blocked.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(c"/proc/self/exe".as_ptr(), words.0.as_ptr(), variables.0.as_ptr());
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

    #[test]
    fn a_crash_makes_the_file_and_names_the_model_that_was_running() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("not/there");
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "onnx::crash::tests::end_this_process"])
            .env(FOLDER, &folder)
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(libc::SIGABRT), "{child:?}");
        assert_eq!(of_model(&folder, Key([1, 2])).as_deref(), Some("SIGABRT"));
        assert_eq!(of_model(&folder, Key([1, 3])), None);
    }

    #[test]
    #[ignore = "it is the other process of the test above"]
    fn end_this_process() {
        watch(Path::new(&base::config::variable(FOLDER).unwrap()));
        let (_other, running) = (Marker::new(Key([1, 3]), false), Marker::new(Key([1, 2]), false));
        running.during(|| std::process::abort());
    }

    #[test]
    fn places_are_used_again() {
        let key = Key([1, 2]);
        let first = Marker::new(key, false);
        let place = first.0;
        assert_eq!(first.during(|| PLACES[place.unwrap()].thread.load(Ordering::Acquire)), this_thread());
        assert_eq!(PLACES[place.unwrap()].thread.load(Ordering::Acquire), 0);
        // Other tests take places meanwhile, but not as many as there are.
        drop(first);
        for _ in 0..2 * MOST {
            assert!(Marker::new(key, false).0.is_some());
        }
    }
}
