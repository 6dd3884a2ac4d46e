use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use inference::{Data, Parameters, Tensor};

use super::{
    super::{EntryKind, Uses},
    *,
};
use crate::{Config, runtime::Cancel};

#[allow(clippy::disallowed_methods, reason = "where the tests' Python is, only the environment knows")]
fn interpreter() -> Interpreter {
    let path = std::env::var_os("MODELWAY_TEST_PYTHON").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/modelway/venv/bin/python"),
        PathBuf::from,
    );
    Interpreter { path, origin: "the tests'".to_owned() }
}

/// A model of this text, and the folder that it is in.
fn open(text: &str) -> (Result<PythonModel, ServeError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.py");
    std::fs::write(&path, format!("from modelway import AbstractModel, Tensor\n{text}")).unwrap();
    let entry = Entry { kind: EntryKind::Class, path: path.clone(), known_as: path, uses: Uses::default() };
    let settings = ModelSettings::of_all(&Config::default());
    (PythonModel::open(&entry, &interpreter(), &settings, folder.path()), folder)
}

/// Keeps all that was sent, and hangs up after so many.
struct Each(Vec<Vec<Tensor>>, usize);

impl Sink for Each {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.0.push(outputs);
        self.0.len() < self.1
    }
}

fn run(model: &mut PythonModel, input: Tensor, most: usize) -> (Result<(), RuntimeError>, Vec<Vec<Tensor>>) {
    let mut sink = Each(Vec::new(), most);
    let outputs: Vec<usize> = (0..model.signature().outputs.len()).collect();
    let (cancel, parameters) = (Cancel::default(), Parameters::new());
    let call = Call {
        inputs: &[input],
        outputs: &outputs,
        parameters: &parameters,
        input_parameters: &Default::default(),
        cancel: &cancel,
        purpose: Purpose::Request,
    };
    (model.infer(call, &mut sink), sink.0)
}

fn floats(count: usize) -> Tensor {
    let data = (0..count).map(|n| f32::from(u16::try_from(n % 1000).unwrap())).collect();
    Tensor { name: "x".to_owned(), shape: vec![i64::try_from(count).unwrap()], data: Data::Fp32(data) }
}

fn only(model: &mut PythonModel, input: Tensor) -> Data {
    let (result, mut answers) = run(model, input, usize::MAX);
    assert_eq!(result, Ok(()));
    answers.pop().unwrap().pop().unwrap().data
}

#[test]
fn tensors_of_every_size_come_back_as_they_went() {
    let (model, _folder) = open(
        "class Same(AbstractModel):\n def predict(self, x: Tensor['FP32', -1]) -> Tensor['FP32', -1]:\n  return x\n",
    );
    let mut model = model.unwrap();
    for count in [0, 1, 8_000, 9_000, 300_000, 8_000_000, 3, 20_000] {
        assert_eq!(only(&mut model, floats(count)), floats(count).data, "{count}");
    }
}

#[test]
fn arrays_that_a_model_keeps_are_not_changed_by_the_next_request() {
    let (model, _folder) = open(
        "class Before(AbstractModel):\n kept = None\n batch = False\n def predict(self, x: Tensor['FP32', -1]) -> \
         Tensor['FP32', -1]:\n  before, self.kept = self.kept, x[:10]\n  return x[:0] if before is None else before\n",
    );
    let mut model = model.unwrap();
    let of = |value: f32| Tensor { data: Data::Fp32(vec![value; 50_000]), ..floats(50_000) };
    only(&mut model, of(1.0));
    assert_eq!(only(&mut model, of(2.0)), Data::Fp32(vec![1.0; 10]));
    assert_eq!(only(&mut model, of(3.0)), Data::Fp32(vec![2.0; 10]));
}

#[test]
fn text_goes_there_and_back() {
    let (model, _folder) =
        open("class Shout(AbstractModel):\n def predict(self, text: str) -> str:\n  return text.upper()\n");
    let mut model = model.unwrap();
    for length in [0usize, 3, 100_000] {
        let text = |letter: &str| Data::Bytes(vec![Bytes::from(letter.repeat(length)), Bytes::from_static(b"x")]);
        let upper = Data::Bytes(vec![Bytes::from("Ä".repeat(length)), Bytes::from_static(b"X")]);
        let input = Tensor { name: "text".to_owned(), shape: vec![2], data: text("ä") };
        assert_eq!(only(&mut model, input), upper);
    }
}

#[test]
fn a_stream_sends_each_answer_and_ends_when_nobody_listens() {
    let (model, folder) = open(
        "from typing import Iterator\nclass Count(AbstractModel):\n def predict(self, x: Tensor['FP32', -1]) -> \
         Iterator[Tensor['FP32', -1]]:\n  try:\n   for n in range(int(x[0])):\n    yield x + n\n  finally:\n   \
         open(self.folder / 'ended', 'w').close()\n",
    );
    let mut model = model.unwrap();
    assert!(model.signature().streams);
    for count in [2, 100_000] {
        let input = Tensor { data: Data::Fp32(vec![5.0; count]), ..floats(count) };
        let (result, answers) = run(&mut model, input, usize::MAX);
        assert_eq!((result, answers.len()), (Ok(()), 5));
        assert_eq!(answers[4][0].data, Data::Fp32(vec![9.0; count]));
    }
    std::fs::remove_file(folder.path().join("ended")).unwrap();
    let endless = Tensor { data: Data::Fp32(vec![1e9; 2]), ..floats(2) };
    let (result, answers) = run(&mut model, endless, 3);
    assert_eq!((result, answers.len()), (Err(RuntimeError::Cancelled), 3));
    assert!(folder.path().join("ended").exists(), "the generator was closed");
    assert_eq!(run(&mut model, Tensor { data: Data::Fp32(vec![2.0]), ..floats(1) }, 9).1.len(), 2);
}

#[test]
fn a_model_that_cannot_be_loaded_says_why() {
    let said = |text: &str| open(text).0.unwrap_err().to_string();
    let traceback = said("import nothing_of_that_name\n");
    assert!(traceback.contains("ModuleNotFoundError") && traceback.contains("model.py\", line 2"), "{traceback}");
    let died = said("import os, sys\nprint('oh', file=sys.stderr, flush=True)\nos._exit(3)\n");
    assert!(died.contains("its worker ended by itself with status 3") && died.contains("oh"), "{died}");
}

#[test]
fn a_model_that_is_dropped_leaves_no_process() {
    let (model, _folder) = open(
        "import subprocess\nclass Parent(AbstractModel):\n def load(self):\n  self.child = \
         subprocess.Popen(['sleep', '1000'])\n def predict(self, x: Tensor['FP32', -1]) -> Tensor['INT64', -1]:\n  \
         return [self.child.pid] * len(x)\n",
    );
    let mut model = model.unwrap();
    let Data::Int64(child) = only(&mut model, floats(1)) else { panic!() };
    drop(model);
    let gone = std::time::Instant::now();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child[0])).unwrap_or_default();
    while !state().is_empty() && !state().contains(") Z") {
        assert!(gone.elapsed() < Duration::from_secs(10), "{}", state());
        std::thread::yield_now();
    }
}

/// `cargo test --release -p modelway-modelserver round_trip -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn round_trip() {
    let (model, _folder) = open(
        "class Same(AbstractModel):\n def predict(self, x: Tensor['FP32', -1]) -> Tensor['FP32', -1]:\n  return x\n",
    );
    let mut model = model.unwrap();
    for count in [4, 2_000, 4_000, 8_000, 16_000, 150_000, 8_000_000] {
        let rounds = if count > 1_000_000 { 30 } else { 3_000 };
        let mut times: Vec<_> = (0..rounds)
            .map(|_| {
                let input = floats(count);
                let began = Instant::now();
                only(&mut model, input);
                began.elapsed()
            })
            .collect();
        times.sort();
        println!("{count:>9} x FP32: {:?} median, {:?} p99", times[rounds / 2], times[rounds * 99 / 100]);
    }
}
