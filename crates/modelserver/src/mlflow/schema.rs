//! The logged signature of a model, in the terms of the protocol.
//!
//! Each column of a table becomes one tensor `[-1]`; tensors do not change. Values that no tensor can hold (lists and
//! objects in a cell) are JSON texts.

use inference::Datatype;
use serde::Serialize;
use serde_json::Value;

use super::description::Description;

/// The inputs and outputs of a model, as far as they were logged.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Schema {
    /// Whether the inputs are columns of one table.
    pub(crate) table: bool,
    pub(crate) inputs: Option<Vec<Column>>,
    pub(crate) outputs: Option<Vec<Column>>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Column {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    /// MLflow's type name, which defines the meaning of text: `string`, `datetime`, `object`, or the name in NumPy.
    kind: String,
    required: bool,
    /// Whether it has a name, and not just a position.
    named: bool,
}

impl Column {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a name of its own, and not just its place.
    pub(crate) fn is_named(&self) -> bool {
        self.named
    }
}

impl Schema {
    pub(crate) fn of(description: &Description) -> Result<Self, String> {
        let read = |what: &str, given: &Option<Value>| {
            given
                .as_ref()
                .map(|value| columns(value).map_err(|reason| format!("its signature's {what}: {reason}")))
                .transpose()
        };
        let (inputs, outputs) = (read("inputs", &description.inputs)?, read("outputs", &description.outputs)?);
        let table = inputs.as_ref().is_some_and(|(table, _)| *table);
        Ok(Self { table, inputs: inputs.map(|(_, columns)| columns), outputs: outputs.map(|(_, columns)| columns) })
    }
}

/// Whether these are columns of a table, and each of them.
fn columns(value: &Value) -> Result<(bool, Vec<Column>), String> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or("there is no list of columns or tensors")?;
    let tensors = list.iter().filter(|item| kind(item) == Some("tensor")).count();
    if tensors != 0 && tensors != list.len() {
        return Err("some are columns and some are tensors".to_owned());
    }
    let alone = list.len() == 1;
    let columns: Vec<_> =
        list.iter().enumerate().map(|(place, item)| column(item, place, alone)).collect::<Result<_, _>>()?;
    if let Some((place, twice)) =
        columns.iter().enumerate().find(|(at, it)| columns[..*at].iter().any(|c| c.name == it.name))
    {
        return Err(format!("`{}` occurs twice, the second time at place {place}", twice.name));
    }
    Ok((tensors == 0, columns))
}

fn kind(item: &Value) -> Option<&str> {
    item.get("type").and_then(Value::as_str)
}

fn column(item: &Value, place: usize, alone: bool) -> Result<Column, String> {
    let own = item.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let named = own.is_some();
    let name = match own {
        Some(name) => name.to_owned(),
        // Unnamed columns are identified by their positions, as in the original table.
        _ if alone => "input".to_owned(),
        _ => place.to_string(),
    };
    let kind = kind(item).ok_or_else(|| format!("`{name}` has no type"))?;
    if kind == "tensor" {
        return tensor(item, name, named);
    }
    let datatype = match kind {
        "boolean" => Datatype::Bool,
        "integer" => Datatype::Int32,
        "long" => Datatype::Int64,
        "float" => Datatype::Fp32,
        "double" => Datatype::Fp64,
        "string" | "binary" | "datetime" | "array" | "object" | "map" | "any" => Datatype::Bytes,
        other => return Err(format!("`{name}` has the type {other}, which is none of MLflow's that are known here")),
    };
    // Older versions write `optional`.
    let optional = item.get("optional").and_then(Value::as_bool).unwrap_or(false);
    let required = item.get("required").and_then(Value::as_bool).unwrap_or(!optional);
    Ok(Column { name, datatype, shape: vec![-1], kind: kind.to_owned(), required, named })
}

fn tensor(item: &Value, name: String, named: bool) -> Result<Column, String> {
    let spec = item.get("tensor-spec").ok_or_else(|| format!("`{name}` has no tensor-spec"))?;
    let kind = spec.get("dtype").and_then(Value::as_str).ok_or_else(|| format!("`{name}` has no dtype"))?;
    let datatype = match kind {
        "bool" => Datatype::Bool,
        "uint8" => Datatype::Uint8,
        "uint16" => Datatype::Uint16,
        "uint32" => Datatype::Uint32,
        "uint64" => Datatype::Uint64,
        "int8" => Datatype::Int8,
        "int16" => Datatype::Int16,
        "int32" => Datatype::Int32,
        "int64" => Datatype::Int64,
        "float16" => Datatype::Fp16,
        "float32" => Datatype::Fp32,
        "float64" => Datatype::Fp64,
        "str" | "bytes" | "object" | "string" => Datatype::Bytes,
        text if text.starts_with(['<', '|', 'U', 'S']) => Datatype::Bytes,
        other => return Err(format!("`{name}` has the dtype {other}, which no tensor of the protocol has")),
    };
    let shape = spec.get("shape").and_then(Value::as_array).ok_or_else(|| format!("`{name}` has no shape"))?;
    let shape: Option<Vec<i64>> = shape.iter().map(|size| size.as_i64().filter(|size| *size >= -1)).collect();
    let shape = shape.ok_or_else(|| format!("`{name}` has a shape that is no list of sizes"))?;
    Ok(Column { name, datatype, shape, kind: kind.to_owned(), required: true, named })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(inputs: &str) -> Result<Schema, String> {
        let inputs = inputs.replace('\'', "\"");
        let text = format!("flavors: {{}}\nsignature:\n  inputs: '{inputs}'\n  outputs: null\n  params: null\n");
        Schema::of(&Description::parse(&text).unwrap())
    }

    fn seen(inputs: &str) -> Vec<(String, Datatype, Vec<i64>)> {
        let columns = of(inputs).unwrap().inputs.unwrap();
        columns.into_iter().map(|column| (column.name, column.datatype, column.shape)).collect()
    }

    #[test]
    fn columns_become_one_tensor_each() {
        let inputs = "[{'type':'double','name':'temperature','required':true},{'type':'long','name':'age'},
            {'type':'string','name':'site','required':false},{'type':'boolean','name':'on'},{'type':'datetime','name':'at'},
            {'type':'array','items':{'type':'long'},'name':'list'},{'type':'float','name':'f'},{'type':'integer','name':'i'}]";
        let names: Vec<_> = seen(inputs).into_iter().map(|(name, datatype, _)| format!("{name} {datatype}")).collect();
        let wanted = "temperature FP64, age INT64, site BYTES, on BOOL, at BYTES, list BYTES, f FP32, i INT32";
        assert_eq!(names.join(", "), wanted);
        let schema = of(inputs).unwrap();
        assert!(schema.table);
        let columns = schema.inputs.unwrap();
        assert!(columns.iter().all(|column| column.shape == [-1]));
        let optional: Vec<_> =
            columns.iter().filter(|column| !column.required).map(|column| column.name.as_str()).collect();
        assert_eq!(optional, ["site"]);
    }

    #[test]
    fn tensors_stay_what_they_are_and_unnamed_ones_get_a_name() {
        let one = "[{'type':'tensor','tensor-spec':{'dtype':'float32','shape':[-1,28,28]}}]";
        assert_eq!(seen(one), [("input".to_owned(), Datatype::Fp32, vec![-1, 28, 28])]);
        assert!(!of(one).unwrap().table);
        let texts = "[{'type':'tensor','name':'t','tensor-spec':{'dtype':'<U5','shape':[-1]}}]";
        assert_eq!(seen(texts), [("t".to_owned(), Datatype::Bytes, vec![-1])]);
        let two = "[{'type':'double'},{'type':'double'}]";
        assert_eq!(seen(two).into_iter().map(|(name, ..)| name).collect::<Vec<_>>(), ["0", "1"]);
    }

    #[test]
    fn a_signature_that_cannot_be_served_names_the_column() {
        for (inputs, words) in [
            ("[{'type':'complex','name':'z'}]", "`z` has the type complex"),
            (
                "[{'type':'tensor','name':'z','tensor-spec':{'dtype':'complex64','shape':[-1]}}]",
                "`z` has the dtype complex64",
            ),
            ("[{'type':'double','name':'a'},{'type':'double','name':'a'}]", "`a` occurs twice"),
            ("[]", "no list of columns or tensors"),
        ] {
            let said = of(inputs).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_model_without_a_signature_has_none() {
        assert_eq!(Schema::of(&Description::default()).unwrap(), Schema::default());
    }
}
