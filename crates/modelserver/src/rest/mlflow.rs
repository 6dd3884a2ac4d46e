//! The paths of MLflow's own scoring server, for its clients: `/invocations`, `/ping`, `/version`.
//!
//! They name no model, so that they work where one is served. A body becomes that of V1: a data frame by records is
//! a list of instances; one that is split is columns by name where the model has named columns, and rows otherwise.

use std::{borrow::Cow, collections::BTreeSet};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    Asked, POST,
    answer::{Answered, Refusal},
    fields::Fields,
    v1,
};
use crate::{app::App, error::InferError, runtime::Signature};

/// The forms that a body may have.
const FORMS: &str = "`dataframe_split`, `dataframe_records`, `instances` or `inputs`";

/// `POST /invocations`.
pub(super) async fn invocations(asked: Asked<'_>) -> Answered {
    asked.only(POST)?;
    let kind = asked.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    if kind.starts_with("text/csv") {
        return Err(Refusal::bad(format!("CSV is not read here: send JSON with {FORMS}")).closing());
    }
    let name = only_model(asked.app)?;
    v1::predict_as(asked, &name, None, rewritten).await
}

/// The one model that is served.
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

/// A data frame as pandas splits it. Its index says nothing to a model.
#[derive(Deserialize)]
struct Split<'j> {
    #[serde(borrow, default)]
    columns: Vec<&'j RawValue>,
    #[serde(borrow)]
    data: Vec<Vec<&'j RawValue>>,
}

/// The same in V1's form.
fn rewritten(signature: &Signature, body: Bytes) -> Result<Bytes, InferError> {
    let invalid = |reason: String| InferError::Invalid(reason);
    let fields: Fields<'_> = serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("the body is not a JSON object with {FORMS}: {error}")))?;
    const KNOWN: [&str; 5] = ["dataframe_split", "dataframe_records", "instances", "inputs", "params"];
    if let Some(unknown) = fields.names().find(|name| !KNOWN.contains(name)) {
        let shown: String = unknown.chars().take(64).collect();
        return Err(invalid(format!("`{shown}` is not a field of the body; it has one of {FORMS}")));
    }
    if fields.get("params").is_some_and(|params| !matches!(params.get().trim(), "{}" | "null")) {
        return Err(invalid("`params` are not given to models here; leave them out".to_owned()));
    }
    let one = |name: &str, value: &RawValue| Bytes::from(format!("{{\"{name}\":{}}}", value.get()));
    let given: Vec<_> = KNOWN[..4].iter().filter_map(|name| Some((*name, fields.get(name)?))).collect();
    match given.as_slice() {
        [("dataframe_split", value)] => {
            let split: Split<'_> = serde_json::from_str(value.get()).map_err(|error| {
                invalid(format!("`dataframe_split` is not {{\"columns\": […], \"data\": [[…]]}}: {error}"))
            })?;
            by_column(signature, &split)
        }
        [("dataframe_records", value)] => Ok(one("instances", value)),
        [(name, value)] => Ok(one(name, value)),
        _ => Err(invalid(format!("the body has one of {FORMS}, not {}", given.len()))),
    }
}

fn by_column(signature: &Signature, split: &Split<'_>) -> Result<Bytes, InferError> {
    let width = split.columns.len();
    if let Some(row) = split.data.iter().position(|row| width > 0 && row.len() != width) {
        let reason =
            format!("`dataframe_split`: row {row} has {} values, and there are {width} columns", split.data[row].len());
        return Err(InferError::Invalid(reason));
    }
    let names: Option<Vec<Cow<'_, str>>> =
        split.columns.iter().map(|name| serde_json::from_str::<Cow<'_, str>>(name.get()).ok()).collect();
    let list = |values: Vec<&str>| format!("[{}]", values.join(","));
    match names.filter(|names| !names.is_empty() && crate::mlflow::table::is_table(signature)) {
        Some(names) => {
            let columns = names.iter().enumerate().map(|(place, name)| {
                format!("{}:{}", json!(name), list(split.data.iter().map(|row| row[place].get()).collect()))
            });
            Ok(format!("{{\"inputs\":{{{}}}}}", columns.collect::<Vec<_>>().join(",")).into())
        }
        None => {
            let rows = split.data.iter().map(|row| list(row.iter().map(|value| value.get()).collect()));
            Ok(format!("{{\"instances\":[{}]}}", rows.collect::<Vec<_>>().join(",")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use api::inference::{Datatype, TensorMetadata};

    use super::*;

    fn signature(columns: &[&str]) -> Signature {
        let column = |name: &&str| TensorMetadata {
            name: (*name).to_owned(),
            datatype: Datatype::Fp64,
            shape: vec![-1],
            labels: Vec::new(),
        };
        Signature {
            platform: crate::mlflow::PLATFORM,
            inputs: columns.iter().map(column).collect(),
            optional: Vec::new(),
            outputs: Vec::new(),
            rows: true,
            streams: false,
        }
    }

    fn is(body: &'static str) -> String {
        match rewritten(&signature(&["a", "b"]), Bytes::from_static(body.as_bytes())) {
            Ok(body) => String::from_utf8(body.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn data_frames_become_instances_or_columns() {
        let split = r#"{"dataframe_split": {"columns": ["b", "a"], "index": [0, 1], "data": [[1, 2.5], [3, 4]]}}"#;
        assert_eq!(is(split), r#"{"inputs":{"b":[1,3],"a":[2.5,4]}}"#);
        let numbered = r#"{"dataframe_split": {"columns": [0, 1], "data": [[1, 2.5]]}}"#;
        assert_eq!(is(numbered), r#"{"instances":[[1,2.5]]}"#);
        assert_eq!(is(r#"{"dataframe_records": [{"a": 1, "b": 2}]}"#), r#"{"instances":[{"a": 1, "b": 2}]}"#);
        assert_eq!(is(r#"{"inputs": {"a": [1]}, "params": {}}"#), r#"{"inputs":{"a": [1]}}"#);
    }

    #[test]
    fn what_is_no_data_frame_is_said() {
        assert!(is(r#"{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}"#).contains("row 0 has 2 values"));
        assert!(is(r#"{"instances": [], "inputs": []}"#).contains("not 2"));
        assert!(is(r#"{"rows": []}"#).contains("`rows` is not a field"));
        assert!(is(r#"{"instances": [], "params": {"x": 1}}"#).contains("`params`"));
    }
}
