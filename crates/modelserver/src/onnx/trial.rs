//! Unusual inputs, tried in a process of its own before the server runs them.
//!
//! Kernels are written for tensors with something in them, and for counts and steps that are more than nothing. Most
//! take what is unusual as they should; some read what is not there, divide by zero, or abort. So the first request
//! with unusual inputs of some form is run elsewhere, with its own values and with made-up ones of the same form. What
//! was found holds for the form: for each unusual input its name, how many dimensions it has and which of them are 0, or
//! for a single whole number whether it is 0 or less. It is kept on disk, for the model's file and the runtime's build.
//!
//! Nothing is tried when a model is loaded, so that no start takes longer.
//!
//! **Invariant:** trials run one at a time, at the lowest priority.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use inference::{Data, Tensor, TensorMetadata, element_count};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::apart::{Apart, Opened, Program, Unanswered};
use crate::{
    runtime::alarm::Alarm,
    runtime::{Call, Cancel, Purpose, RuntimeError, Screen, is_no_count, is_unusual},
};

/// Trials that may wait, and those of one model.
const MOST_WAITING: usize = 64;
const MOST_WAITING_OF_ONE: usize = 8;
/// Forms that are kept for one model.
const MOST_FORMS: usize = 1024;
/// The sizes that variable dimensions have in made-up inputs.
const SIZES: [i64; 3] = [1, 2, 5];
/// Made-up inputs with more elements are not tried, and none any more after this time.
const MOST_ELEMENTS: usize = 1 << 20;
const LONGEST_MADE_UP: Duration = Duration::from_secs(1);
/// Whatever has done no harm for so long is let go on in the server, where its request's time ends it.
const LONGEST_RUN: Duration = Duration::from_secs(10);
/// The same for a model with which one trial has taken too long, so that others' trials are not held up by it again.
const LONGEST_RUN_OF_SLOW: Duration = Duration::from_millis(500);

/// What a form of inputs does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Harmless,
    /// It ends the process, in these words.
    Fatal(String),
    /// It did not with the values of a request, and did with others: each request is tried.
    Depends,
}

type Forms = BTreeMap<String, Verdict>;

/// One model's trials.
#[derive(Debug)]
pub(super) struct Trials {
    program: Program,
    open: Opened,
    /// The longest that a trial may take.
    longest: Duration,
    /// Where the forms are kept.
    file: PathBuf,
    /// `None` before anything was looked up.
    forms: Mutex<Option<Forms>>,
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
                    // The caller may leave meanwhile; what was found is kept.
                    let _ = answer.send(trials.run(&inputs));
                }
                trials.waiting.fetch_sub(1, Relaxed);
            }
        };
        thread::Builder::new().name("trials".to_owned()).spawn(work).ok().map(|_| jobs)
    };
    THREAD.get_or_init(start).as_ref()
}

impl Screen for Trials {
    fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>> {
        self.with_forms(|forms| match forms.get(&form(inputs))? {
            Verdict::Harmless => Some(Ok(())),
            Verdict::Fatal(how) => Some(Err(fatal(inputs, how))),
            Verdict::Depends => None,
        })
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
    /// Of a model that is opened in this way elsewhere; what is found is kept in `file`.
    pub(super) fn new(program: Program, open: Opened, longest: Duration, file: PathBuf) -> Self {
        let open = Opened { low_priority: true, ..open };
        let (waiting, slow) = (AtomicUsize::default(), AtomicBool::default());
        Self { program, open, longest, file, forms: Mutex::default(), waiting, slow }
    }

    /// Blocks until it is known whether these inputs can be run here. For those with elements that is no question.
    pub(super) fn admit(self: &Arc<Self>, inputs: &[Tensor]) -> Result<(), RuntimeError> {
        match self.known(inputs) {
            Some(known) => known,
            None => Arc::clone(self).try_out(inputs.to_vec()).blocking_recv().unwrap_or_else(|_| Err(broken())),
        }
    }

    /// Does something with the forms that are known, which are read when they are first asked for.
    fn with_forms<T>(&self, with: impl FnOnce(&mut Forms) -> T) -> T {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        with(forms.get_or_insert_with(|| self.read()))
    }

    fn read(&self) -> Forms {
        fs::read(&self.file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn run(&self, inputs: &[Tensor]) -> Result<(), RuntimeError> {
        if let Some(known) = self.known(inputs) {
            return known;
        }
        let unavailable =
            |why: String| RuntimeError::Unavailable(format!("inputs like these are tried elsewhere first: {why}"));
        let mut model = Apart::open(self.program.clone(), self.open.clone(), self.longest, None).map_err(|e| {
            unavailable(match e {
                Unanswered::NotStarted(why) => why,
                Unanswered::Refused(error) => format!("the model cannot be loaded for it: {error}"),
                Unanswered::Crashed(how) | Unanswered::Ended(how) | Unanswered::Killed(how) => {
                    format!("the process with the model {how}")
                }
            })
        })?;
        let longest = if self.slow.load(Relaxed) { LONGEST_RUN_OF_SLOW } else { LONGEST_RUN };
        let alarm = Alarm::after(self.longest.min(longest)).map_err(|error| unavailable(error.to_string()))?;
        let verdict = match try_one(&mut model, inputs, &alarm.cancel) {
            Tried::Survived => self.made_up(&mut model, inputs),
            Tried::Ended(how) => Verdict::Fatal(how),
            Tried::TooSlow => {
                self.slow.store(true, Relaxed);
                return Ok(());
            }
            Tried::NotStarted(why) => return Err(unavailable(why)),
        };
        let result = match &verdict {
            Verdict::Harmless | Verdict::Depends => Ok(()),
            Verdict::Fatal(how) => Err(fatal(inputs, how)),
        };
        if let Verdict::Fatal(how) = &verdict {
            let file = self.open.file.display();
            tracing::warn!("{file}: ONNX Runtime {how} on the inputs {}; they are refused from now on", shown(inputs));
        }
        self.keep(form(inputs), verdict);
        result
    }

    /// Tries made-up inputs of the same form, after the request's own did no harm.
    fn made_up(&self, model: &mut Apart, inputs: &[Tensor]) -> Verdict {
        let Ok(alarm) = Alarm::after(LONGEST_MADE_UP) else { return Verdict::Depends };
        let until = Instant::now() + LONGEST_MADE_UP;
        let signature = crate::runtime::ModelRuntime::signature(model).clone();
        for (size, one) in SIZES.into_iter().flat_map(|size| [(size, false), (size, true)]) {
            let all = signature.inputs.iter().chain(&signature.defaults);
            let like = |input: &Tensor| {
                let described = all.clone().find(|described| described.name == input.name);
                made_up(input, described, size, one)
            };
            let Some(made_up) = inputs.iter().map(like).collect::<Option<Vec<_>>>() else { continue };
            match try_one(model, &made_up, &alarm.cancel) {
                Tried::Survived => {}
                Tried::Ended(_) => return Verdict::Depends,
                Tried::TooSlow | Tried::NotStarted(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
        }
        Verdict::Harmless
    }

    /// Keeps what was found. Other servers may keep theirs in the same file.
    fn keep(&self, form: String, verdict: Verdict) {
        let mut all = self.read();
        let kept = self.with_forms(|forms| {
            if forms.len() >= MOST_FORMS || forms.get(&form) == Some(&verdict) {
                return false;
            }
            forms.insert(form, verdict);
            all.extend(forms.clone());
            true
        });
        if !kept {
            return;
        }
        let written = self.file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let aside = self.file.with_extension(format!("{}.new", std::process::id()));
            fs::write(&aside, serde_json::to_vec(&all)?)?;
            fs::rename(&aside, &self.file)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "{}: what was tried cannot be kept there", self.file.display());
        }
    }
}

enum Tried {
    Survived,
    Ended(String),
    TooSlow,
    NotStarted(String),
}

fn try_one(model: &mut Apart, inputs: &[Tensor], cancel: &Cancel) -> Tried {
    let outputs: Vec<usize> = (0..crate::runtime::ModelRuntime::signature(model).outputs.len()).collect();
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
        Ok(_) | Err(Unanswered::Refused(_)) => Tried::Survived,
        Err(Unanswered::Crashed(how) | Unanswered::Ended(how)) => Tried::Ended(how),
        Err(Unanswered::Killed(how)) => Tried::NotStarted(format!("the process with the model {how}")),
        Err(Unanswered::NotStarted(why)) => Tried::NotStarted(why),
    }
}

/// What inputs have in common with others that are as harmless or fatal.
fn form(inputs: &[Tensor]) -> String {
    let one = |input: &Tensor| {
        if is_no_count(input) {
            let zero = input.data == Data::zeros(input.datatype(), 1);
            return format!("{}{}", input.name, if zero { "=0" } else { "<0" });
        }
        let zeros = input.shape.iter().map(|size| if *size == 0 { '0' } else { 'n' });
        format!("{}[{}]", input.name, zeros.collect::<String>())
    };
    inputs.iter().filter(|input| is_unusual(input)).map(one).collect::<Vec<_>>().join(" ")
}

fn shown(inputs: &[Tensor]) -> String {
    inputs.iter().map(|input| format!("`{}` {:?}", input.name, input.shape)).collect::<Vec<_>>().join(", ")
}

fn fatal(inputs: &[Tensor], how: &str) -> RuntimeError {
    let one = |input: &Tensor| {
        if is_no_count(input) {
            let zero = input.data == Data::zeros(input.datatype(), 1);
            return format!("`{}` {}", input.name, if zero { "0" } else { "below 0" });
        }
        format!("`{}` {:?}", input.name, input.shape)
    };
    let unusual: Vec<_> = inputs.iter().filter(|input| is_unusual(input)).map(one).collect();
    RuntimeError::Rejected(format!(
        "the model cannot be run with {}: ONNX Runtime itself {how} when it was tried. Send other sizes or counts",
        unusual.join(", ")
    ))
}

fn broken() -> RuntimeError {
    RuntimeError::Unavailable("inputs like these are tried elsewhere first, and nothing is there to do it".to_owned())
}

/// A tensor like one of a request: empty where that is, of `size` where the model leaves it open, all 0 or all 1.
fn made_up(input: &Tensor, described: Option<&TensorMetadata>, size: i64, one: bool) -> Option<Tensor> {
    if is_no_count(input) {
        return Some(input.clone());
    }
    let open = |place: usize| {
        let shape = described.map(|described| &described.shape);
        shape.is_none_or(|shape| shape.len() != input.shape.len() || shape[place] < 0)
    };
    let sized = |(place, given): (usize, &i64)| if *given != 0 && open(place) { size } else { *given };
    let shape: Vec<i64> = input.shape.iter().enumerate().map(sized).collect();
    let count = element_count(&shape).ok().filter(|count| *count <= MOST_ELEMENTS)?;
    let data = match (input.datatype(), one) {
        (inference::Datatype::Bytes, one) => Data::Bytes(vec![Bytes::from_static(if one { b"a" } else { b"" }); count]),
        (datatype, false) => Data::zeros(datatype, count),
        (datatype, true) => crate::runtime::sample::all_one(datatype, count),
    };
    Some(Tensor { name: input.name.clone(), shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_the_empty_inputs_their_ranks_and_which_dimensions_are_zero() {
        let tensor = |name: &str, shape: &[i64]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: Data::zeros(inference::Datatype::Fp32, element_count(shape).unwrap()),
        };
        assert_eq!(form(&[tensor("x", &[0, 576]), tensor("state", &[2, 1, 128])]), "x[0n]");
        assert_eq!(form(&[tensor("x", &[3, 0]), tensor("y", &[0])]), "x[n0] y[0]");
        let number = |number| Tensor { name: "k".to_owned(), shape: Vec::new(), data: Data::Int32(vec![number]) };
        assert_eq!([form(&[number(1)]), form(&[number(0)]), form(&[number(-7)])], ["", "k=0", "k<0"]);
        let open = TensorMetadata {
            name: "x".to_owned(),
            datatype: inference::Datatype::Fp32,
            shape: vec![-1, -1, 4],
            labels: Vec::new(),
        };
        let like = made_up(&tensor("x", &[0, 7, 4]), Some(&open), 2, true).unwrap();
        assert_eq!(like.shape, [0, 2, 4]);
    }
}
