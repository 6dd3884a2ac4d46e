//! Converts instances and columns to tensors.

use std::borrow::Cow;

use api::decode::nearest;
use bytes::Bytes;
use inference::{
    Data, Datatype, Ignored, Parameters, Request, Tensor, TensorMetadata, begins_with_bare_float, nested_data,
    restore_bare_floats,
};
use serde_json::{json, value::RawValue};

use super::super::fields::Fields;
use crate::{
    error::InferError,
    mlflow::{
        document::{self, Door},
        table::is_table,
    },
    runtime::Signature,
};

const KNOWN: [&str; 4] = ["instances", "inputs", "parameters", "signature_name"];

/// The request in a body. Unknown fields are ignored and recorded.
pub(super) fn request(signature: &Signature, body: &[u8]) -> Result<Request, InferError> {
    Fields::of_body(body, "`instances`", |fields| of_fields(signature, fields))
}

/// The fields of MLflow's bodies for chats, completions and embeddings.
const OF_CHATS: [&str; 3] = ["messages", "prompt", "input"];

/// A request that is passed to the worker of an MLflow model unchanged. `None`: a worker could not read the body.
pub(super) fn document(door: Door, body: &Bytes) -> Option<Request> {
    let (forms, parameters): (&[&str], _) = match door {
        Door::Csv => {
            let text = std::str::from_utf8(body).ok()?;
            return Some(document::request(door, json!(text).to_string().into(), None));
        }
        Door::Invocations => (&["dataframe_split", "dataframe_records", "instances", "inputs"], "params"),
        Door::V1 | Door::V2 | Door::Generate => (&["instances", "inputs"], "parameters"),
    };
    let read = Fields::of_body(body, "`inputs`", |fields| {
        if door == Door::Invocations && fields.names().any(|name| OF_CHATS.contains(&name)) {
            return Ok(Some(document::request(door, body.clone(), None)));
        }
        if fields.names().filter(|name| forms.contains(name)).count() != 1 {
            return Ok(None);
        }
        let mut request = document::request(door, body.clone(), fields.get(parameters));
        let known = |name: &str| forms.contains(&name) || [parameters, "signature_name"].contains(&name);
        fields.names().filter(|name| !known(name)).for_each(|name| request.ignored.add("", name));
        Ok(Some(request))
    });
    read.ok().flatten()
}

fn of_fields(signature: &Signature, fields: &Fields<'_>) -> Result<Request, InferError> {
    let mut ignored = Ignored::default();
    fields.names().filter(|field| !KNOWN.contains(field)).for_each(|field| ignored.add("", field));
    let parameters = match fields.get("parameters") {
        Some(given) => serde_json::from_str::<Option<Parameters>>(given.get())
            .map_err(|error| invalid(format!("`parameters` is not an object with parameters: {error}")))?,
        None => None,
    };
    let inputs = tensors(signature, fields)?;
    // A model that only MLflow can load distinguishes no parameters from an empty object. Such requests are not
    // batched.
    let empty = !signature.rows && parameters.as_ref().is_some_and(Parameters::is_empty);
    if document::takes(signature) && (empty || signature.plain || document::holds_json(signature, &inputs)) {
        return Err(invalid("the model's worker reads values that are JSON"));
    }
    Ok(Request { inputs, parameters: parameters.unwrap_or_default(), ignored, ..Request::default() })
}

fn tensors(signature: &Signature, fields: &Fields<'_>) -> Result<Vec<Tensor>, InferError> {
    match (fields.get("instances"), fields.get("inputs")) {
        (Some(instances), None) => rows(signature, instances, "instances"),
        (None, Some(inputs)) => columns(signature, inputs),
        (Some(_), Some(_)) => Err(invalid("the body has both `instances` and `inputs`")),
        (None, None) => {
            let near = nearest("instances", fields.names());
            let hint =
                near.map_or_else(String::new, |near| format!("; `{near}` is not a field: did you mean `instances`?"));
            Err(invalid(format!("`instances` is missing{hint}: {{\"instances\": [[1, 2], [3, 4]]}}")))
        }
    }
}

fn invalid(reason: impl Into<String>) -> InferError {
    InferError::Invalid(reason.into())
}

fn short(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(64) {
        None => name.into(),
        Some((end, _)) => format!("{}…", &name[..end]).into(),
    }
}

/// A list of instances. For a model with one input: its values, or objects with its name. For a model with several:
/// objects with a value for each, or lists of values in the order of the inputs. `field` is the name of the list.
fn rows(signature: &Signature, instances: &RawValue, field: &str) -> Result<Vec<Tensor>, InferError> {
    let inputs = signature.inputs.as_slice();
    let Some(list) = instances.get().strip_prefix('[') else {
        return Err(invalid(format!("Expected \"{field}\" to be a list")));
    };
    let first = list.trim_ascii_start().bytes().next();
    if first == Some(b']') {
        return Err(invalid(format!("`{field}` is empty: there is nothing to predict")));
    }
    match (inputs, first) {
        ([input], _) if is_json(signature, input) && !are_by_name(input, instances) => {
            Ok(vec![rows_of(signature, input, instances.get(), field)?])
        }
        ([input], Some(b'{')) if encoded(input, list) || is_word(list) => {
            Ok(vec![rows_of(signature, input, instances.get(), field)?])
        }
        (_, Some(b'{')) if !is_word(list) => objects(signature, instances, field),
        ([input], _) => Ok(vec![rows_of(signature, input, instances.get(), field)?]),
        (_, Some(b'[')) => lists(signature, instances, field),
        _ => Err(invalid(format!(
            "the model has {} inputs, so that each instance is an object with a value for each, or a list of their \
             values in this order: {}",
            inputs.len(),
            names(inputs)
        ))),
    }
}

/// Whether the elements of an input are JSON.
fn is_json(signature: &Signature, input: &TensorMetadata) -> bool {
    signature.json.iter().any(|place| signature.inputs[*place].name == input.name)
}

/// Whether each instance is an object that contains only the input by its name, and not the value of the input.
fn are_by_name(input: &TensorMetadata, instances: &RawValue) -> bool {
    let rows: Vec<&RawValue> = serde_json::from_str(instances.get()).unwrap_or_default();
    let by_name = |row: &RawValue| {
        let fields = || serde_json::from_str::<Fields<'_>>(row.get());
        row.get().starts_with('{') && fields().is_ok_and(|fields| fields.names().eq([input.name.as_str()]))
    };
    rows.into_iter().all(by_name)
}

/// Whether a list begins with the placeholder of a bare `NaN` or `Infinity`.
fn is_word(list: &str) -> bool {
    begins_with_bare_float(list.trim_ascii_start())
}

/// Whether objects are `{"b64": "…"}`, the bytes of a string, and not rows.
fn encoded(input: &TensorMetadata, list: &str) -> bool {
    let named =
        || list.trim_ascii_start().strip_prefix('{').is_some_and(|rest| rest.trim_ascii_start().starts_with("\"b64\""));
    input.datatype == Datatype::Bytes && input.name != "b64" && named()
}

fn names(inputs: &[TensorMetadata]) -> String {
    let names: Vec<_> = inputs.iter().take(32).map(|input| format!("`{}`", input.name)).collect();
    names.join(", ")
}

fn objects(signature: &Signature, instances: &RawValue, field: &str) -> Result<Vec<Tensor>, InferError> {
    let inputs = signature.inputs.as_slice();
    let rows: Vec<Fields<'_>> =
        serde_json::from_str(instances.get()).map_err(|e| invalid(format!("`{field}`: {e}")))?;
    for (place, row) in rows.iter().enumerate() {
        known_inputs(inputs, row.names(), &format!("{field}[{place}]"))?;
    }
    let column = |input: &TensorMetadata| {
        let values = rows.iter().enumerate().map(|(place, row)| {
            row.get(&input.name).map(RawValue::get).ok_or_else(|| {
                let name = &input.name;
                invalid(format!("`{name}` is missing in some of the instances: the first is {field}[{place}]"))
            })
        });
        cells(signature, rows_of(signature, input, &join(values)?, &input.name)?)
    };
    // MLflow distinguishes null in a column from an absent column.
    let is_absent = |value: Option<&RawValue>| match value {
        None => true,
        Some(value) => value.get() == "null" && !document::takes(signature),
    };
    let left_out = |(place, input): &(usize, &TensorMetadata)| {
        signature.optional.contains(place) && rows.iter().all(|row| is_absent(row.get(&input.name)))
    };
    let sent = inputs.iter().enumerate().filter(|each| !left_out(each));
    sent.map(|(_, input)| column(input)).collect()
}

fn lists(signature: &Signature, instances: &RawValue, field: &str) -> Result<Vec<Tensor>, InferError> {
    let inputs = signature.inputs.as_slice();
    let rows: Vec<Vec<&RawValue>> =
        serde_json::from_str(instances.get()).map_err(|e| invalid(format!("`{field}`: {e}")))?;
    if let Some((place, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != inputs.len()) {
        return Err(invalid(format!(
            "{field}[{place}] has {} values, the model has {} inputs: {}",
            row.len(),
            inputs.len(),
            names(inputs)
        )));
    }
    let column = |(place, input): (usize, &TensorMetadata)| {
        let values = join(rows.iter().map(|row| Ok(row[place].get())))?;
        cells(signature, rows_of(signature, input, &values, &input.name)?)
    };
    inputs.iter().enumerate().map(column).collect()
}

/// A list of values that are already JSON.
fn join<'v>(values: impl Iterator<Item = Result<&'v str, InferError>>) -> Result<String, InferError> {
    let mut list = String::from("[");
    for value in values {
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(value?);
    }
    list.push(']');
    Ok(list)
}

/// Whole columns: an object with a list for each input, or the list for the single input.
fn columns(signature: &Signature, given: &RawValue) -> Result<Vec<Tensor>, InferError> {
    let with_defaults;
    let inputs = if signature.defaults.is_empty() || !given.get().starts_with('{') {
        signature.inputs.as_slice()
    } else {
        with_defaults = [signature.inputs.as_slice(), signature.defaults.as_slice()].concat();
        &with_defaults
    };
    if !given.get().starts_with('{') {
        return match inputs {
            [input] if !is_json(signature, input) => Ok(vec![column(signature, input, given.get(), "inputs")?]),
            // A list of objects is rows.
            _ if given.get().starts_with('[') => rows(signature, given, "inputs"),
            _ => Err(invalid(format!(
                "`inputs` is an object with a list for each input of the model: {}",
                names(inputs)
            ))),
        };
    }
    let columns: Fields<'_> = serde_json::from_str(given.get()).map_err(|e| invalid(format!("`inputs`: {e}")))?;
    known_inputs(inputs, columns.names(), "`inputs`")?;
    let given = inputs.iter().filter_map(|input| Some((input, columns.get(&input.name)?)));
    given.map(|(input, given)| cells(signature, column(signature, input, given.get(), &input.name)?)).collect()
}

/// A column of an MLflow table, whose cells are not lists.
fn cells(signature: &Signature, column: Tensor) -> Result<Tensor, InferError> {
    if column.shape.len() > 1 && is_table(signature) {
        return Err(invalid(format!("`{}`: a column has one value in each row, and here are lists", column.name)));
    }
    Ok(column)
}

fn known_inputs<'n>(
    inputs: &[TensorMetadata],
    mut given: impl Iterator<Item = &'n str>,
    place: &str,
) -> Result<(), InferError> {
    match given.find(|name| inputs.iter().all(|input| input.name != *name)) {
        None => Ok(()),
        Some(name) => {
            let near = nearest(name, inputs.iter().map(|input| input.name.as_str()));
            let hint =
                near.map_or_else(|| format!("; it has {}", names(inputs)), |near| format!("; did you mean `{near}`?"));
            Err(invalid(format!("{place}: the model has no input `{}`{hint}", short(name))))
        }
    }
}

/// One input over all rows. A scalar exists once for all rows, so its value must be the same in each.
fn rows_of(signature: &Signature, input: &TensorMetadata, lists: &str, place: &str) -> Result<Tensor, InferError> {
    if is_json(signature, input) {
        return json_rows(input, lists, place);
    }
    let tensor = tensor(signature, input, lists, place)?;
    if !is_scalar(signature, input) || tensor.data.len() < 2 {
        return Ok(tensor);
    }
    let value = |place: usize| {
        let mut value = Data::empty(tensor.datatype());
        value.append(&tensor.data, place..place + 1);
        value
    };
    let first = value(0);
    match (1..tensor.data.len()).find(|place| value(*place) != first) {
        None => Ok(Tensor { shape: Vec::new(), data: first, name: tensor.name }),
        Some(other) => Err(invalid(format!(
            "`{place}`: the model takes one value of `{}` for all rows, and that of row {other} is another than \
             that of row 0: send rows with different values in requests of their own",
            input.name
        ))),
    }
}

/// The rows of an input with JSON elements: each is the text of its value.
pub(in crate::protocol::rest) fn json_rows(
    input: &TensorMetadata,
    lists: &str,
    place: &str,
) -> Result<Tensor, InferError> {
    let rows: Vec<&RawValue> =
        serde_json::from_str(lists).map_err(|_| invalid(format!("`{place}` is a list with a value for each row")))?;
    let text = |row: &&RawValue| Bytes::copy_from_slice(restore_bare_floats(row.get()).as_bytes());
    let data = Data::Bytes(rows.iter().map(text).collect());
    Ok(Tensor { name: input.name.clone(), shape: vec![i64::try_from(rows.len()).unwrap_or(i64::MAX)], data })
}

/// One whole input. A scalar may be a single value.
fn column(signature: &Signature, input: &TensorMetadata, given: &str, place: &str) -> Result<Tensor, InferError> {
    if is_json(signature, input) {
        return json_rows(input, given, place);
    }
    if is_scalar(signature, input) && !given.starts_with('[') {
        return tensor(signature, input, &format!("[{given}]"), place);
    }
    tensor(signature, input, given, place)
}

fn is_scalar(signature: &Signature, input: &TensorMetadata) -> bool {
    let place = signature.inputs.iter().chain(&signature.defaults).position(|known| known.name == input.name);
    input.shape.is_empty() && place.is_none_or(|place| !signature.unranked.contains(&place))
}

/// Reads lists into the tensor of an input. Dimensions of 1 at its end, which users often omit for columns, are added;
/// for MLflow tensors, dimensions of any size cannot be omitted.
fn tensor(signature: &Signature, input: &TensorMetadata, lists: &str, place: &str) -> Result<Tensor, InferError> {
    let (mut shape, data) = nested_data(lists, input.datatype).map_err(|e| invalid(format!("`{place}`: {e}")))?;
    let missing = input.shape.get(shape.len()..).unwrap_or_default();
    let any = !document::takes(signature) || is_table(signature);
    if missing.iter().all(|size| *size == 1 || (*size == -1 && any)) {
        shape.resize(shape.len() + missing.len(), 1);
    }
    Ok(Tensor { name: input.name.clone(), shape, data })
}
