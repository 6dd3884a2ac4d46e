//! The parts together, with a model made of arithmetic: every caller gets its own rows, once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use inference::{Data, Datatype, Parameters, Tensor, TensorMetadata};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::{Answer, Answered, Job, join, run::Worker, size::Sizes};
use crate::{
    Config,
    error::InferError,
    metrics::statistics::Statistics,
    metrics::{Metrics, ModelMetrics},
    run::{caller::Caller, queue::Queue},
    runtime::{Call, Cancel, ModelRuntime, RuntimeError, Signature, Sink, Up},
    settings::ModelSettings,
};

/// Answers each row doubled, and as text. Refuses rows that hold [`BAD`].
struct Doubler {
    signature: Signature,
    largest: Arc<AtomicUsize>,
    /// Rows that it leaves out of runs of more than one request.
    forgets: bool,
    pause: Duration,
}

const BAD: i64 = -1;

fn doubler() -> Doubler {
    let tensor = |name: &str, datatype, shape: &[i64]| TensorMetadata {
        name: name.into(),
        datatype,
        shape: shape.into(),
        labels: Vec::new(),
    };
    let signature = Signature {
        platform: "test",
        inputs: vec![tensor("x", Datatype::Int64, &[-1, -1])],
        outputs: vec![tensor("double", Datatype::Int64, &[-1, -1]), tensor("text", Datatype::Bytes, &[-1])],
        rows: true,
        ..Signature::default()
    };
    Doubler { signature, largest: Arc::default(), forgets: false, pause: Duration::ZERO }
}

impl ModelRuntime for Doubler {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        let Data::Int64(x) = &call.inputs[0].data else { return Err(RuntimeError::Failed("not INT64".to_owned())) };
        let (rows, width) = (call.inputs[0].shape[0], call.inputs[0].shape[1]);
        let count = usize::try_from(rows).unwrap();
        self.largest.fetch_max(count, Ordering::Relaxed);
        thread::sleep(self.pause);
        if x.contains(&BAD) {
            return Err(RuntimeError::Rejected("a bad row".to_owned()));
        }
        let kept = if self.forgets && count > 1 { rows - 1 } else { rows };
        let first = |row: usize| x[row * usize::try_from(width).unwrap()].to_string().into();
        let elements = usize::try_from(kept * width).unwrap();
        let all = [
            Tensor {
                name: "double".into(),
                shape: vec![kept, width],
                data: Data::Int64(x[..elements].iter().map(|x| x * 2).collect()),
            },
            Tensor {
                name: "text".into(),
                shape: vec![kept],
                data: Data::Bytes((0..usize::try_from(kept).unwrap()).map(first).collect()),
            },
        ];
        sink.send(call.outputs.iter().map(|place| all[*place].clone()).collect());
        Ok(())
    }
}

fn metrics() -> Arc<ModelMetrics> {
    Arc::new(Metrics::new().of_model("m", "1"))
}

/// A queue whose runs may be of any size from the beginning.
fn queue(limit: usize) -> Arc<Queue> {
    let settings = ModelSettings { max_batch_size: 16, ..ModelSettings::of_all(&Config::default()) };
    let seen = [1, 16].map(|rows| (rows, Duration::from_micros(100 + u64::try_from(rows).unwrap())));
    Arc::new(Queue::new(limit, Duration::ZERO, Sizes::new(&settings, true, &seen), metrics()))
}

fn worker(queue: &Arc<Queue>, runtime: Doubler) -> (thread::JoinHandle<()>, Arc<Statistics>) {
    let statistics = Arc::new(Statistics::default());
    let worker = Worker {
        up: Up::always(),
        all: [Up::always()].into(),
        name: "m".to_owned(),
        runtime: Box::new(runtime),
        queue: Arc::clone(queue),
        statistics: Arc::clone(&statistics),
        metrics: metrics(),
        handle: None,
        rows: true,
    };
    (thread::spawn(move || worker.work()), statistics)
}

/// A job of these rows, each of `width` times one number.
fn job(rows: &[i64], width: usize, outputs: &[usize]) -> (Job, oneshot::Receiver<Answered>) {
    let data = rows.iter().flat_map(|row| vec![*row; width]).collect();
    let shape = vec![i64::try_from(rows.len()).unwrap(), i64::try_from(width).unwrap()];
    let inputs = vec![Tensor { name: "x".into(), shape, data: Data::Int64(data) }];
    let (answer, answered) = oneshot::channel();
    let job = Job {
        rows: join::rows_of(&inputs),
        inputs,
        outputs: outputs.into(),
        parameters: Parameters::new(),
        input_parameters: Default::default(),
        cancel: Cancel::default(),
        answer: Answer::One(answer),
        arrived: Instant::now(),
        time: Duration::from_secs(60),
    };
    (job, answered)
}

/// What a job of these rows must get.
fn expected(rows: &[i64], width: usize, outputs: &[usize]) -> Answered {
    if rows.contains(&BAD) {
        return Err(InferError::Invalid("a bad row".to_owned()));
    }
    let count = i64::try_from(rows.len()).unwrap();
    let one = |place: &usize| match place {
        0 => Tensor {
            name: "double".into(),
            shape: vec![count, i64::try_from(width).unwrap()],
            data: Data::Int64(rows.iter().flat_map(|row| vec![row * 2; width]).collect()),
        },
        _ => Tensor {
            name: "text".into(),
            shape: vec![count],
            data: Data::Bytes(rows.iter().map(|row| row.to_string().into()).collect()),
        },
    };
    Ok(outputs.iter().map(one).collect())
}

#[derive(Clone, Debug)]
struct Sent {
    caller: u64,
    rows: Vec<i64>,
    width: usize,
    outputs: Vec<usize>,
    leaves: bool,
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let rows = prop::collection::vec(prop_oneof![30 => 0..1000i64, 1 => Just(BAD)], 1..20);
    let outputs = prop::sample::select(vec![vec![0], vec![1], vec![0, 1], vec![1, 0]]);
    let one = (0..4u64, rows, 1..3usize, outputs, prop::bool::weighted(0.1));
    let one = one.prop_map(|(caller, rows, width, outputs, leaves)| Sent { caller, rows, width, outputs, leaves });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everybody_gets_one_answer_and_it_is_their_own(sent in sent(), threads in 1..3usize) {
        let queue = queue(1000);
        let mut answers = Vec::new();
        let (mut jobs, mut requests) = (Vec::new(), 0);
        for sent in &sent {
            let (job, answered) = job(&sent.rows, sent.width, &sent.outputs);
            if sent.leaves {
                queue.leave(&job.cancel);
            } else {
                requests += 1;
                answers.push((sent, answered));
            }
            jobs.push((sent.caller, job));
        }
        // Half of them wait before the model begins, the others come meanwhile.
        let later = jobs.split_off(jobs.len() / 2);
        for (caller, job) in jobs {
            queue.push(0, Caller(caller), job).unwrap();
        }
        let largest = Arc::<AtomicUsize>::default();
        let workers: Vec<_> = (0..threads)
            .map(|_| worker(&queue, Doubler { largest: Arc::clone(&largest), ..doubler() }))
            .collect();
        for (caller, job) in later {
            queue.push(0, Caller(caller), job).unwrap();
        }
        queue.close();
        for (sent, answered) in answers {
            let answered = answered.blocking_recv().expect("an answer");
            prop_assert_eq!(answered, expected(&sent.rows, sent.width, &sent.outputs));
        }
        let mut queued = 0;
        for (thread, statistics) in workers {
            thread.join().unwrap();
            queued += statistics.queue.get().0;
        }
        prop_assert_eq!(queued, requests, "each request is counted once");
        let alone = sent.iter().map(|sent| sent.rows.len()).max().unwrap_or(0);
        prop_assert!(largest.load(Ordering::Relaxed) <= alone.max(16));
    }
}

#[test]
fn what_waits_while_the_model_runs_goes_next_as_one() {
    let queue = queue(100);
    let answers: Vec<_> = (0..10)
        .map(|number| {
            let (job, answered) = job(&[number], 1, &[0]);
            queue.push(0, Caller(u64::try_from(number).unwrap()), job).unwrap();
            answered
        })
        .collect();
    queue.close();
    let (thread, statistics) = worker(&queue, doubler());
    for answered in answers {
        answered.blocking_recv().unwrap().unwrap();
    }
    thread.join().unwrap();
    assert_eq!(statistics.executions.load(Ordering::Relaxed), 1);
    assert_eq!(statistics.inferences.load(Ordering::Relaxed), 10);
    assert_eq!(statistics.batches().iter().map(|(rows, batch)| (*rows, batch.count)).collect::<Vec<_>>(), [(10, 1)]);
}

#[test]
fn a_model_that_forgets_rows_answers_each_by_itself_and_is_never_given_two_again() {
    let queue = queue(100);
    let mut answers = Vec::new();
    for number in 0..6 {
        let (job, answered) = job(&[number], 1, &[0]);
        queue.push(0, Caller(0), job).unwrap();
        answers.push(answered);
    }
    let (of_two, by_itself) = job(&[1, 2], 1, &[0]);
    queue.push(0, Caller(0), of_two).unwrap();
    queue.close();
    let runtime = Doubler { forgets: true, ..doubler() };
    let (thread, _) = worker(&queue, runtime);
    for (number, answered) in (0..6).zip(answers) {
        assert_eq!(answered.blocking_recv().unwrap(), expected(&[number], 1, &[0]));
    }
    // What it makes of one request is the answer to that, however many rows it has.
    assert_eq!(by_itself.blocking_recv().unwrap(), expected(&[1], 1, &[0]));
    thread.join().unwrap();
    assert!(!queue.never_join(), "it joins no more already");
}

#[test]
fn a_job_whose_time_is_over_is_told_so_and_not_run() {
    let queue = queue(100);
    let (mut late, answered) = job(&[1], 1, &[0]);
    late.time = Duration::ZERO;
    queue.push(0, Caller(0), late).unwrap();
    queue.close();
    let (thread, statistics) = worker(&queue, doubler());
    assert_eq!(answered.blocking_recv().unwrap(), Err(InferError::TimedOut(0)));
    thread.join().unwrap();
    assert_eq!(statistics.executions.load(Ordering::Relaxed), 0);
}

#[test]
fn callers_that_left_make_room_in_a_full_line() {
    let queue = queue(2);
    let left: Vec<_> = (0..2).map(|number| job(&[number], 1, &[0])).collect();
    let cancels: Vec<_> = left.iter().map(|(job, _)| job.cancel.clone()).collect();
    for (job, _) in left {
        queue.push(0, Caller(0), job).unwrap();
    }
    assert!(queue.push(0, Caller(1), job(&[7], 1, &[0]).0).is_err());
    cancels.iter().for_each(|cancel| queue.leave(cancel));
    assert!(queue.push(0, Caller(1), job(&[7], 1, &[0]).0).is_ok());
}

#[test]
fn a_shared_run_ends_only_when_all_of_its_callers_have_left() {
    let queue = queue(2);
    let callers: Vec<Cancel> = (0..3).map(|_| Cancel::default()).collect();
    queue.share(callers.clone(), |run| {
        for caller in &callers {
            assert!(!run.is_cancelled());
            queue.leave(caller);
        }
        assert!(run.is_cancelled());
    });
    let gone = Cancel::default();
    gone.cancel();
    assert!(queue.share(vec![gone], Cancel::is_cancelled), "all had left before it began");
}

#[test]
fn a_request_waits_for_others_no_longer_than_it_is_told() {
    let settings = ModelSettings { max_batch_size: 4, ..ModelSettings::of_all(&Config::default()) };
    let seen = [1, 4].map(|rows| (rows, Duration::from_micros(100 + u64::try_from(rows).unwrap())));
    let delay = Duration::from_millis(20);
    let queue = Arc::new(Queue::new(100, delay, Sizes::new(&settings, true, &seen), metrics()));
    let (thread, statistics) = worker(&queue, doubler());
    let (job_, answered) = job(&[1], 1, &[0]);
    let began = Instant::now();
    queue.push(0, Caller(0), job_).unwrap();
    answered.blocking_recv().unwrap().unwrap();
    assert!(began.elapsed() >= delay);
    // A full run waits for nobody: the answers come although the delay is an hour.
    queue.close();
    thread.join().unwrap();
    assert_eq!(statistics.executions.load(Ordering::Relaxed), 1);
    let queue = Arc::new(Queue::new(100, Duration::from_secs(3600), Sizes::new(&settings, true, &seen), metrics()));
    let (thread, statistics) = worker(&queue, doubler());
    let answers: Vec<_> = (0..4)
        .map(|number| {
            let (job, answered) = job(&[number], 1, &[0]);
            queue.push(0, Caller(0), job).unwrap();
            answered
        })
        .collect();
    answers.into_iter().for_each(|answered| drop(answered.blocking_recv().unwrap().unwrap()));
    queue.close();
    thread.join().unwrap();
    assert_eq!(statistics.executions.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_queue_hands_out_what_waits_and_then_ends_every_thread() {
    let queue = queue(1000);
    let workers: Vec<_> =
        (0..3).map(|_| worker(&queue, Doubler { pause: Duration::from_millis(1), ..doubler() })).collect();
    let answers: Vec<_> = (0..200)
        .map(|number| {
            let (job, answered) = job(&[number], 1, &[0]);
            queue.push(0, Caller(0), job).unwrap();
            answered
        })
        .collect();
    queue.close();
    assert!(queue.push(0, Caller(0), job(&[7], 1, &[0]).0).is_err());
    let made: BTreeSet<_> = answers
        .into_iter()
        .map(|answered| {
            let answer = answered.blocking_recv().unwrap().unwrap();
            if let Data::Int64(values) = &answer[0].data { values[0] } else { panic!("{answer:?}") }
        })
        .collect();
    assert_eq!(made.len(), 200);
    workers.into_iter().for_each(|(thread, _)| thread.join().unwrap());
}
