//! The fields of a JSON object whose values are parsed later, when their meaning is known.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::{BuildHasher as _, RandomState},
};

use inference::replace_bare_floats;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::error::InferError;

/// Names and the texts of their values, in order; each name once.
#[derive(Debug, Default)]
pub(super) struct Fields<'j>(pub(super) Vec<(Cow<'j, str>, &'j RawValue)>);

impl<'j> Fields<'j> {
    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&'j RawValue> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }

    /// Parses the fields of a body with `read`. Bare `NaN` and `Infinity` are valid values.
    ///
    /// # Errors
    /// A body that is not a JSON object; `wanted` says what it should contain. And the errors of `read`.
    pub(super) fn of_body<T>(
        body: &[u8],
        wanted: &str,
        read: impl FnOnce(&Fields<'_>) -> Result<T, InferError>,
    ) -> Result<T, InferError> {
        let no_object = |error: serde_json::Error| {
            InferError::Invalid(format!("the body is not a JSON object with {wanted}: {error}"))
        };
        match serde_json::from_slice(body) {
            Ok(fields) => read(&fields),
            Err(error) => match replace_bare_floats(body) {
                None => Err(no_object(error)),
                Some(body) => read(&serde_json::from_slice(&body).map_err(no_object)?),
            },
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }
}

impl<'j> Deserialize<'j> for Fields<'j> {
    fn deserialize<D: Deserializer<'j>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'j> Visitor<'j> for Collect {
            type Value = Fields<'j>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Fields<'j>, A::Error> {
                let mut fields = Fields::default();
                let mut seen = None;
                while let Some(name) = map.next_key::<Name<'j>>()? {
                    if fields.0.len() == MOST {
                        return Err(A::Error::custom(format!("an object has at most {MOST} fields here")));
                    }
                    let twice = if fields.0.len() < FEW {
                        fields.get(&name.0).is_some()
                    } else {
                        !seen.get_or_insert_with(|| Seen::of(&fields)).add(&name.0) && fields.get(&name.0).is_some()
                    };
                    if twice {
                        let shown: String = name.0.chars().take(64).collect();
                        return Err(A::Error::custom(format!("`{shown}` occurs twice")));
                    }
                    fields.0.push((name.0, map.next_value()?));
                }
                Ok(fields)
            }
        }

        from.deserialize_map(Collect)
    }
}

/// More fields than any model has inputs.
pub(super) const MOST: usize = 4_096;

/// Up to this number, names are compared one by one. Beyond it, that would take long for many wide objects.
const FEW: usize = 32;

/// The hashes of names.
struct Seen {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Seen {
    fn of(fields: &Fields<'_>) -> Self {
        let mut seen = Self { hasher: RandomState::new(), hashes: HashSet::new() };
        for name in fields.names() {
            seen.add(name);
        }
        seen
    }

    /// Whether no other name had this hash.
    fn add(&mut self, name: &str) -> bool {
        self.hashes.insert(self.hasher.hash_one(name))
    }
}

/// A name, borrowed unless it contains escapes.
struct Name<'j>(Cow<'j, str>);

impl<'j> Deserialize<'j> for Name<'j> {
    fn deserialize<D: Deserializer<'j>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'j> Visitor<'j> for Text {
            type Value = Name<'j>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'j str) -> Result<Name<'j>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'j>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_occurs_twice_is_refused_however_it_is_written() {
        let fields: Fields<'_> = serde_json::from_str(r#"{"a": [1, 2], "\u0062": {"c": null}}"#).unwrap();
        assert_eq!(fields.get("b").map(RawValue::get), Some(r#"{"c": null}"#));
        let twice = serde_json::from_str::<Fields<'_>>(r#"{"a": 1, "\u0061": 2}"#).unwrap_err();
        assert!(twice.to_string().contains("`a` occurs twice"), "{twice}");
        let many: Vec<_> = (0..100).map(|at| format!("\"{at}\":0")).collect();
        assert!(serde_json::from_str::<Fields<'_>>(&format!("{{{}}}", many.join(","))).is_ok());
        for again in ["3", "70"] {
            let many = format!("{{{},\"{again}\":1}}", many.join(","));
            let twice = serde_json::from_str::<Fields<'_>>(&many).unwrap_err();
            assert!(twice.to_string().contains(&format!("`{again}` occurs twice")), "{twice}");
        }
    }
}
