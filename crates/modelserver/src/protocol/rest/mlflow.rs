//! The paths of MLflow's own scoring server, for its clients: `/invocations`, `/ping`, `/version`.
//!
//! They name no model, so they work only if one model is served. A body is converted to V1: data frame records become a
//! list of instances; a split data frame becomes columns by name if the model has named columns, and otherwise rows.

mod csv;
mod frame;
mod split;

use std::{borrow::Cow, collections::BTreeSet};

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use inference::Ignored;
use serde_json::value::RawValue;

use self::split::{NAN, Split, is_float, list, object};
use super::{
    answer::{Answered, Refusal},
    asked::{Asked, POST},
    fields::Fields,
    v1::{self, Form},
};
use crate::{
    error::InferError,
    mlflow::document::{self, Door},
    protocol::app::App,
    runtime::{Logged, Signature},
};

/// The forms of a body.
const FORMS: &str = "`dataframe_split`, `dataframe_records`, `instances` or `inputs`";

/// `POST /invocations`.
pub(super) async fn invocations(asked: Asked<'_>) -> Answered {
    asked.only(POST)?;
    let kind = asked.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    let mut parts = kind.split(';');
    let form = parts.next().unwrap_or_default();
    let charset = parts.filter_map(|one| one.split_once('=')).find(|(name, _)| is(name, "charset"));
    if let Some((_, charset)) = charset.filter(|(_, set)| !is(set.trim().trim_matches('"'), "utf-8")) {
        let reason = format!("the body is in {}, and only UTF-8 is read", charset.trim());
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).closing());
    }
    if form.contains("parquet") {
        let reason = format!("Parquet is not read here: send CSV, or JSON with {FORMS}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).closing());
    }
    let name = only_model(asked.app)?;
    if is(form, "text/csv") {
        return v1::predict_as(asked, &name, None, Door::Csv, of_csv).await;
    }
    v1::predict_as(asked, &name, None, Door::Invocations, rewritten).await
}

/// Whether a part of a header value is this word.
fn is(part: &str, word: &str) -> bool {
    part.trim().eq_ignore_ascii_case(word)
}

/// A CSV table, in the form of V1.
fn of_csv(signature: &Signature, body: Bytes, ignored: &mut Ignored) -> Result<(Bytes, Form), InferError> {
    let text = std::str::from_utf8(&body).map_err(|_| InferError::Invalid("the CSV is not UTF-8".to_owned()))?;
    if document::takes(signature) {
        return Err(InferError::Invalid("the model's worker reads CSV".to_owned()));
    }
    if signature.logged == Logged::Elsewhere {
        return Err(InferError::Invalid(format!("CSV is read for models of MLflow's only: send JSON with {FORMS}")));
    }
    rewritten(signature, csv::as_split(text).map_err(InferError::Invalid)?.into(), ignored)
}

/// The single served model.
fn only_model(app: &App) -> Result<String, InferError> {
    let names: BTreeSet<_> = app.models.all().iter().map(|model| model.name.clone()).collect();
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        (Some(_), Some(_)) => Err(InferError::NotFound(
            "several models are served, and /invocations names none: use /v1/models/{model}:predict".to_owned(),
        )),
        (None, _) => Err(InferError::NotReady("the server is still loading its models".to_owned())),
    }
}

/// The same in V1's form, and how it is answered.
fn rewritten(signature: &Signature, body: Bytes, ignored: &mut Ignored) -> Result<(Bytes, Form), InferError> {
    Fields::of_body(&body, FORMS, |fields| of_fields(signature, fields, ignored))
}

/// The form of MLflow's answers for an ONNX model: records for a data frame, and arrays by name for arrays.
fn form_of(signature: &Signature, given: &str) -> Form {
    match signature.logged {
        Logged::Elsewhere => Form::V1,
        Logged::Table(_) => Form::Records,
        Logged::Bare if given.starts_with("dataframe") => Form::Records,
        Logged::Bare | Logged::Tensors => Form::Arrays,
    }
}

fn of_fields(signature: &Signature, fields: &Fields<'_>, ignored: &mut Ignored) -> Result<(Bytes, Form), InferError> {
    let invalid = |reason: String| InferError::Invalid(reason);
    const KNOWN: [&str; 5] = ["dataframe_split", "dataframe_records", "instances", "inputs", "params"];
    fields.names().filter(|name| !KNOWN.contains(name)).for_each(|name| ignored.add("", name));
    let parameters = match fields.get("params") {
        Some(params) => format!(",\"parameters\":{}", params.get()),
        None => String::new(),
    };
    let given: Vec<_> = KNOWN[..4].iter().filter_map(|name| Some((*name, fields.get(name)?))).collect();
    let form = given.first().map_or(Form::V1, |(name, _)| form_of(signature, name));
    if let ([(name, value)], true) = (given.as_slice(), signature.logged != Logged::Elsewhere)
        && let Some((name, value)) = frame::rewritten(signature, name, value, ignored)?
    {
        return Ok((format!("{{\"{name}\":{value}{parameters}}}").into(), form));
    }
    let (name, value) = match given.as_slice() {
        [("dataframe_split", value)] => by_column(signature, &Split::read(value)?),
        [("dataframe_records", value)] => {
            let records: Vec<Fields<'_>> = serde_json::from_str(value.get())
                .map_err(|error| invalid(format!("`dataframe_records` is not a list of objects: {error}")))?;
            ("instances", by_record(signature, &records))
        }
        [(name, _)] if !signature.base64.is_empty() => {
            // The worker reads it: V1 encodes bytes differently.
            return Err(invalid(format!("`{name}` holds bytes in base64")));
        }
        [(name, value)] => (*name, value.get().to_owned()),
        [] => {
            let names = ignored.header().unwrap_or_default();
            return Err(invalid(format!("the body has none of {FORMS}; its fields are: {names}")));
        }
        _ => return Err(invalid(format!("the body has one of {FORMS}, not {}", given.len()))),
    };
    Ok((format!("{{\"{name}\":{value}{parameters}}}").into(), form))
}

/// The field of a V1 body for a split data frame, and its value.
fn by_column(signature: &Signature, split: &Split<'_>) -> (&'static str, String) {
    let names: Option<Vec<Cow<'_, str>>> =
        split.columns.iter().map(|name| serde_json::from_str::<Cow<'_, str>>(name.get()).ok()).collect();
    let is_object = matches!(signature.json.as_slice(), [0]) && signature.inputs.len() == 1;
    let mut out = String::new();
    if let (true, Some(names)) = (is_object, names.as_ref().filter(|names| !names.is_empty())) {
        // A row is an object with the names of the columns; the JSON input is this object, or has it under its name.
        list(&mut out, &split.data, |out, row| {
            let fields = names.iter().map(Cow::as_ref).zip(row);
            object(out, fields, |out, value| out.push_str(value.get()));
        });
        return ("instances", out);
    }
    let Some(names) = names.filter(|names| are_inputs(signature, names)) else {
        let single = signature.inputs.len() == 1;
        list(&mut out, &split.data, |out, row| {
            list(out, row.iter().enumerate(), |out, (place, value)| {
                out.push_str(&cell(signature, Some(if single { 0 } else { place }), value));
            });
        });
        return ("instances", out);
    };
    let columns = names.iter().enumerate().map(|(place, name)| (name.as_ref(), (place, place_of(signature, name))));
    object(&mut out, columns, |out, (place, input)| {
        list(out, &split.data, |out, row| out.push_str(&cell(signature, input, row[place])));
    });
    ("inputs", out)
}

/// The instances for records.
fn by_record(signature: &Signature, records: &[Fields<'_>]) -> String {
    let mut out = String::new();
    list(&mut out, records, |out, record| {
        let fields = record.0.iter().map(|(name, value)| (name.as_ref(), (place_of(signature, name), *value)));
        object(out, fields, |out, (input, value)| out.push_str(&cell(signature, input, value)));
    });
    out
}

fn place_of(signature: &Signature, name: &str) -> Option<usize> {
    signature.inputs.iter().position(|input| input.name == name)
}

/// A value for the input at a position, in the form of V1: bytes are base64, and a number may be missing.
fn cell<'j>(signature: &Signature, place: Option<usize>, value: &'j RawValue) -> Cow<'j, str> {
    let text = value.get();
    match place.and_then(|place| Some((place, signature.inputs.get(place)?))) {
        Some((place, _)) if signature.base64.contains(&place) && text.starts_with('"') => {
            Cow::Owned(format!("{{\"b64\":{text}}}"))
        }
        Some((_, input)) if is_float(input) && is_null(value) => Cow::Borrowed(NAN),
        _ => Cow::Borrowed(text),
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether the columns are the model's inputs. Those of a model with one input for whole rows are known by their
/// order alone.
fn are_inputs(signature: &Signature, names: &[Cow<'_, str>]) -> bool {
    match (signature.inputs.as_slice(), names) {
        (_, []) => false,
        _ if crate::mlflow::table::is_table(signature) => true,
        ([input], [name]) => input.name == *name,
        (inputs, _) => inputs.len() > 1,
    }
}

#[cfg(test)]
mod tests {
    use inference::{Datatype, TensorMetadata};

    use super::*;

    fn signature(columns: &[&str]) -> Signature {
        let column = |name: &&str| TensorMetadata {
            name: (*name).to_owned(),
            datatype: Datatype::Fp64,
            shape: vec![-1],
            labels: Vec::new(),
        };
        Signature {
            platform: crate::runtime::MLFLOW,
            inputs: columns.iter().map(column).collect(),
            outputs: Vec::new(),
            rows: true,
            ..Signature::default()
        }
    }

    fn is(body: &'static str) -> String {
        match rewritten(&signature(&["a", "b"]), Bytes::from_static(body.as_bytes()), &mut Ignored::default()) {
            Ok((body, form)) => {
                assert_eq!(form, Form::V1);
                String::from_utf8(body.to_vec()).unwrap()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn data_frames_become_instances_or_columns() {
        let split = r#"{"dataframe_split": {"columns": ["b", "a"], "index": [0, 1], "data": [[1, 2.5], [3, 4]]}}"#;
        assert_eq!(is(split), r#"{"inputs":{"b":[1,3],"a":[2.5,4]}}"#);
        let numbered = r#"{"dataframe_split": {"columns": [0, 1], "data": [[1, 2.5]]}}"#;
        assert_eq!(is(numbered), r#"{"instances":[[1,2.5]]}"#);
        assert_eq!(is(r#"{"dataframe_records": [{"a": 1, "b": 2}]}"#), r#"{"instances":[{"a":1,"b":2}]}"#);
        assert_eq!(is(r#"{"inputs": {"a": [1]}}"#), r#"{"inputs":{"a": [1]}}"#);
    }

    #[test]
    fn parameters_go_along() {
        let body = r#"{"instances": [[1, 2]], "params": {"n": 3}}"#;
        assert_eq!(is(body), r#"{"instances":[[1, 2]],"parameters":{"n": 3}}"#);
    }

    #[test]
    fn bytes_are_in_base64_and_numbers_may_be_missing() {
        let mut table = signature(&["a", "b", "c"]);
        table.inputs[1].datatype = Datatype::Bytes;
        (table.base64, table.optional) = (vec![1], vec![2]);
        let of = |body: &'static str| {
            rewritten(&table, Bytes::from_static(body.as_bytes()), &mut Ignored::default()).unwrap().0
        };
        let split = r#"{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[null, "AP8=", null]]}}"#;
        assert_eq!(of(split), r#"{"inputs":{"a":["NaN"],"b":[{"b64":"AP8="}],"c":["NaN"]}}"#);
        let records = r#"{"dataframe_records": [{"a": 1, "b": "AP8="}, {"a": 2, "b": "", "c": 3}]}"#;
        let wanted = r#"{"instances":[{"a":1,"b":{"b64":"AP8="}},{"a":2,"b":{"b64":""},"c":3}]}"#;
        assert_eq!(of(records), wanted);
        let records = r#"{"dataframe_records": [{"a": null, "b": "", "c": null}]}"#;
        assert_eq!(of(records), r#"{"instances":[{"a":"NaN","b":{"b64":""},"c":"NaN"}]}"#);
    }

    #[test]
    fn the_columns_of_any_model_with_several_inputs_go_by_name() {
        let body = Bytes::from_static(br#"{"dataframe_split": {"columns": ["b", "a"], "data": [[1, 2]]}}"#);
        let of = |names: &[&str]| Signature { platform: "onnxruntime_onnx", ..signature(names) };
        assert_eq!(
            rewritten(&of(&["a", "b"]), body.clone(), &mut Ignored::default()).unwrap().0,
            r#"{"inputs":{"b":[1],"a":[2]}}"#
        );
        assert_eq!(rewritten(&of(&["x"]), body, &mut Ignored::default()).unwrap().0, r#"{"instances":[[1,2]]}"#);
        let body = Bytes::from_static(br#"{"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}"#);
        assert_eq!(rewritten(&of(&["x"]), body, &mut Ignored::default()).unwrap().0, r#"{"inputs":{"x":[1,2]}}"#);
    }

    #[test]
    fn what_is_no_data_frame_is_said() {
        assert!(is(r#"{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}"#).contains("row 0 has 2 values"));
        let index = r#"{"dataframe_split": {"columns": ["a"], "index": [0], "data": [[1], [2]]}}"#;
        assert_eq!(is(index), "`dataframe_split`: `index` has 1 values, and `data` 2");
        let unknown = r#"{"dataframe_split": {"column": ["a"], "data": [[1]]}}"#;
        assert!(is(unknown).contains("unknown field `column`, expected one of `columns`, `index`, `data`"));
        assert!(is(r#"{"instances": [], "inputs": []}"#).contains("not 2"));
        assert!(is(r#"{"rows": []}"#).contains("its fields are: rows"));
        assert!(is(r#"{"dataframe_records": [1]}"#).contains("`dataframe_records` is not a list of objects"));
    }
}
