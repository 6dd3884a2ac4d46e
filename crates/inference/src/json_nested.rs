//! Nested lists of elements whose shape is not known before.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Data, Datatype, Malformed, json_data::DataSeed, json_fast};

/// Reads nested lists whose shape is not known before, as V1's `instances` come.
///
/// # Errors
/// Lists of differing lengths, or an element that is not of `datatype`.
pub fn nested_data(json: &str, datatype: Datatype) -> Result<(Vec<i64>, Data), Malformed> {
    if let Some(read) = json_fast::nested(json.as_bytes(), datatype) {
        return Ok(read);
    }
    let mut shape = Vec::new();
    let mut from = serde_json::Deserializer::from_str(json);
    Probe { shape: &mut shape }.deserialize(&mut from).map_err(|e| Malformed::unplaced(&e))?;
    let mut from = serde_json::Deserializer::from_str(json);
    let data =
        DataSeed { datatype, shape: &shape }.deserialize(&mut from).map_err(|e| match Malformed::unplaced(&e) {
            // Nobody said a shape: it is that of the first row.
            Malformed(words) if words.contains("more elements than") => {
                Malformed(format!("its rows are not alike: by the first one the shape is {shape:?}"))
            }
            other => other,
        })?;
    Ok((shape, data))
}

/// Learns a shape from the lengths of the lists and of their first elements.
struct Probe<'s> {
    shape: &'s mut Vec<i64>,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a string, a boolean or a list of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.shape.len();
        self.shape.push(0);
        if list.next_element_seed(Probe { shape: &mut *self.shape })?.is_some() {
            self.shape[place] = 1;
            while list.next_element::<IgnoredAny>()?.is_some() {
                self.shape[place] += 1;
            }
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    /// A string's bytes in base64 are one element; whether they are is seen when they are read.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
