//! Converts requests for MLflow models to the logged form.
//!
//! The columns of a table may be sent one by one (`[n]`, or `[n, 1]` as data frames often are) or as one matrix with
//! the columns in their order. A number may have a narrower type than the model wants, as in MLflow, but never a wider
//! one, because the conversion could change its value.

use inference::{Data, Datatype, Tensor, TensorMetadata};

use crate::{
    error::InferError,
    runtime::{MLFLOW, Signature},
};

/// Whether the inputs are the columns of one table.
pub(crate) fn is_table(signature: &Signature) -> bool {
    let inputs = signature.inputs.as_slice();
    signature.platform == MLFLOW && !inputs.is_empty() && inputs.iter().all(|input| input.shape == [-1])
}

/// The same inputs in the form of the signature, as far as no value changes.
pub(crate) fn fit(signature: &Signature, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
    if signature.platform != MLFLOW {
        return Ok(inputs);
    }
    let table = is_table(signature);
    let known = |name: &str| signature.inputs.iter().find(|wanted| wanted.name == name);
    let mut inputs = inputs;
    if table
        && let [matrix] = inputs.as_slice()
        && matrix.shape.len() == 2
        && (known(&matrix.name).is_none() || (signature.inputs.len() > 1 && matrix.shape[1] != 1))
    {
        inputs = columns(signature, matrix)?;
    }
    for input in &mut inputs {
        let Some(wanted) = known(&input.name) else { continue };
        if table && input.shape.len() == 2 && input.shape[1] == 1 {
            input.shape.truncate(1);
        }
        features(wanted, input)?;
        if input.datatype() != wanted.datatype
            && let Some(wider) = widened(&input.data, wanted.datatype)
        {
            input.data = wider;
        }
    }
    if table {
        leave_out(signature, &mut inputs);
        complete(signature, &inputs)?;
    }
    Ok(inputs)
}

/// Removes unknown columns, if all known ones are present, as MLflow does. Returns their names.
pub(crate) fn without_extra(signature: &Signature, inputs: &mut Vec<Tensor>) -> Vec<String> {
    let known = |given: &Tensor| signature.inputs.iter().any(|wanted| wanted.name == given.name);
    let required = |place: &usize| !signature.optional.contains(place);
    let sent = |place: usize| inputs.iter().any(|given| given.name == signature.inputs[place].name);
    let complete = || (0..signature.inputs.len()).filter(required).all(sent);
    if signature.platform != MLFLOW || inputs.iter().all(known) || !complete() {
        return Vec::new();
    }
    let (sent, extra) = std::mem::take(inputs).into_iter().partition(known);
    *inputs = sent;
    extra.into_iter().map(|input| input.name).collect()
}

/// Adds columns without rows for optional columns that were not sent, if any column was sent.
fn leave_out(signature: &Signature, inputs: &mut Vec<Tensor>) {
    if inputs.is_empty() {
        return;
    }
    for wanted in signature.optional.iter().map(|place| &signature.inputs[*place]) {
        if inputs.iter().all(|given| given.name != wanted.name) {
            inputs.push(Tensor { name: wanted.name.clone(), shape: vec![0], data: Data::empty(wanted.datatype) });
        }
    }
}

/// The columns of a matrix.
fn columns(signature: &Signature, matrix: &Tensor) -> Result<Vec<Tensor>, InferError> {
    matrix.check_shape().map_err(|error| InferError::Invalid(format!("input `{}`: {error}", matrix.name)))?;
    let count = signature.inputs.len();
    let size = |dimension: i64| usize::try_from(dimension).unwrap_or(0);
    let (rows, came) = (size(matrix.shape[0]), size(matrix.shape[1]));
    if came != count {
        return Err(InferError::Invalid(format!(
            "the model wants {count} features ({}), and `{}` has {came} in each row",
            named(&signature.inputs),
            matrix.name
        )));
    }
    let column = |(place, wanted): (usize, &TensorMetadata)| Tensor {
        name: wanted.name.clone(),
        shape: vec![matrix.shape[0]],
        data: every(&matrix.data, place, count, rows),
    };
    Ok(signature.inputs.iter().enumerate().map(column).collect())
}

fn named(inputs: &[TensorMetadata]) -> String {
    const SHOWN: usize = 32;
    let mut names: Vec<_> = inputs.iter().take(SHOWN).map(|input| input.name.as_str()).collect();
    if inputs.len() > SHOWN {
        names.push("…");
    }
    names.join(", ")
}

/// The elements at `place` of each row with `width` elements.
fn every(data: &Data, place: usize, width: usize, rows: usize) -> Data {
    macro_rules! each {
        ($($kind:ident)*) => {
            match data {
                $(Data::$kind(all) => Data::$kind(all.iter().skip(place).step_by(width).take(rows).cloned().collect()),)*
                Data::Json(json) => Data::Json(json.clone()),
            }
        };
    }
    each!(Bool Uint8 Uint16 Uint32 Uint64 Int8 Int16 Int32 Int64 Fp16 Bf16 Fp32 Fp64 Bytes)
}

/// Refuses rows with another number of columns, with the error text that data scientists know.
fn features(wanted: &TensorMetadata, given: &Tensor) -> Result<(), InferError> {
    if let ([_, width], [_, came]) = (wanted.shape.as_slice(), given.shape.as_slice())
        && *width >= 0
        && width != came
    {
        let reason = format!("the model wants {width} features, and `{}` has {came} in each row", given.name);
        return Err(InferError::Invalid(reason));
    }
    Ok(())
}

/// Reports all missing columns of a table at once.
fn complete(signature: &Signature, inputs: &[Tensor]) -> Result<(), InferError> {
    let missing: Vec<_> = signature
        .inputs
        .iter()
        .filter(|wanted| inputs.iter().all(|given| given.name != wanted.name))
        .map(|wanted| format!("`{}` ({})", wanted.name, wanted.datatype))
        .collect();
    if missing.is_empty() || inputs.iter().any(|given| signature.inputs.iter().all(|wanted| wanted.name != given.name))
    {
        // An unknown name is reported with a similar one, which may be the missing one.
        return Ok(());
    }
    const SHOWN: usize = 16;
    let more = if missing.len() > SHOWN { format!(" and {} more", missing.len() - SHOWN) } else { String::new() };
    let shown: Vec<_> = missing.iter().take(SHOWN).map(String::as_str).collect();
    let are = if missing.len() == 1 { "column is" } else { "columns are" };
    Err(InferError::Invalid(format!("{} {are} missing: {}{more}", missing.len(), shown.join(", "))))
}

/// The same values in a wider type; `None` if no type surely holds them.
fn widened(data: &Data, wanted: Datatype) -> Option<Data> {
    /// Beyond it, not every whole number is a double.
    const EXACT: i64 = 1 << 53;
    macro_rules! into {
        ($kind:ident $to:ty: $all:expr) => {
            Some(Data::$kind($all.iter().map(|value| <$to>::from(*value)).collect()))
        };
    }
    match (wanted, data) {
        (Datatype::Fp64, Data::Fp32(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Fp16(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Int32(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Int16(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Int8(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Uint32(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Uint16(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Uint8(all)) => into!(Fp64 f64: all),
        (Datatype::Fp64, Data::Int64(all)) if all.iter().all(|value| (-EXACT..=EXACT).contains(value)) =>
        {
            #[allow(clippy::cast_precision_loss, reason = "no larger one is left")]
            Some(Data::Fp64(all.iter().map(|value| *value as f64).collect()))
        }
        (Datatype::Fp32, Data::Fp16(all)) => into!(Fp32 f32: all),
        (Datatype::Fp32, Data::Int16(all)) => into!(Fp32 f32: all),
        (Datatype::Fp32, Data::Int8(all)) => into!(Fp32 f32: all),
        (Datatype::Fp32, Data::Uint16(all)) => into!(Fp32 f32: all),
        (Datatype::Fp32, Data::Uint8(all)) => into!(Fp32 f32: all),
        (Datatype::Int64, Data::Int32(all)) => into!(Int64 i64: all),
        (Datatype::Int64, Data::Int16(all)) => into!(Int64 i64: all),
        (Datatype::Int64, Data::Int8(all)) => into!(Int64 i64: all),
        (Datatype::Int64, Data::Uint32(all)) => into!(Int64 i64: all),
        (Datatype::Int64, Data::Uint16(all)) => into!(Int64 i64: all),
        (Datatype::Int64, Data::Uint8(all)) => into!(Int64 i64: all),
        (Datatype::Int32, Data::Int16(all)) => into!(Int32 i32: all),
        (Datatype::Int32, Data::Int8(all)) => into!(Int32 i32: all),
        (Datatype::Int32, Data::Uint16(all)) => into!(Int32 i32: all),
        (Datatype::Int32, Data::Uint8(all)) => into!(Int32 i32: all),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(columns: &[(&str, Datatype)]) -> Signature {
        let tensor = |(name, datatype): &(&str, Datatype)| TensorMetadata {
            name: (*name).to_owned(),
            datatype: *datatype,
            shape: vec![-1],
            labels: Vec::new(),
        };
        Signature {
            platform: MLFLOW,
            inputs: columns.iter().map(tensor).collect(),
            outputs: Vec::new(),
            rows: true,
            ..Signature::default()
        }
    }

    fn table() -> Signature {
        signature(&[("a", Datatype::Fp64), ("b", Datatype::Int64)])
    }

    fn tensor(name: &str, shape: &[i64], data: Data) -> Tensor {
        Tensor { name: name.to_owned(), shape: shape.into(), data }
    }

    fn said(signature: &Signature, inputs: Vec<Tensor>) -> String {
        fit(signature, inputs).unwrap_err().to_string()
    }

    #[test]
    fn a_matrix_is_its_columns_in_order() {
        let matrix = tensor("x", &[2, 2], Data::Int32(vec![1, 2, 3, 4]));
        let fitted = fit(&table(), vec![matrix]).unwrap();
        assert_eq!(fitted, [tensor("a", &[2], Data::Fp64(vec![1.0, 3.0])), tensor("b", &[2], Data::Int64(vec![2, 4]))]);
        let matrix = tensor("x", &[1, 3], Data::Int32(vec![1, 2, 3]));
        assert_eq!(said(&table(), vec![matrix]), "the model wants 2 features (a, b), and `x` has 3 in each row");
        let matrix = tensor("x", &[9, 2], Data::Int32(vec![1]));
        assert!(said(&table(), vec![matrix]).contains("9, 2"));
    }

    #[test]
    fn columns_of_data_frames_lose_their_second_dimension() {
        let columns =
            vec![tensor("b", &[2, 1], Data::Int64(vec![1, 2])), tensor("a", &[2], Data::Fp32(vec![0.5, 1.0]))];
        let fitted = fit(&table(), columns).unwrap();
        assert_eq!(fitted[0].shape, [2]);
        let mut optional = table();
        optional.optional = vec![1];
        let alone = fit(&optional, vec![tensor("a", &[2, 1], Data::Fp64(vec![0.5, 1.0]))]).unwrap();
        assert_eq!(alone[0], tensor("a", &[2], Data::Fp64(vec![0.5, 1.0])));
        assert_eq!(fitted[1].data, Data::Fp64(vec![0.5, 1.0]));
    }

    #[test]
    fn whole_numbers_widen_and_no_value_changes() {
        let wide =
            |data| fit(&signature(&[("a", Datatype::Fp64)]), vec![tensor("a", &[1], data)]).unwrap().remove(0).data;
        assert_eq!(wide(Data::Int64(vec![24])), Data::Fp64(vec![24.0]));
        assert_eq!(wide(Data::Int64(vec![i64::MAX])), Data::Int64(vec![i64::MAX]), "left, and refused for its type");
        let narrow =
            fit(&signature(&[("a", Datatype::Int64)]), vec![tensor("a", &[1], Data::Fp64(vec![1.0]))]).unwrap();
        assert_eq!(narrow[0].data, Data::Fp64(vec![1.0]), "left, and refused for its type");
    }

    #[test]
    fn missing_columns_are_named_all_at_once_and_a_wrong_name_first() {
        let wanted = signature(&[("a", Datatype::Fp64), ("b", Datatype::Int64), ("c", Datatype::Bytes)]);
        let a = || tensor("a", &[1], Data::Fp64(vec![1.0]));
        assert_eq!(said(&wanted, vec![a()]), "2 columns are missing: `b` (INT64), `c` (BYTES)");
        let c = tensor("c", &[1], Data::Bytes(vec!["x".into()]));
        assert_eq!(said(&wanted, vec![a(), c]), "1 column is missing: `b` (INT64)");
        let typo = tensor("B", &[1], Data::Int64(vec![1]));
        assert!(fit(&wanted, vec![a(), typo]).is_ok(), "the signature's own check says which name is near");
    }

    #[test]
    fn optional_columns_may_be_left_out() {
        let mut wanted = signature(&[("a", Datatype::Fp64), ("b", Datatype::Int64), ("c", Datatype::Bytes)]);
        wanted.optional = vec![1];
        let (a, c) = (tensor("a", &[1], Data::Fp64(vec![1.0])), tensor("c", &[1], Data::Bytes(vec!["x".into()])));
        let fitted = fit(&wanted, vec![a.clone(), c.clone()]).unwrap();
        assert_eq!(fitted, [a.clone(), c, tensor("b", &[0], Data::Int64(vec![]))]);
        let ordered = crate::run::validate::order_inputs(&wanted, fitted).unwrap();
        assert_eq!(crate::run::validate::same_rows(&wanted, &ordered), Ok(()));
        wanted.optional.clear();
        assert!(crate::run::validate::same_rows(&wanted, &ordered).is_err());
        wanted.optional = vec![1];
        assert_eq!(said(&wanted, vec![a]), "1 column is missing: `c` (BYTES)");
    }

    #[test]
    fn rows_of_another_width_are_counted() {
        let mut wanted = signature(&[("input", Datatype::Fp64)]);
        wanted.inputs[0].shape = vec![-1, 10];
        let nine = tensor("input", &[1, 9], Data::Fp32(vec![0.0; 9]));
        assert_eq!(said(&wanted, vec![nine]), "the model wants 10 features, and `input` has 9 in each row");
        let ten = tensor("input", &[1, 10], Data::Fp32(vec![0.0; 10]));
        assert_eq!(fit(&wanted, vec![ten]).unwrap()[0].datatype(), Datatype::Fp64);
    }

    #[test]
    fn other_models_are_left_alone() {
        let mut other = table();
        other.platform = "onnxruntime_onnx";
        let matrix = tensor("x", &[2, 2], Data::Int32(vec![1, 2, 3, 4]));
        assert_eq!(fit(&other, vec![matrix.clone()]).unwrap(), [matrix]);
    }
}
