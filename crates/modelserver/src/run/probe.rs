//! Tests whether the rows of a model are independent, so that requests may be batched.
//!
//! A variable first dimension looks like rows, but a model may normalise over it or read it as a sequence. So two
//! different rows are run alone and together. Only if each gets the same answer both ways does the model count as one
//! with independent rows. The run times are kept for the first batch sizes.
//!
//! A Python class sees every such run, so it gets only a few; a class that is called for each row needs none.
//!
//! **Invariant:** a model without a proof runs one request at a time.

use std::time::{Duration, Instant};

use inference::{Datatype, Tensor};

use crate::{
    run::tolerance::{Tolerance, compare},
    runtime::sample::{Generator, MOST_ELEMENTS},
    runtime::{Call, Cancel, Last, ModelRuntime, Purpose, Signature, TrialRuns},
};

/// The time limit for generated rows, as a part of loading. Given examples are tried in any case.
const LONGEST: Duration = Duration::from_secs(2);
/// A larger batch is tried, and timed, if it should not take longer than this.
const LARGE_IF_BELOW: Duration = Duration::from_millis(10);
/// The number of rows of that larger batch.
const LARGE: usize = 16;
/// How many pairs of generated rows are tried with a model that may be run only a few times. Each pair takes three
/// runs.
const FEW_PAIRS: usize = 2;
/// The parameters of generated rows: the size of inner variable dimensions, and the spread of numbers.
const MADE_UP: [(i64, f64); 5] = [(2, 1.0), (2, 30.0), (2, 0.05), (32, 1.0), (1, 1.0)];
/// The same if there are strings: texts first, and numbers, which some models parse. All are tried.
const TEXTS: [(i64, bool); 6] = [(2, true), (1, true), (2, true), (1, true), (1, false), (2, false)];

/// What was found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    /// Whether rows are independent.
    pub(crate) rows: bool,
    /// How long runs with this many rows took.
    pub(crate) costs: Vec<(usize, Duration)>,
}

/// One row: a tensor for each input, with first dimension 1.
type Row = Vec<Tensor>;

/// The result of a trial of two rows.
enum Trial {
    Independent(Vec<(usize, Duration)>),
    /// They influence each other, or cannot run together at all.
    Dependent(String),
    /// Both rows got the same answer, which shows nothing.
    Alike,
    /// The model does not accept them.
    Refused(String),
    TooSlow(Duration),
}

/// Whether [`probe`] runs the model.
pub(crate) fn is_probed(runtime: &dyn ModelRuntime) -> bool {
    let (signature, trials) = (runtime.signature(), runtime.trials());
    signature.rows && !signature.streams && !trials.independent && trials.runs != TrialRuns::None
}

/// Tries a model with a variable first dimension, with rows of `examples` if there are two, otherwise with generated
/// ones. Blocks for a few runs.
pub(crate) fn probe(runtime: &mut dyn ModelRuntime, examples: &[Vec<Tensor>], name: &str, cancel: &Cancel) -> Probe {
    let signature = runtime.signature().clone();
    if !signature.rows || signature.streams {
        return Probe::default();
    }
    let trials = runtime.trials();
    if trials.independent {
        return Probe { rows: true, costs: Vec::new() };
    }
    let outputs = (0..signature.outputs.len()).collect();
    let mut tried = Tried { runtime, outputs, cancel, runs: trials.runs };
    match prove(&mut tried, &signature, examples) {
        Ok(costs) => {
            let probe = Probe { rows: true, costs };
            tracing::debug!(model = name, costs = ?probe.costs, "rows of several requests may be run as one");
            probe
        }
        Err(reason) => {
            tracing::info!(model = name, "each request is run by itself: {reason}");
            Probe::default()
        }
    }
}

fn prove(
    model: &mut Tried<'_>,
    signature: &Signature,
    examples: &[Vec<Tensor>],
) -> Result<Vec<(usize, Duration)>, String> {
    let began = Instant::now();
    let mut generator = Generator::new();
    let strings = signature.inputs.iter().any(|input| input.datatype == Datatype::Bytes);
    let of_numbers = MADE_UP.iter().filter(|_| !strings).map(|(inner, scale)| (*inner, *scale, false));
    let of_texts = TEXTS.iter().filter(|_| strings).map(|(inner, texts)| (*inner, 1.0, *texts));
    let made_up = of_numbers.chain(of_texts).filter_map(|(inner, scale, texts)| {
        let mut row =
            || signature.inputs.iter().map(|input| generator.row(input, inner, scale, texts)).collect::<Option<_>>();
        Some((row()?, row()?))
    });
    let open_inside = signature.outputs.iter().any(|output| output.shape.iter().skip(1).any(|size| *size < 0));
    let more_strings = strings && (model.runs == TrialRuns::Many || open_inside);
    let mut proven = None;
    let mut reason = "its inputs are too large to make up".to_owned();
    let made_up = made_up.take(match model.runs {
        TrialRuns::Many => usize::MAX,
        TrialRuns::Few => FEW_PAIRS,
        TrialRuns::None => {
            "the model is not to be tried with made-up rows; two examples in golden.json are tried"
                .clone_into(&mut reason);
            0
        }
    });
    let given = two_of(examples).map(|rows| (rows, Duration::MAX));
    let given_and_made_up = given.into_iter().chain(made_up.map(|rows| (rows, LONGEST)));
    for ((a, b), longest) in given_and_made_up {
        match attempt(model, &a, &b, longest) {
            // Other strings may show what these did not.
            Trial::Independent(costs) if more_strings => proven = Some(costs),
            Trial::Independent(costs) => return Ok(costs),
            Trial::Dependent(how) => return Err(how),
            Trial::TooSlow(_) if proven.is_some() => break,
            Trial::TooSlow(took) => {
                return Err(format!(
                    "a run takes {} ms, too long to try made-up rows; two examples in golden.json are tried",
                    took.as_millis()
                ));
            }
            Trial::Refused(why) => {
                reason = format!("it does not take two made-up rows ({why}); golden.json can give them")
            }
            Trial::Alike => {
                "made-up rows all get the same answer, which shows nothing; golden.json can give better ones"
                    .clone_into(&mut reason);
            }
        }
        if began.elapsed() > LONGEST {
            break;
        }
    }
    proven.ok_or(reason)
}

fn attempt(model: &mut Tried<'_>, a: &Row, b: &Row, longest: Duration) -> Trial {
    let (first, took) = match model.run(a) {
        Ok(run) => run,
        Err(why) => return Trial::Refused(why),
    };
    // If a model may be run only a few times, this run is its warm-up.
    let few = model.runs != TrialRuns::Many;
    // The other row and both together.
    if !few && took.saturating_mul(4) > longest {
        return Trial::TooSlow(took);
    }
    let (second, again) = match model.run(b) {
        Ok(run) => run,
        Err(why) => return Trial::Refused(why),
    };
    if few && again.saturating_mul(4) > longest {
        return Trial::TooSlow(again);
    }
    let mut costs = vec![(1, took.min(again))];
    let larger = (took.min(again) * u32::try_from(LARGE).unwrap_or(u32::MAX) < LARGE_IF_BELOW
        && a.iter().all(|tensor| tensor.data.len() * LARGE <= usize::try_from(MOST_ELEMENTS).unwrap_or(0)))
    .then_some(LARGE);
    let sizes = if few { [None, larger.or(Some(2))] } else { [Some(2), larger] };
    for rows in sizes.into_iter().flatten() {
        let Some(joined) = repeat(a, b, rows) else {
            return Trial::Refused("their shapes differ".to_owned());
        };
        let (made, took) = match model.run(&joined) {
            Ok(run) => run,
            Err(why) => return Trial::Dependent(format!("{rows} rows at once fail: {why}")),
        };
        let Some(expected) = repeat(&first, &second, rows) else {
            return Trial::Dependent("the shape of an output is not one row, or depends on what is in it".to_owned());
        };
        if let Some(how) = expected.iter().find_map(|wanted| compare(wanted, &made, tolerance(wanted)).err()) {
            return Trial::Dependent(format!("its rows influence one another: of {rows} at once, {how}"));
        }
        costs.push((rows, took));
    }
    let exact = Tolerance { absolute: 0.0, relative: 0.0 };
    let alike = first.iter().all(|output| compare(output, &second, exact).is_ok());
    if alike { Trial::Alike } else { Trial::Independent(costs) }
}

/// The model under test.
struct Tried<'m> {
    runtime: &'m mut dyn ModelRuntime,
    /// The positions of all its outputs.
    outputs: Vec<usize>,
    cancel: &'m Cancel,
    runs: TrialRuns,
}

impl Tried<'_> {
    /// One run with all outputs, and its duration.
    fn run(&mut self, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Duration), String> {
        let call = Call {
            inputs,
            outputs: &self.outputs,
            parameters: &Default::default(),
            input_parameters: &Default::default(),
            cancel: self.cancel,
            purpose: Purpose::Trial,
        };
        let mut last = Last::default();
        let began = Instant::now();
        self.runtime.infer(call, &mut last).map_err(|error| match self.runs {
            TrialRuns::Many => error.to_string(),
            // Output of user code about rows that no client sent would only alarm people.
            TrialRuns::Few | TrialRuns::None => {
                tracing::debug!(%error, "a trial run failed");
                "it raises an exception".to_owned()
            }
        })?;
        let took = began.elapsed();
        Ok((last.0.ok_or("it makes nothing")?, took))
    }
}

/// `a`, `b`, `a`, … joined, this many rows. `None` if they cannot form tensors.
fn repeat(a: &[Tensor], b: &[Tensor], rows: usize) -> Option<Vec<Tensor>> {
    let join = |(a, b): (&Tensor, &Tensor)| {
        if a.shape.first() != Some(&1) || a.shape != b.shape {
            return None;
        }
        let mut data = a.data.empty_like();
        for row in 0..rows {
            let from = if row % 2 == 0 { a } else { b };
            data.append(&from.data, 0..from.data.len()).then_some(())?;
        }
        let mut shape = a.shape.clone();
        *shape.first_mut()? = i64::try_from(rows).ok()?;
        Some(Tensor { name: a.name.clone(), shape, data })
    };
    a.iter().zip(b).map(join).collect()
}

/// The first two rows of the examples.
fn two_of(examples: &[Vec<Tensor>]) -> Option<(Row, Row)> {
    let mut rows = examples.iter().flat_map(|inputs| {
        let count = inputs.first().and_then(|input| input.shape.first()).copied().unwrap_or(0);
        (0..usize::try_from(count).unwrap_or(0).min(2)).filter_map(|place| row(inputs, place))
    });
    let first = rows.next()?;
    let alike = |row: &Row| row.iter().zip(&first).all(|(a, b)| a.shape == b.shape) && *row != first;
    let second = rows.find(alike)?;
    Some((first, second))
}

fn row(inputs: &[Tensor], place: usize) -> Option<Row> {
    let one = |input: &Tensor| {
        let mut shape = input.shape.clone();
        let rows = usize::try_from(std::mem::replace(shape.first_mut()?, 1)).ok()?;
        let size = input.data.len().checked_div(rows)?;
        let mut data = input.data.empty_like();
        data.append(&input.data, place * size..(place + 1) * size).then_some(())?;
        Some(Tensor { name: input.name.clone(), shape, data })
    };
    inputs.iter().map(one).collect()
}

/// Larger batches use other code paths of the kernels, which round differently.
fn tolerance(output: &Tensor) -> Tolerance {
    if matches!(output.datatype(), Datatype::Fp16 | Datatype::Bf16) {
        Tolerance { absolute: 1e-2, relative: 2e-2 }
    } else {
        Tolerance { absolute: 1e-5, relative: 1e-3 }
    }
}

#[cfg(test)]
mod tests {
    use inference::{Data, TensorMetadata};

    use super::*;
    use crate::runtime::{RuntimeError, Sink, Trials};

    /// A model of one input and one output of `[-1, -1]`, in a function.
    struct Function {
        signature: Signature,
        run: fn(&[f32], usize) -> Result<Vec<f32>, RuntimeError>,
        runs: usize,
        trials: Trials,
    }

    impl ModelRuntime for Function {
        fn trials(&self) -> Trials {
            self.trials
        }

        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
            self.runs += 1;
            let Data::Fp32(data) = &call.inputs[0].data else { panic!("{:?}", call.inputs) };
            let columns = usize::try_from(call.inputs[0].shape[1]).unwrap();
            let made = (self.run)(data, columns)?;
            let rows = i64::try_from(data.len() / columns).unwrap();
            let shape = vec![rows, i64::try_from(made.len()).unwrap() / rows];
            sink.send(vec![Tensor { name: "y".into(), shape, data: Data::Fp32(made) }]);
            Ok(())
        }
    }

    fn rows(run: fn(&[f32], usize) -> Result<Vec<f32>, RuntimeError>) -> (bool, usize) {
        rows_with(&[], run)
    }

    fn rows_with(examples: &[Vec<Tensor>], run: fn(&[f32], usize) -> Result<Vec<f32>, RuntimeError>) -> (bool, usize) {
        let (probe, runs) = tried(examples, Trials::default(), run);
        assert_eq!(probe.rows, !probe.costs.is_empty());
        (probe.rows, runs)
    }

    fn tried(
        examples: &[Vec<Tensor>],
        trials: Trials,
        run: fn(&[f32], usize) -> Result<Vec<f32>, RuntimeError>,
    ) -> (Probe, usize) {
        let tensor = |name: &str| TensorMetadata {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: vec![-1, -1],
            labels: Vec::new(),
        };
        let signature = Signature {
            platform: "test",
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
            rows: true,
            ..Signature::default()
        };
        let mut runtime = Function { signature, run, runs: 0, trials };
        let probe = probe(&mut runtime, examples, "test", &Cancel::default());
        (probe, runtime.runs)
    }

    #[test]
    fn rows_that_get_the_same_answer_alone_and_joined_are_independent() {
        assert_eq!(rows(|data, _| Ok(data.iter().map(|x| x * 2.0).collect())), (true, 4));
        assert!(rows(|data, columns| Ok(data.chunks(columns).map(|row| row.iter().sum()).collect())).0);
        let logarithms = |data: &[f32], _| Ok(data.iter().map(|x| x.ln()).collect());
        assert!(rows(logarithms).0, "a NaN is the same as a NaN");
    }

    #[test]
    fn a_model_that_normalises_over_its_rows_or_reads_them_as_a_sequence_is_not_one_of_rows() {
        let normalised = |data: &[f32], _| {
            let most = data.iter().copied().fold(f32::MIN, f32::max);
            Ok(data.iter().map(|x| x / most).collect())
        };
        assert!(!rows(normalised).0);
        let running_sum = |data: &[f32], columns: usize| {
            let mut made = data.to_vec();
            (columns..made.len()).for_each(|place| made[place] += made[place - columns]);
            Ok(made)
        };
        assert!(!rows(running_sum).0);
        let reversed = |data: &[f32], columns| Ok(data.chunks(columns).rev().flatten().copied().collect());
        assert!(!rows(reversed).0);
    }

    #[test]
    fn a_model_that_shows_nothing_or_takes_one_row_only_is_not_trusted() {
        assert!(!rows(|data, _| Ok(vec![1.0; data.len()])).0);
        assert!(!rows(|data, _| Ok(vec![f32::NAN; data.len()])).0);
        let one = |data: &[f32], columns| {
            if data.len() == columns { Ok(data.to_vec()) } else { Err(RuntimeError::Failed("one only".into())) }
        };
        assert!(!rows(one).0);
    }

    #[test]
    fn inner_sizes_that_a_model_refuses_are_tried_otherwise_and_golden_examples_first() {
        let images = |data: &[f32], columns| {
            if columns == 32 { Ok(data.to_vec()) } else { Err(RuntimeError::Rejected("32 wanted".into())) }
        };
        assert!(rows(images).0);
        let odd = |data: &[f32], columns| {
            if columns == 7 { Ok(data.to_vec()) } else { Err(RuntimeError::Rejected("7 wanted".into())) }
        };
        assert!(!rows(odd).0);
        let data = Data::Fp32((0..14u8).map(f32::from).collect());
        let example = vec![Tensor { name: "x".into(), shape: vec![2, 7], data }];
        assert_eq!(rows_with(&[example], odd), (true, 4));
    }

    #[test]
    fn somebodys_code_is_run_a_few_times_or_never_and_not_at_all_where_nothing_can_be_learnt() {
        let few = Trials { runs: TrialRuns::Few, independent: false };
        let none = Trials { runs: TrialRuns::None, independent: false };
        let doubled = |data: &[f32], _: usize| Ok(data.iter().map(|x| x * 2.0).collect());
        let (probe, runs) = tried(&[], few, doubled);
        let sizes: Vec<_> = probe.costs.iter().map(|(rows, _)| *rows).collect();
        assert_eq!((probe.rows, runs, sizes.as_slice()), (true, 3, &[1, LARGE][..]));
        let zeros = |data: &[f32], _: usize| Ok(vec![0.0; data.len()]);
        assert_eq!(tried(&[], few, zeros).1, 6);
        let (probe, runs) = tried(&[], none, doubled);
        assert_eq!((probe.rows, runs), (false, 0));
        let data = Data::Fp32((0..14u8).map(f32::from).collect());
        let examples = [vec![Tensor { name: "x".into(), shape: vec![2, 7], data }]];
        let (probe, runs) = tried(&examples, none, doubled);
        assert_eq!((probe.rows, runs), (true, 3), "examples are somebody's own");
        let (probe, runs) = tried(&[], Trials { runs: TrialRuns::Few, independent: true }, doubled);
        assert_eq!((probe.rows, runs), (true, 0));
        let sums = |data: &[f32], _: usize| Ok(vec![data.iter().sum(); data.len()]);
        assert!(!tried(&[], few, sums).0.rows, "a few runs show what many do");
    }

    #[test]
    fn a_slow_model_is_not_kept_busy() {
        let slow = |data: &[f32], _| {
            std::thread::sleep(LONGEST);
            Ok(data.to_vec())
        };
        assert_eq!(rows(slow), (false, 1));
    }
}
