//! Inputs that may end the process, tried in a process of its own before the server runs them.
//!
//! Kernels are written for tensors with something in them, and for counts and steps that are more than nothing. Most
//! take what is unusual as they should; some read what is not there, divide by zero, or abort. So the first request
//! with unusual inputs of some form is run elsewhere, with its own values and with made-up ones of the same form. What
//! was found holds for the form: for each unusual input its name, how many dimensions it has and which of them are 0, or
//! for a single whole number whether it is 0 or less. A form is refused only if made-up values of the other inputs end the
//! process too: one request's values say nothing of another's.
//!
//! In some models a tensor inside may be empty though no input is. Of these, usual inputs are tried too, unless they are as
//! large as others that did no harm ([`sizes`]). After a request's own, smaller ones are tried, so that few are left.
//!
//! What was found is kept on disk, for the model's file and the runtime's build.
//!
//! Nothing is tried when a model is loaded but what its first runs need, so that no start takes longer.
//!
//! **Invariant:** trials run one at a time, at the lowest priority.

mod forms;
mod made_up;
mod sizes;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use inference::{Tensor, element_count};
use tokio::sync::oneshot;

use self::{
    forms::{Forms, Verdict, fatal, form, shown},
    made_up::Values,
    sizes::Harmless,
};
use super::apart::{Apart, Opened, Program, Unanswered};
use crate::{
    runtime::alarm::Alarm,
    runtime::{Call, Cancel, ModelRuntime as _, Purpose, RuntimeError, Screen, is_unusual},
};

/// Trials that may wait, and those of one model.
const MOST_WAITING: usize = 64;
const MOST_WAITING_OF_ONE: usize = 8;
/// Inputs that are remembered as tried, though nothing was learned from them; and how many elements they may have.
const MOST_LET_THROUGH: usize = 16;
const MOST_ELEMENTS_LET_THROUGH: usize = 1 << 20;
/// The sizes that variable dimensions have in made-up inputs.
const SIZES: [i64; 3] = [1, 2, 5];
/// No made-up inputs are tried any more after this time.
const LONGEST_MADE_UP: Duration = Duration::from_secs(1);
/// Whatever has done no harm for so long is let go on in the server, where its request's time ends it.
const LONGEST_RUN: Duration = Duration::from_secs(10);
/// The same for a model with which one trial has taken too long, so that others' trials are not held up by it again.
const LONGEST_RUN_OF_SLOW: Duration = Duration::from_millis(500);

/// One model's trials.
#[derive(Debug)]
pub(super) struct Trials {
    program: Program,
    open: Opened,
    /// The longest that a trial may take.
    longest: Duration,
    forms: Forms,
    /// The sizes that did no harm, where usual inputs may do some.
    sizes: Option<Harmless>,
    /// The last inputs that were refused or took too long in their trial: the same ones are not tried again.
    let_through: Mutex<VecDeque<Vec<Tensor>>>,
    /// Trials that wait or run.
    waiting: AtomicUsize,
    /// Whether one has taken too long.
    slow: AtomicBool,
}

struct Job {
    trials: Arc<Trials>,
    inputs: Vec<Tensor>,
    answer: oneshot::Sender<Result<(), RuntimeError>>,
}

/// The one thread that tries.
fn thread() -> Option<&'static SyncSender<Job>> {
    static THREAD: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();
    let start = || {
        let (jobs, taken) = mpsc::sync_channel::<Job>(MOST_WAITING);
        let work = move || {
            for Job { trials, inputs, answer } in taken {
                if !answer.is_closed() {
                    trials.run(&inputs, answer);
                }
                trials.waiting.fetch_sub(1, Relaxed);
            }
        };
        thread::Builder::new().name("trials".to_owned()).spawn(work).ok().map(|_| jobs)
    };
    THREAD.get_or_init(start).as_ref()
}

impl Screen for Trials {
    fn concerns(&self, inputs: &[Tensor]) -> bool {
        inputs.iter().any(is_unusual) || self.sizes.as_ref().is_some_and(|sizes| !sizes.covers(inputs))
    }

    fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>> {
        if self.let_through.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|passed| passed == inputs) {
            return Some(Ok(()));
        }
        match self.forms.verdict(&self.form(inputs))? {
            Verdict::Harmless => Some(Ok(())),
            Verdict::Fatal(how) => Some(Err(fatal(inputs, self.sizes.is_some(), &how))),
            Verdict::Depends => None,
        }
    }

    fn try_out(self: Arc<Self>, inputs: Vec<Tensor>) -> oneshot::Receiver<Result<(), RuntimeError>> {
        let (answer, answered) = oneshot::channel();
        let crowded = self.waiting.fetch_add(1, Relaxed) >= MOST_WAITING_OF_ONE;
        let job = Job { trials: self, inputs, answer };
        let refused = match thread() {
            _ if crowded => Some(job),
            Some(jobs) => match jobs.try_send(job) {
                Ok(()) => None,
                Err(mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job)) => Some(job),
            },
            None => Some(job),
        };
        if let Some(Job { trials, answer, .. }) = refused {
            trials.waiting.fetch_sub(1, Relaxed);
            let words = "too many requests with unusual inputs wait to be tried: try again".to_owned();
            let _ = answer.send(Err(RuntimeError::Unavailable(words)));
        }
        answered
    }
}

impl Trials {
    /// Of a model that is opened in this way elsewhere; what is found is kept in `file` and beside it. `by_sizes`: usual
    /// inputs may do harm, where they are small; with what [`BySizes`](super::graph::sizes::Fatal::BySizes) says of numbers.
    pub(super) fn new(
        program: Program,
        open: Opened,
        longest: Duration,
        file: PathBuf,
        by_sizes: Option<bool>,
    ) -> Self {
        let open = Opened { low_priority: true, ..open };
        let sizes = by_sizes.map(|numbers| Harmless::of(file.with_extension("sizes"), numbers));
        let (waiting, slow) = (AtomicUsize::default(), AtomicBool::default());
        let let_through = Mutex::default();
        Self { program, open, longest, forms: Forms::of(file), sizes, let_through, waiting, slow }
    }

    /// Blocks until it is known whether these inputs can be run here. For most that is no question.
    pub(super) fn admit(self: &Arc<Self>, inputs: &[Tensor]) -> Result<(), RuntimeError> {
        if !self.concerns(inputs) {
            return Ok(());
        }
        match self.known(inputs) {
            Some(known) => known,
            None => Arc::clone(self).try_out(inputs.to_vec()).blocking_recv().unwrap_or_else(|_| Err(broken())),
        }
    }

    fn form(&self, inputs: &[Tensor]) -> String {
        form(inputs, self.sizes.is_some())
    }

    fn opened(&self) -> Result<Apart, RuntimeError> {
        let why = match Apart::open(self.program.clone(), self.open.clone(), self.longest, None) {
            Ok(model) => return Ok(model),
            Err(Unanswered::NotStarted(why)) => why,
            Err(Unanswered::Refused(error)) => format!("the model cannot be loaded for it: {error}"),
            Err(Unanswered::Crashed(how) | Unanswered::Ended(how) | Unanswered::Killed(how)) => {
                format!("the process with the model {how}")
            }
        };
        Err(unavailable(&why))
    }

    /// Remembers that these very inputs may be run in the server.
    fn let_through(&self, inputs: &[Tensor]) {
        let count = |input: &Tensor| element_count(&input.shape).unwrap_or(usize::MAX);
        if inputs.iter().map(count).fold(0, usize::saturating_add) > MOST_ELEMENTS_LET_THROUGH {
            return;
        }
        let mut passed = self.let_through.lock().unwrap_or_else(PoisonError::into_inner);
        passed.truncate(MOST_LET_THROUGH - 1);
        passed.push_front(inputs.to_vec());
    }

    /// Answers whether these inputs can be run, and then learns what it can for others. The caller may leave meanwhile; what
    /// was found is kept.
    fn run(&self, inputs: &[Tensor], answer: oneshot::Sender<Result<(), RuntimeError>>) {
        let mut learn: Box<dyn FnOnce()> = Box::new(|| {});
        let _ = answer.send(self.tried(inputs, &mut learn));
        learn();
    }

    /// What a trial says of these inputs, and what is left to do after the answer.
    fn tried<'a>(&'a self, inputs: &'a [Tensor], learn: &mut Box<dyn FnOnce() + 'a>) -> Result<(), RuntimeError> {
        // Another trial may have told meanwhile.
        if !self.concerns(inputs) {
            return Ok(());
        }
        if let Some(known) = self.known(inputs) {
            return known;
        }
        let mut model = self.opened()?;
        let longest = if self.slow.load(Relaxed) { LONGEST_RUN_OF_SLOW } else { LONGEST_RUN };
        let alarm = Alarm::after(self.longest.min(longest)).map_err(|error| unavailable(&error.to_string()))?;
        let usual = !inputs.iter().any(is_unusual);
        match try_one(&mut model, inputs, &alarm.cancel) {
            Tried::Ran | Tried::Refused if !usual => {
                let verdict = self.made_up(&mut model, inputs);
                self.forms.keep(self.form(inputs), verdict);
                Ok(())
            }
            Tried::Ran => {
                if let Some(harmless) = &self.sizes {
                    harmless.add(inputs);
                    *learn = Box::new(move || self.smaller(&mut model, harmless, inputs));
                }
                Ok(())
            }
            // It is refused here as it is there, at the same place.
            Tried::Refused => {
                self.let_through(inputs);
                Ok(())
            }
            Tried::Ended(how) => {
                let error = fatal(inputs, self.sizes.is_some(), &how);
                *learn = Box::new(move || self.keep_crash(model, inputs, &how));
                Err(error)
            }
            Tried::TooSlow => {
                self.slow.store(true, Relaxed);
                self.let_through(inputs);
                Ok(())
            }
            Tried::NotStarted(why) => Err(unavailable(&why)),
        }
    }

    /// Keeps what inputs that have ended the process of `model` say of others like them.
    fn keep_crash(&self, model: Apart, inputs: &[Tensor], how: &str) {
        let verdict = self.after_a_crash(model, inputs, how);
        let from_now_on = match verdict {
            Verdict::Fatal(_) => "they are refused from now on",
            Verdict::Harmless | Verdict::Depends => "others like them are tried one by one",
        };
        let file = self.open.file.display();
        tracing::warn!("{file}: ONNX Runtime {how} on the inputs {}; {from_now_on}", shown(inputs));
        self.forms.keep(self.form(inputs), verdict);
    }

    /// Tries made-up inputs of the same form, after the request's own did no harm.
    fn made_up(&self, model: &mut Apart, inputs: &[Tensor]) -> Verdict {
        let Ok(alarm) = Alarm::after(LONGEST_MADE_UP) else { return Verdict::Depends };
        let until = Instant::now() + LONGEST_MADE_UP;
        let signature = model.signature().clone();
        // Where sizes matter, those of the form are the request's.
        let sizes: &[Option<i64>] = if self.sizes.is_some() { &[None] } else { &SIZES.map(Some) };
        for (size, values) in sizes.iter().flat_map(|size| [(size, Values::Zero), (size, Values::One)]) {
            let sized = |given: i64| size.unwrap_or(given);
            let Some(like) = made_up::like(inputs, &signature, sized, values) else { continue };
            match try_one(model, &like, &alarm.cancel) {
                Tried::Ran | Tried::Refused => {}
                Tried::Ended(_) => return Verdict::Depends,
                Tried::TooSlow | Tried::NotStarted(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
        }
        Verdict::Harmless
    }

    /// Whether other values of the same form end the process as the request's own did, which ended that of `model`.
    fn after_a_crash(&self, mut model: Apart, inputs: &[Tensor], how: &str) -> Verdict {
        let Ok(alarm) = Alarm::after(LONGEST_RUN) else { return Verdict::Depends };
        let signature = model.signature().clone();
        let mut sizes = vec![(None, Values::Zero), (None, Values::One)];
        if self.sizes.is_none() {
            sizes.extend([(Some(2), Values::Zero), (Some(2), Values::One)]);
        }
        for (size, values) in sizes {
            let sized = |given: i64| size.unwrap_or(given);
            let Some(like) = made_up::like(inputs, &signature, sized, values) else { return Verdict::Depends };
            if like == inputs {
                continue;
            }
            // A new process is started for it.
            match try_one(&mut model, &like, &alarm.cancel) {
                Tried::Ended(_) => {}
                Tried::Ran | Tried::Refused | Tried::TooSlow | Tried::NotStarted(_) => return Verdict::Depends,
            }
        }
        Verdict::Fatal(how.to_owned())
    }

    /// Keeps which sizes smaller than those of these inputs do no harm.
    fn smaller(&self, model: &mut Apart, harmless: &Harmless, inputs: &[Tensor]) {
        let Ok(alarm) = Alarm::after(LONGEST_MADE_UP) else { return };
        let until = Instant::now() + LONGEST_MADE_UP;
        let signature = model.signature().clone();
        let mut before = inputs.to_vec();
        while Instant::now() < until {
            let mut ran = None;
            for values in [Values::Zero, Values::One] {
                let Some(like) = made_up::like(&before, &signature, |given| (given / 2).max(1), values) else { return };
                if like.iter().zip(&before).all(|(like, before)| like.shape == before.shape) {
                    return;
                }
                match try_one(model, &like, &alarm.cancel) {
                    Tried::Ran => {
                        ran = Some(like);
                        break;
                    }
                    Tried::Refused => {}
                    Tried::Ended(_) | Tried::TooSlow | Tried::NotStarted(_) => return,
                }
            }
            match ran {
                Some(like) => {
                    harmless.add(&like);
                    before = like;
                }
                None => return,
            }
        }
    }
}

enum Tried {
    Ran,
    /// The model or the runtime has refused the inputs.
    Refused,
    Ended(String),
    TooSlow,
    NotStarted(String),
}

fn try_one(model: &mut Apart, inputs: &[Tensor], cancel: &Cancel) -> Tried {
    let outputs: Vec<usize> = (0..model.signature().outputs.len()).collect();
    let call = Call {
        inputs,
        outputs: &outputs,
        parameters: &Default::default(),
        input_parameters: &Default::default(),
        purpose: Purpose::Trial,
        cancel,
    };
    match model.run(&call) {
        _ if cancel.is_cancelled() => Tried::TooSlow,
        Ok(_) => Tried::Ran,
        // It ended before it came to the end, and says nothing of what the server would come to.
        Err(Unanswered::Refused(RuntimeError::MemoryFull(why))) => Tried::NotStarted(why),
        Err(Unanswered::Refused(_)) => Tried::Refused,
        Err(Unanswered::Crashed(how) | Unanswered::Ended(how)) => Tried::Ended(how),
        Err(Unanswered::Killed(how)) => Tried::NotStarted(format!("the process with the model {how}")),
        Err(Unanswered::NotStarted(why)) => Tried::NotStarted(why),
    }
}

fn unavailable(why: &str) -> RuntimeError {
    RuntimeError::Unavailable(format!("inputs like these are tried elsewhere first: {why}"))
}

fn broken() -> RuntimeError {
    unavailable("nothing is there to do it")
}
