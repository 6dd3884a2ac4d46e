//! What inputs have in common with others that are as harmless or fatal, and what is known of each such form.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Mutex, sync::PoisonError};

use inference::{Data, Tensor};
use serde::{Deserialize, Serialize};

use crate::runtime::{RuntimeError, is_no_count, is_unusual};

/// Forms that are kept for one model.
const MOST_FORMS: usize = 1024;

/// What a form of inputs does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Harmless,
    /// It ends the process, in these words.
    Fatal(String),
    /// It does with some values and does not with others: each request is tried.
    Depends,
}

type All = BTreeMap<String, Verdict>;

/// What is known of a model's forms.
#[derive(Debug)]
pub(super) struct Forms {
    file: PathBuf,
    /// `None` before anything was looked up.
    known: Mutex<Option<All>>,
}

impl Forms {
    /// Those that are kept in a file.
    pub(super) fn of(file: PathBuf) -> Self {
        Self { file, known: Mutex::default() }
    }

    pub(super) fn verdict(&self, form: &str) -> Option<Verdict> {
        self.with(|known| known.get(form).cloned())
    }

    /// Does something with the forms that are known, which are read when they are first asked for.
    fn with<T>(&self, with: impl FnOnce(&mut All) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        with(known.get_or_insert_with(|| self.read()))
    }

    fn read(&self) -> All {
        fs::read(&self.file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps what was found. Other servers may keep theirs in the same file.
    pub(super) fn keep(&self, form: String, verdict: Verdict) {
        let mut all = self.read();
        let kept = self.with(|known| {
            if known.len() >= MOST_FORMS || known.get(&form) == Some(&verdict) {
                return false;
            }
            known.insert(form, verdict);
            all.extend(known.clone());
            true
        });
        if kept {
            write(&self.file, &all);
        }
    }
}

/// Writes a file whole or not at all.
pub(super) fn write(file: &std::path::Path, what: &impl Serialize) {
    let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        let aside = file.with_extension(format!("{}.new", std::process::id()));
        fs::write(&aside, serde_json::to_vec(what)?)?;
        fs::rename(&aside, file)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "{}: what was tried cannot be kept there", file.display());
    }
}

/// The value of an input that is one number by itself, in its bits.
pub(super) fn number(input: &Tensor) -> Option<i64> {
    if !input.shape.is_empty() {
        return None;
    }
    match &input.data {
        Data::Bool(value) => value.first().map(|value| i64::from(*value)),
        Data::Int8(value) => value.first().map(|value| i64::from(*value)),
        Data::Int16(value) => value.first().map(|value| i64::from(*value)),
        Data::Int32(value) => value.first().map(|value| i64::from(*value)),
        Data::Int64(value) => value.first().copied(),
        Data::Uint8(value) => value.first().map(|value| i64::from(*value)),
        Data::Uint16(value) => value.first().map(|value| i64::from(*value)),
        Data::Uint32(value) => value.first().map(|value| i64::from(*value)),
        Data::Uint64(value) => value.first().map(|value| value.cast_signed()),
        Data::Fp32(value) => value.first().map(|value| i64::from(value.to_bits())),
        Data::Fp64(value) => value.first().map(|value| value.to_bits().cast_signed()),
        Data::Fp16(_) | Data::Bf16(_) | Data::Bytes(_) | Data::Json(_) => None,
    }
}

/// The form of inputs: the unusual ones, and if `exact` all of them with their sizes and the numbers by themselves.
pub(super) fn form(inputs: &[Tensor], exact: bool) -> String {
    let unusual = |input: &Tensor| {
        if is_no_count(input) {
            return format!("{}{}", input.name, if is_zero(input) { "=0" } else { "<0" });
        }
        let zeros = input.shape.iter().map(|size| if *size == 0 { '0' } else { 'n' });
        format!("{}[{}]", input.name, zeros.collect::<String>())
    };
    if !exact {
        return inputs.iter().filter(|input| is_unusual(input)).map(unusual).collect::<Vec<_>>().join(" ");
    }
    let whole = |input: &Tensor| match number(input) {
        Some(number) => format!("{}={number}", input.name),
        None => format!("{}{:?}", input.name, input.shape),
    };
    inputs.iter().map(whole).collect::<Vec<_>>().join(" ")
}

fn is_zero(input: &Tensor) -> bool {
    input.data == Data::zeros(input.datatype(), 1)
}

/// All inputs, with their sizes.
pub(super) fn shown(inputs: &[Tensor]) -> String {
    inputs.iter().map(|input| format!("`{}` {:?}", input.name, input.shape)).collect::<Vec<_>>().join(", ")
}

/// What is said of inputs that end the process: of the unusual ones, or if `exact` of all.
pub(super) fn fatal(inputs: &[Tensor], exact: bool, how: &str) -> RuntimeError {
    let one = |input: &Tensor| {
        if is_no_count(input) {
            return format!("`{}` {}", input.name, if is_zero(input) { "0" } else { "below 0" });
        }
        format!("`{}` {:?}", input.name, input.shape)
    };
    let which = inputs.iter().filter(|input| exact || is_unusual(input)).map(one).collect::<Vec<_>>().join(", ");
    RuntimeError::Rejected(format!(
        "the model cannot be run with {which}: ONNX Runtime itself {how} when it was tried. Send other sizes or counts"
    ))
}

#[cfg(test)]
mod tests {
    use inference::{Datatype, element_count};

    use super::*;

    #[test]
    fn a_form_is_the_unusual_inputs_or_all_of_them_as_they_are() {
        let tensor = |name: &str, shape: &[i64]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: Data::zeros(Datatype::Fp32, element_count(shape).unwrap()),
        };
        assert_eq!(form(&[tensor("x", &[0, 576]), tensor("state", &[2, 1, 128])], false), "x[0n]");
        assert_eq!(form(&[tensor("x", &[3, 0]), tensor("y", &[0])], false), "x[n0] y[0]");
        let number = |number| Tensor { name: "k".to_owned(), shape: Vec::new(), data: Data::Int32(vec![number]) };
        assert_eq!([1, 0, -7].map(|k| form(&[number(k)], false)), ["", "k=0", "k<0"]);
        assert_eq!(form(&[tensor("x", &[0, 576]), number(7)], true), "x[0, 576] k=7");
    }
}
