//! Nested lists of elements with an unknown shape.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Data, Datatype, Json, Malformed, json_data::DataSeed, json_fast};

/// Reads nested lists with an unknown shape, such as V1's `instances`.
///
/// # Errors
/// Lists of different lengths, or an element that is not of `datatype`.
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
            // No shape was given: it is that of the first row.
            Malformed(words) if words.contains("more elements than") => {
                Malformed(format!("its rows are not alike: by the first one the shape is {shape:?}"))
            }
            other => other,
        })?;
    Ok((shape, data))
}

impl Json {
    /// The elements as plain values, if they have a datatype and none is null.
    #[must_use]
    pub fn without_null(&self) -> Option<Data> {
        let datatype = self.of?;
        if self.texts.iter().any(|text| text == "null") {
            return None;
        }
        let list = [b"[", self.texts.join(&b","[..]).as_slice(), b"]"].concat();
        let (_, data) = nested_data(std::str::from_utf8(&list).ok()?, datatype).ok()?;
        (data.len() == self.texts.len()).then_some(data)
    }
}

/// Finds the shape from the lengths of the lists and of their first elements.
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

    /// A base64 string is one element; it is validated when it is read.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
