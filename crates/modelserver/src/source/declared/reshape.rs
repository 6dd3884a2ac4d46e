//! `reshape` in a model's configuration: requests have one shape, and the model another one with the same number of
//! elements.
//!
//! The model is wrapped, so that every user (requests, warm-ups, golden examples) sees the shapes of requests. Triton's
//! rule applies: both shapes have the same number of variable dimensions, in the same order, and the same number of
//! elements between them.

use std::sync::Arc;

use inference::{Tensor, TensorMetadata};
use tokio::sync::oneshot;

use crate::runtime::{
    Call, ModelRuntime, RuntimeError, Screen, Signature, Sink, Trials, Up, begins_without_count, is_absent, is_unusual,
    own::Own,
};

/// The two shapes of one tensor, including the batch dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The position of the tensor in the signature.
    pub(super) place: usize,
    pub(super) of_requests: Vec<i64>,
    pub(super) of_model: Vec<i64>,
}

/// Whether a shape can be read as another one, for all sizes of its variable dimensions.
pub(super) fn agree(a: &[i64], b: &[i64]) -> bool {
    let parts = |shape: &[i64]| -> Vec<Option<i64>> {
        let product = |part: &[i64]| part.iter().try_fold(1i64, |product, size| product.checked_mul(*size));
        shape.split(|size| *size < 0).map(product).collect()
    };
    let (a, b) = (parts(a), parts(b));
    a == b && a.iter().all(Option::is_some)
}

/// The shape `to` with the sizes from `given` in its variable dimensions; `None` if `given` does not match `from`.
fn changed(given: &[i64], from: &[i64], to: &[i64]) -> Option<Vec<i64>> {
    let alike = |(given, from): (&i64, &i64)| *from < 0 || given == from;
    if given.len() != from.len() || !given.iter().zip(from).all(alike) {
        return None;
    }
    let mut open = given.iter().zip(from).filter(|(_, from)| **from < 0).map(|(given, _)| *given);
    to.iter().map(|size| if *size < 0 { open.next() } else { Some(*size) }).collect()
}

/// A model whose requests have different shapes.
pub(super) struct Reshaped {
    model: Box<dyn ModelRuntime>,
    signature: Signature,
    inputs: Arc<[Form]>,
    outputs: Vec<Form>,
}

impl Reshaped {
    pub(super) fn new(model: Box<dyn ModelRuntime>, inputs: Vec<Form>, outputs: Vec<Form>) -> Self {
        let mut signature = model.signature().clone();
        for (forms, tensors) in [(&inputs, &mut signature.inputs), (&outputs, &mut signature.outputs)] {
            for form in forms {
                tensors[form.place].shape.clone_from(&form.of_requests);
            }
        }
        let rows = |tensor: &TensorMetadata| tensor.shape.first() == Some(&-1);
        signature.rows &= signature.inputs.iter().chain(&signature.outputs).all(rows);
        signature.unranked.retain(|place| inputs.iter().all(|form| form.place != *place));
        Self { model, signature, inputs: inputs.into(), outputs }
    }
}

impl ModelRuntime for Reshaped {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn up(&self) -> Up {
        self.model.up()
    }

    fn trials(&self) -> Trials {
        self.model.trials()
    }

    fn metrics(&self) -> Option<Arc<Own>> {
        self.model.metrics()
    }

    fn note(&self) -> Option<&str> {
        self.model.note()
    }

    fn screen(&self) -> Option<Arc<dyn Screen>> {
        let model = self.model.screen()?;
        Some(Arc::new(Screened { model, forms: Arc::clone(&self.inputs) }))
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        let inputs = of_model(call.inputs, &self.inputs)?;
        let mut sink = Back { forms: &self.outputs, wanted: call.outputs, sink };
        self.model.infer(Call { inputs: &inputs, ..call }, &mut sink)
    }
}

/// Inputs in the shapes of the model.
fn of_model(inputs: &[Tensor], forms: &[Form]) -> Result<Vec<Tensor>, RuntimeError> {
    let mut inputs = inputs.to_vec();
    for form in forms {
        let Some(input) = inputs.get_mut(form.place).filter(|input| !is_absent(input)) else { continue };
        let shape = changed(&input.shape, &form.of_requests, &form.of_model);
        input.shape = shape.ok_or_else(|| {
            let (name, given, wanted) = (&input.name, &input.shape, &form.of_requests);
            RuntimeError::Rejected(format!("input `{name}` has the shape {given:?}, the model wants {wanted:?}"))
        })?;
    }
    Ok(inputs)
}

/// The guard that decides whether the model survives inputs, in the shapes of requests.
#[derive(Debug)]
struct Screened {
    model: Arc<dyn Screen>,
    forms: Arc<[Form]>,
}

impl Screen for Screened {
    fn concerns(&self, inputs: &[Tensor]) -> bool {
        let becomes_no_count = |form: &Form| {
            let input = inputs.get(form.place);
            form.of_model.is_empty() && input.is_some_and(|input| begins_without_count(&input.data))
        };
        inputs.iter().any(is_unusual) || self.forms.iter().any(becomes_no_count)
    }

    fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>> {
        match of_model(inputs, &self.forms) {
            Ok(inputs) => self.model.known(&inputs),
            Err(error) => Some(Err(error)),
        }
    }

    fn try_out(self: Arc<Self>, inputs: Vec<Tensor>) -> oneshot::Receiver<Result<(), RuntimeError>> {
        match of_model(&inputs, &self.forms) {
            Ok(inputs) => Arc::clone(&self.model).try_out(inputs),
            Err(error) => {
                let (answer, answered) = oneshot::channel();
                // The receiver is right here.
                let _ = answer.send(Err(error));
                answered
            }
        }
    }
}

/// Gives outputs the shapes of requests.
struct Back<'s> {
    forms: &'s [Form],
    wanted: &'s [usize],
    sink: &'s mut dyn Sink,
}

impl Sink for Back<'_> {
    fn send(&mut self, mut outputs: Vec<Tensor>) -> bool {
        for (output, place) in outputs.iter_mut().zip(self.wanted) {
            let form = self.forms.iter().find(|form| form.place == *place);
            // An output that differs from the declaration is returned unchanged.
            if let Some(shape) = form.and_then(|form| changed(&output.shape, &form.of_model, &form.of_requests)) {
                output.shape = shape;
            }
        }
        self.sink.send(outputs)
    }
}

#[cfg(test)]
mod tests {
    use inference::Data;

    use super::*;

    /// Knows whatever it is asked, and says the shapes.
    #[derive(Debug)]
    struct Shapes;

    impl Screen for Shapes {
        fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>> {
            let shapes: Vec<_> = inputs.iter().map(|input| input.shape.clone()).collect();
            Some(Err(RuntimeError::Rejected(format!("{shapes:?}"))))
        }

        fn try_out(self: Arc<Self>, inputs: Vec<Tensor>) -> oneshot::Receiver<Result<(), RuntimeError>> {
            let (answer, answered) = oneshot::channel();
            let _ = answer.send(self.known(&inputs).unwrap_or(Ok(())));
            answered
        }
    }

    #[test]
    fn unusual_inputs_are_asked_about_in_the_shapes_of_the_model() {
        let form = |place, of_requests: &[i64], of_model: &[i64]| Form {
            place,
            of_requests: of_requests.to_vec(),
            of_model: of_model.to_vec(),
        };
        let forms = [form(0, &[-1, 4], &[-1, 2, 2]), form(1, &[1], &[])];
        let screen = Arc::new(Screened { model: Arc::new(Shapes), forms: forms.into() });
        let inputs = |rows: i64, count: i64| {
            let count = Tensor { name: "count".to_owned(), shape: vec![1], data: Data::Int64(vec![count]) };
            let elements = usize::try_from(rows * 4).unwrap();
            [Tensor { name: "x".to_owned(), shape: vec![rows, 4], data: Data::Fp32(vec![0.0; elements]) }, count]
        };
        assert_eq!(
            [(2, 1), (0, 1), (2, 0), (2, -1)].map(|(rows, count)| screen.concerns(&inputs(rows, count))),
            [false, true, true, true]
        );
        let said = Err(RuntimeError::Rejected("[[0, 2, 2], []]".to_owned()));
        assert_eq!(screen.known(&inputs(0, 1)), Some(said.clone()));
        assert_eq!(screen.try_out(inputs(0, 1).to_vec()).blocking_recv(), Ok(said));
    }

    #[test]
    fn shapes_agree_where_variable_dimensions_and_what_is_between_them_do() {
        assert!(agree(&[-1, 4], &[-1, 2, 2]) && agree(&[1], &[]) && agree(&[2, -1, 6], &[2, 1, -1, 3, 2]));
        assert!(!agree(&[-1, 4], &[-1, 2]) && !agree(&[-1, 4], &[4, -1]) && !agree(&[4], &[-1]));
        assert_eq!(changed(&[7, 4], &[-1, 4], &[-1, 2, 2]), Some(vec![7, 2, 2]));
        assert_eq!(changed(&[7, 5], &[-1, 4], &[-1, 2, 2]), None);
    }
}
