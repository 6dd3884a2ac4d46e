//! Which sizes of inputs did no harm, for models in which a size can be 0 though no input is empty.
//!
//! In such a model ([`Fatal::BySizes`]) whatever is large enough for small inputs is so for larger ones. So the smallest
//! sizes that did no harm are kept, and nothing is tried of inputs that are as large in each dimension.
//!
//! [`Fatal::BySizes`]: super::super::graph::sizes::Fatal::BySizes

use std::{
    fs,
    path::PathBuf,
    sync::{OnceLock, PoisonError, RwLock},
};

use inference::Tensor;
use serde::{Deserialize, Serialize};

use super::forms::{number, write};

/// Sizes that are kept for one model: the oldest ones make room for further ones.
const MOST: usize = 64;

/// One input of a run that did no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    name: String,
    shape: Vec<i64>,
    /// Its value, where that decides what is run.
    number: Option<i64>,
}

type Sizes = Vec<Size>;

/// The smallest sizes that did no harm.
#[derive(Debug)]
pub(super) struct Harmless {
    file: PathBuf,
    /// Whether inputs that are numbers by themselves decide what is run.
    numbers: bool,
    /// Read when they are first asked for.
    known: OnceLock<RwLock<Vec<Sizes>>>,
}

impl Harmless {
    /// Those that are kept in a file.
    pub(super) fn of(file: PathBuf, numbers: bool) -> Self {
        Self { file, numbers, known: OnceLock::new() }
    }

    /// Whether inputs are as large as others that did no harm.
    pub(super) fn covers(&self, inputs: &[Tensor]) -> bool {
        let known = self.known().read().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|sizes| {
            sizes.len() == inputs.len() && sizes.iter().zip(inputs).all(|(size, input)| self.is_within(size, input))
        })
    }

    fn is_within(&self, size: &Size, input: &Tensor) -> bool {
        size.name == input.name
            && size.shape.len() == input.shape.len()
            && size.shape.iter().zip(&input.shape).all(|(least, given)| least <= given)
            && (!self.decides(input) || size.number.is_some() && size.number == number(input))
    }

    fn decides(&self, input: &Tensor) -> bool {
        self.numbers && input.shape.is_empty()
    }

    fn known(&self) -> &RwLock<Vec<Sizes>> {
        self.known.get_or_init(|| RwLock::new(self.read()))
    }

    fn read(&self) -> Vec<Sizes> {
        fs::read(&self.file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps the sizes of inputs that did no harm. Other servers may keep theirs in the same file.
    pub(super) fn add(&self, inputs: &[Tensor]) {
        let mut kept = self.read();
        {
            let mut known = self.known().write().unwrap_or_else(PoisonError::into_inner);
            // What the new ones cover says nothing more.
            known.retain(|sizes| !is_covered(sizes, inputs));
            if known.len() >= MOST {
                known.remove(0);
            }
            let size = |input: &Tensor| Size {
                name: input.name.clone(),
                shape: input.shape.clone(),
                number: self.decides(input).then(|| number(input)).flatten(),
            };
            known.push(inputs.iter().map(size).collect());
            kept.retain(|sizes| !is_covered(sizes, inputs) && !known.contains(sizes));
            kept.extend(known.iter().cloned());
            kept.drain(..kept.len().saturating_sub(MOST));
        }
        write(&self.file, &kept);
    }
}

/// Whether sizes are as large as those of inputs, of the same numbers.
fn is_covered(sizes: &Sizes, inputs: &[Tensor]) -> bool {
    sizes.len() == inputs.len()
        && sizes.iter().zip(inputs).all(|(size, input)| {
            size.name == input.name
                && size.shape.len() == input.shape.len()
                && input.shape.iter().zip(&size.shape).all(|(least, given)| least <= given)
                && (size.number.is_none() || size.number == number(input))
        })
}

#[cfg(test)]
mod tests {
    use inference::{Data, Datatype, element_count};

    use super::*;

    fn inputs(shape: &[i64], rate: i64) -> Vec<Tensor> {
        let data = Data::zeros(Datatype::Fp32, element_count(shape).unwrap());
        let x = Tensor { name: "x".to_owned(), shape: shape.to_vec(), data };
        vec![x, Tensor { name: "rate".to_owned(), shape: Vec::new(), data: Data::Int64(vec![rate]) }]
    }

    #[test]
    fn what_is_as_large_in_each_dimension_is_covered_also_for_the_next_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kept.sizes");
        let harmless = Harmless::of(file.clone(), false);
        assert!(!harmless.covers(&inputs(&[2, 5], 1)));
        harmless.add(&inputs(&[2, 5], 1));
        for harmless in [&harmless, &Harmless::of(file.clone(), false)] {
            for (shape, covered) in
                [(&[2, 5][..], true), (&[3, 900], true), (&[1, 5], false), (&[9, 4], false), (&[2, 5, 1], false)]
            {
                assert_eq!(harmless.covers(&inputs(shape, 2)), covered, "{shape:?}");
            }
        }
        // Smaller ones take their place, and others stand beside them.
        harmless.add(&inputs(&[1, 5], 1));
        harmless.add(&inputs(&[7, 1], 1));
        assert!(harmless.covers(&inputs(&[1, 5], 1)) && harmless.covers(&inputs(&[8, 2], 1)));
        assert_eq!(harmless.known().read().unwrap().len(), 2);
        assert_eq!(harmless.read().len(), 2);
    }

    #[test]
    fn where_a_number_decides_only_the_same_is_covered() {
        let folder = tempfile::tempdir().unwrap();
        let harmless = Harmless::of(folder.path().join("kept.sizes"), true);
        harmless.add(&inputs(&[2, 5], 16_000));
        assert!(harmless.covers(&inputs(&[2, 6], 16_000)) && !harmless.covers(&inputs(&[2, 6], 8_000)));
        // Sizes of another number are not given up for smaller ones of this.
        harmless.add(&inputs(&[1, 1], 8_000));
        assert!(harmless.covers(&inputs(&[2, 6], 16_000)) && !harmless.covers(&inputs(&[1, 6], 16_000)));
    }
}
