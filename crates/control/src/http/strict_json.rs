//! Strict JSON: an object with a repeated field is refused, because two readers could use different values (RFC 8259
//! discourages it).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Reads one document. The error contains the line and the column.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

/// Beyond it, 64-bit floating point numbers have gaps between whole numbers.
const WHOLE: f64 = 9_007_199_254_740_992.0;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    /// Any notation of a whole number is one, as in JSON Schema: `3.0` and `3e0` are 3.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        if value.fract() == 0.0 && value.abs() < WHOLE {
            #[allow(clippy::cast_possible_truncation, reason = "it is whole and in range")]
            return Ok(Value::Number((value as i64).into()));
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(field) = from.next_key::<String>()? {
            if fields.contains_key(&field) {
                return Err(A::Error::custom(format_args!("the field `{}` occurs twice", api::decode::short(&field))));
            }
            let Strict(value) = from.next_value()?;
            fields.insert(field, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_there_twice_is_refused_where_it_stands() {
        let error = read(b"{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}").expect_err("`c` occurs twice");
        assert_eq!(error.to_string(), "the field `c` occurs twice at line 2 column 18");
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, number) in [("3.0", "3"), ("1e3", "1000"), ("-0.0", "0"), ("3.5", "3.5"), ("1e300", "1e300")] {
            assert_eq!(read(text.as_bytes()).expect(text), serde_json::from_str::<Value>(number).expect(number));
        }
    }

    #[test]
    fn everything_else_is_read_as_serde_json_reads_it() {
        for text in [r#"{"a":[1,-2,3.5,"x",null,true,{"b":{}}],"c":18446744073709551615}"#, "[]", r#""é""#] {
            assert_eq!(read(text.as_bytes()).expect(text), serde_json::from_str::<Value>(text).expect(text));
        }
        for wrong in ["", "{", "{\"a\":1,}", "nul", "1 2", "\"\u{1}\""] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(deep.as_bytes()).is_err(), "depth is bounded");
    }
}
