//! How this program is started again after a crash, in the same process.

use std::{ffi::CString, os::unix::ffi::OsStringExt, sync::OnceLock, thread};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Resource, Rlimit, WaitOptions, getpid, getrlimit, waitpid},
};

use crate::machine::tree;

/// Set where a crash that was noted starts this program again.
static AGAIN: OnceLock<Start> = OnceLock::new();

/// How this program was started.
struct Start {
    words: Pointers,
    variables: Pointers,
    /// What it was allowed to allocate, before it bounded itself (`RLIMIT_DATA`).
    memory: libc::rlimit,
}

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
/// Each start reads the notes, so that one model does it once. To be called before this process starts another.
pub fn start_again_after_crashes() {
    AGAIN.get_or_init(|| {
        wait_for_former_children();
        let words = std::env::args_os().map(OsStringExt::into_vec);
        #[allow(clippy::disallowed_methods, reason = "they are handed on, not read")]
        let variables = std::env::vars_os().map(|(name, value)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            text
        });
        let Rlimit { current, maximum } = getrlimit(Resource::Data);
        let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
        let memory = libc::rlimit { rlim_cur: number(current), rlim_max: number(maximum) };
        Start { words: Pointers::of(words), variables: Pointers::of(variables), memory }
    });
}

/// Where this program was started again, its process has children that it does not know. They end by themselves, because
/// their connections to it are closed, and stay as zombies until somebody waits for them.
fn wait_for_former_children() {
    let former = tree::children(getpid().as_raw_nonzero().get());
    if former.is_empty() {
        return;
    }
    let wait = move || {
        for pid in former.into_iter().filter_map(Pid::from_raw) {
            // Whoever is gone already needs nobody.
            let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        }
    };
    // Without a thread they stay as they are.
    let _ = thread::Builder::new().name("former children".to_owned()).spawn(wait);
}

/// Returns if that is not wanted or fails.
pub(super) fn again() {
    let Some(Start { words, variables, memory }) = AGAIN.get() else { return };
    // SAFETY: a handler may call these, and the texts stay. The signal that is being handled would stay blocked.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::setrlimit(libc::RLIMIT_DATA, memory);
        libc::execve(c"/proc/self/exe".as_ptr(), words.0.as_ptr(), variables.0.as_ptr());
    }
}
