//! Requests of MLflow's as those of V2 that say the same, and answers of V2 as MLflow's.

use serde_json::{Map, Value, json};

/// The request of V2 that a body means, if V2 has one: rows by the names of the model's columns, each value as the
/// column's datatype has it.
pub(crate) fn request(body: &str, metadata: &Value) -> Option<Value> {
    let body: Value = serde_json::from_str(body).ok()?;
    let rows = body.get("dataframe_records")?.as_array().filter(|rows| !rows.is_empty())?;
    if body.get("params").is_some() {
        return None;
    }
    let rows: Vec<&Map<String, Value>> = rows.iter().map(Value::as_object).collect::<Option<_>>()?;
    let tensor = |name: &String| {
        let input = metadata["inputs"].as_array()?.iter().find(|input| input["name"] == **name)?;
        let datatype = input["datatype"].as_str()?;
        let values: Vec<&Value> = rows.iter().map(|row| row.get(name)).collect::<Option<_>>()?;
        let data: Vec<Value> = values.into_iter().map(|value| element(name, datatype, value)).collect::<Option<_>>()?;
        (input["shape"] == json!([-1]))
            .then(|| json!({"name": name, "datatype": datatype, "shape": [rows.len()], "data": data}))
    };
    let inputs: Vec<Value> = rows[0].keys().map(tensor).collect::<Option<_>>()?;
    (!inputs.is_empty()).then(|| json!({"inputs": inputs}))
}

fn element(name: &str, datatype: &str, value: &Value) -> Option<Value> {
    let fits = match datatype {
        "BOOL" => value.is_boolean(),
        "BYTES" => value.is_string(),
        datatype if datatype.starts_with("FP") => value.is_number(),
        _ => value.is_i64(),
    };
    let element = || if name == "binary" && fits { json!({ "b64": value }) } else { value.clone() };
    (fits || value.is_null()).then(element)
}

/// The predictions that an answer of one output means.
pub(crate) fn predictions(answer: &Value) -> Value {
    let output = &answer["outputs"][0];
    let rows = output["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |value: &Value| match value.as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        None => value.clone(),
    };
    rows.iter().map(read).collect()
}
