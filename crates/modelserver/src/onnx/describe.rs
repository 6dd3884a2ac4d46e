//! A model's inputs and outputs in the words of the protocol.

use inference::{Datatype, TensorMetadata};
use ort::{
    session::OverridableInitializer,
    value::{Outlet, ValueType},
};

use super::values;

/// An input as the protocol describes it.
pub(super) fn input(outlet: &Outlet) -> Result<TensorMetadata, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let datatype = values::datatype(*ty).map_err(|reason| format!("input `{}` {reason}", outlet.name()))?;
            Ok(tensor(outlet, datatype, shape.to_vec()))
        }
        other @ (ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_)) => {
            Err(format!("input `{}` is {other}, and the protocol can only send tensors", outlet.name()))
        }
    }
}

/// An output as the protocol describes it.
pub(super) fn output(outlet: &Outlet) -> Result<TensorMetadata, String> {
    let refuse = |reason: String| format!("output `{}` {reason}", outlet.name());
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            Ok(tensor(outlet, values::datatype(*ty).map_err(refuse)?, shape.to_vec()))
        }
        ValueType::Map { value, .. } => Ok(tensor(outlet, values::datatype(*value).map_err(refuse)?, vec![1, -1])),
        ValueType::Sequence(inner) => match inner.as_ref() {
            ValueType::Map { value, .. } => Ok(tensor(outlet, values::datatype(*value).map_err(refuse)?, vec![-1, -1])),
            ValueType::Tensor { ty, shape, .. } => {
                let shape = std::iter::once(-1).chain(shape.iter().copied()).collect();
                Ok(tensor(outlet, values::datatype(*ty).map_err(refuse)?, shape))
            }
            other @ (ValueType::Sequence(_) | ValueType::Optional(_)) => {
                Err(refuse(format!("is a sequence of {other}, which is not a tensor: export the model without it")))
            }
        },
        ValueType::Optional(inner) => match inner.as_ref() {
            ValueType::Tensor { ty, shape, .. } => {
                Ok(tensor(outlet, values::datatype(*ty).map_err(refuse)?, shape.to_vec()))
            }
            other @ (ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_)) => {
                Err(refuse(format!("is an optional {other}, which is not a tensor: export the model without it")))
            }
        },
    }
}

fn tensor(outlet: &Outlet, datatype: Datatype, shape: Vec<i64>) -> TensorMetadata {
    TensorMetadata { name: outlet.name().to_owned(), datatype, shape, labels: Vec::new() }
}

/// An input that has a value in the model already; `None` if the protocol cannot send it.
pub(super) fn default(initializer: &OverridableInitializer) -> Option<TensorMetadata> {
    let ValueType::Tensor { ty, shape, .. } = initializer.dtype() else { return None };
    let datatype = values::datatype(*ty).ok()?;
    Some(TensorMetadata { name: initializer.name().to_owned(), datatype, shape: shape.to_vec(), labels: Vec::new() })
}

/// The names that the model gives to an input's dimensions; empty where it gives none.
pub(super) fn symbols(outlet: &Outlet) -> Vec<String> {
    match outlet.dtype() {
        ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.to_vec(),
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => Vec::new(),
    }
}
