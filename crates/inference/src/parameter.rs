//! Parameters of requests, tensors and responses.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};
use serde_json::json;

use super::json_words;

/// Named parameters of a message.
pub type Parameters = BTreeMap<String, Parameter>;

/// Named parameters of inputs, by the names of the inputs.
pub type InputParameters = BTreeMap<String, Parameters>;

/// The value of a parameter: a string, a number or a boolean, as in the protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that only fits an unsigned type.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
}

impl Parameter {
    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The whole number, if it is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Uint(value) => Some(*value),
            Self::Bool(_) | Self::Float(_) | Self::Text(_) => None,
        }
    }

    /// The bare word for a number that JSON cannot represent.
    fn bare(&self) -> Option<&'static str> {
        let Self::Float(float) = self else { return None };
        if float.is_finite() {
            None
        } else if float.is_nan() {
            Some("NaN")
        } else {
            Some(if *float > 0.0 { "Infinity" } else { "-Infinity" })
        }
    }
}

/// Parameters as JSON for Python: numbers that JSON cannot represent are the bare words `NaN`, `Infinity` and
/// `-Infinity`.
#[must_use]
pub fn parameters_for_python(parameters: &Parameters) -> String {
    if let (true, Ok(text)) =
        (parameters.values().all(|value| value.bare().is_none()), serde_json::to_string(parameters))
    {
        return text;
    }
    let pairs: Vec<_> = parameters
        .iter()
        .map(|(name, value)| {
            let text = value.bare().map_or_else(|| json!(value).to_string(), str::to_owned);
            format!("{}:{text}", json!(name))
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

// Implemented by hand: trying one kind after the other would create and discard an error for most parameters of each
// binary request.
impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Kinds)
    }
}

struct Kinds;

impl<'de> Visitor<'de> for Kinds {
    type Value = Parameter;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "a parameter that is a string, a number or a boolean (a list or an object is a string with its JSON)",
        )
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Parameter, E> {
        Ok(Parameter::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Parameter, E> {
        Ok(Parameter::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Parameter, E> {
        Ok(i64::try_from(value).map_or(Parameter::Uint(value), Parameter::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Parameter, E> {
        Ok(Parameter::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Parameter, E> {
        Ok(Parameter::Text(value.to_owned()))
    }

    /// The placeholder of a bare `NaN` or `Infinity`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameter, A::Error> {
        if map.next_key::<String>()?.as_deref() == Some(json_words::KEY) {
            return map.next_value().map(|value| Parameter::Float(json_words::float_of(value)));
        }
        Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_reach_python_as_the_words_it_reads() {
        let mut parameters: Parameters =
            [("a".into(), Parameter::Float(0.5)), ("\"".into(), Parameter::Text("x\n".into()))].into();
        assert_eq!(parameters_for_python(&parameters), r#"{"\"":"x\n","a":0.5}"#);
        for (name, float) in [("n", f64::NAN), ("i", f64::INFINITY), ("m", f64::NEG_INFINITY)] {
            parameters.insert(name.into(), Parameter::Float(float));
        }
        let wanted = r#"{"\"":"x\n","a":0.5,"i":Infinity,"m":-Infinity,"n":NaN}"#;
        assert_eq!(parameters_for_python(&parameters), wanted);
    }
}
