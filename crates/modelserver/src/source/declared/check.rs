//! Checks a model against its configuration after loading, using its real signature.

use api::decode::nearest;
use inference::{TensorMetadata, element_count};

use super::{
    Declared, DeclaredTensor,
    reshape::{Form, Reshaped},
};
use crate::{
    ServeError,
    runtime::{ModelRuntime, Signature},
};

impl Declared {
    /// Compares with the signature of the model. Undeclared tensors are as in the model.
    pub(crate) fn check(&self, signature: &Signature) -> Result<(), ServeError> {
        let rows = self.has_rows();
        for (kind, declared, real) in
            [("input", &self.inputs, &signature.inputs), ("output", &self.outputs, &signature.outputs)]
        {
            for tensor in declared {
                let more = if kind == "input" { signature.defaults.as_slice() } else { &[] };
                let Some(own) = real.iter().chain(more).find(|own| own.name == tensor.name) else {
                    return Err(self.wrong(unknown(kind, &tensor.name, real)));
                };
                fits(tensor, own, rows).map_err(|reason| self.wrong(format!("{kind} `{}` {reason}", tensor.name)))?;
            }
        }
        Ok(())
    }

    /// Allows requests to leave out `optional` inputs of a checked model. With `tell`, it logs where that is
    /// impossible.
    pub(crate) fn allow_absent(&self, model: &mut dyn ModelRuntime, tell: bool) {
        let signature = model.signature();
        let is_optional = |own: &TensorMetadata| self.inputs.iter().any(|said| said.optional && said.name == own.name);
        let more: Vec<usize> = (0..signature.inputs.len())
            .filter(|place| is_optional(&signature.inputs[*place]) && !signature.optional.contains(place))
            .collect();
        let names: Vec<_> = more.iter().map(|place| format!("`{}`", signature.inputs[*place].name)).collect();
        let all: Vec<usize> = signature.optional.iter().copied().chain(more).collect();
        if !names.is_empty() && !model.allow_absent(&all) && tell {
            tracing::warn!(
                "{}: {} said to be `optional`, and the model has no value of its own for it: requests without it are \
                 refused",
                self.place,
                if let [name] = names.as_slice() {
                    format!("input {name} is")
                } else {
                    format!("inputs {} are", names.join(", "))
                }
            );
        }
    }

    /// A checked model, with the shapes of requests.
    pub(crate) fn reshaped(&self, model: Box<dyn ModelRuntime>) -> Box<dyn ModelRuntime> {
        let rows = self.has_rows();
        let forms = |declared: &[DeclaredTensor], real: &[TensorMetadata]| -> Vec<Form> {
            let form = |tensor: &DeclaredTensor| {
                let place = real.iter().position(|own| own.name == tensor.name)?;
                let of_model = tensor.of_model(rows);
                tensor.reshape.as_ref().map(|_| Form { place, of_requests: tensor.shape(rows), of_model })
            };
            declared.iter().filter_map(form).collect()
        };
        let signature = model.signature();
        let (inputs, outputs) = (forms(&self.inputs, &signature.inputs), forms(&self.outputs, &signature.outputs));
        if inputs.is_empty() && outputs.is_empty() {
            return model;
        }
        Box::new(Reshaped::new(model, inputs, outputs))
    }

    /// Whether every tensor has a batch dimension, which `dims` leave out.
    fn has_rows(&self) -> bool {
        self.max_batch_size.is_some_and(|size| size > 0)
    }

    /// A checked signature, where the configuration sets the dimensions that the model leaves open.
    pub(crate) fn narrowed(&self, signature: &Signature) -> Signature {
        let mut narrowed = signature.clone();
        let rows = self.has_rows();
        for (declared, real) in [(&self.inputs, &mut narrowed.inputs), (&self.outputs, &mut narrowed.outputs)] {
            for tensor in declared {
                let Some(own) = real.iter_mut().find(|own| own.name == tensor.name) else { continue };
                let shape = tensor.shape(rows);
                // Only a scalar per row may have another length; it is as in the model.
                if shape.len() == own.shape.len() {
                    own.shape.iter_mut().zip(shape).filter(|(own, _)| **own < 0).for_each(|(own, said)| *own = said);
                }
            }
        }
        narrowed
    }
}

impl DeclaredTensor {
    /// Its dimensions, after the batch dimension if there is one.
    fn shape(&self, rows: bool) -> Vec<i64> {
        rows.then_some(-1).into_iter().chain(self.dims.iter().copied()).collect()
    }

    /// The same for the tensor of the model.
    fn of_model(&self, rows: bool) -> Vec<i64> {
        let dims = self.reshape.as_ref().unwrap_or(&self.dims);
        rows.then_some(-1).into_iter().chain(dims.iter().copied()).collect()
    }
}

fn unknown(kind: &str, name: &str, real: &[TensorMetadata]) -> String {
    let names = || real.iter().map(|tensor| tensor.name.as_str());
    match nearest(name, names()) {
        Some(near) => format!("the model has no {kind} `{name}`; did you mean `{near}`?"),
        None => {
            let names: Vec<_> = names().take(16).map(|name| format!("`{name}`")).collect();
            format!("the model has no {kind} `{name}`; it has {}", names.join(", "))
        }
    }
}

fn fits(declared: &DeclaredTensor, own: &TensorMetadata, rows: bool) -> Result<(), String> {
    if let Some(datatype) = declared.datatype
        && datatype != own.datatype
    {
        return Err(format!("is said to be {datatype}, and the model has it as {}", own.datatype));
    }
    if declared.dims.is_empty() && declared.reshape.is_none() {
        return Ok(());
    }
    let shape = declared.of_model(rows);
    if rows && own.shape.first().is_some_and(|first| *first >= 0) {
        return Err(format!(
            "has the shape {:?} in the model, whose first dimension is not free for the rows of a batch: say \
             `max_batch_size: 0`, and `dims` with all of its dimensions",
            own.shape
        ));
    }
    // An open dimension of the model may be fixed; a fixed one cannot be opened.
    let alike = |(said, own): (&i64, &i64)| *own < 0 || said == own;
    if shape.len() == own.shape.len() && shape.iter().zip(&own.shape).all(alike) {
        return Ok(());
    }
    // Triton writes a scalar per row as `dims: [ 1 ]`.
    let scalars = rows && own.shape.len() == 1 && element_count(&declared.dims).is_ok_and(|count| count == 1);
    if scalars {
        return Ok(());
    }
    let batch = if rows { " after the rows of `max_batch_size`" } else { "" };
    let said = declared.reshape.as_ref().unwrap_or(&declared.dims);
    Err(format!("is said to be {said:?}{batch}, and the model has {:?}", own.shape))
}
