//! The `data` of a tensor in JSON: nested lists or one flat list, read directly into a typed vector.

use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Data, Datatype, decode_base64, json_words,
    tensor::{each_data, element_count},
};

/// Reads the elements of a tensor with a known type and shape.
pub(super) struct DataSeed<'s> {
    pub(super) datatype: Datatype,
    pub(super) shape: &'s [i64],
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Data, D::Error> {
        let wanted = element_count(self.shape).map_err(D::Error::custom)?;
        let lists = list_lengths(self.shape);
        let mut data = Data::empty(self.datatype);
        let mut leaf_depth = None;
        each_data!(&mut data, out => {
            // A shape is only a claim: memory is allocated for the elements that really come.
            out.reserve(wanted.min(1024));
            let nest = Nest { out, wanted, lists: &lists, depth: 0, leaf_depth: &mut leaf_depth };
            nest.deserialize(from)?;
        }, _ => {});
        if data.len() == wanted {
            return Ok(data);
        }
        Err(D::Error::custom(format!("the shape {:?} has {wanted} elements, `data` has {}", self.shape, data.len())))
    }
}

/// The number of elements in a list at each depth: `[2, 3]` gives 6, 3.
fn list_lengths(shape: &[i64]) -> Vec<usize> {
    (0..shape.len()).map(|depth| element_count(&shape[depth..]).unwrap_or(0)).collect()
}

/// A scalar or a list, at some depth.
struct Nest<'a, E> {
    out: &'a mut Vec<E>,
    wanted: usize,
    lists: &'a [usize],
    depth: usize,
    leaf_depth: &'a mut Option<usize>,
}

impl<E> Nest<'_, E> {
    fn push<Err: Error>(self, element: Result<E, String>) -> Result<(), Err> {
        let place = self.out.len();
        if place == self.wanted {
            return Err(Err::custom(format!("`data` has more elements than the {} of the shape", self.wanted)));
        }
        let flat_or_nested = self.depth <= 1 || self.depth == self.lists.len();
        if !flat_or_nested || self.leaf_depth.is_some_and(|depth| depth != self.depth) {
            return Err(Err::custom(format!(
                "element {place} stands at depth {}; `data` is one flat list, or lists nested {} deep",
                self.depth,
                self.lists.len()
            )));
        }
        *self.leaf_depth = Some(self.depth);
        self.out.push(element.map_err(|problem| Err::custom(format!("element {place} is {problem}")))?);
        Ok(())
    }
}

impl<'de, E: Element> DeserializeSeed<'de> for Nest<'_, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, E: Element> Visitor<'de> for Nest<'_, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or a list at element {}", E::WANTED, self.out.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let before = self.out.len();
        loop {
            let inner = Nest {
                out: &mut *self.out,
                wanted: self.wanted,
                lists: self.lists,
                depth: self.depth + 1,
                leaf_depth: &mut *self.leaf_depth,
            };
            if list.next_element_seed(inner)?.is_none() {
                break;
            }
        }
        if self.depth == 0 {
            return Ok(());
        }
        let held = self.out.len() - before;
        match self.lists.get(self.depth) {
            Some(&wanted) if wanted == held => Ok(()),
            Some(wanted) => Err(A::Error::custom(format!(
                "the list before element {} holds {held} elements, the shape wants {wanted} there",
                self.out.len()
            ))),
            None => Err(A::Error::custom(format!(
                "`data` is nested {} deep, its shape has {} dimensions",
                self.depth + 1,
                self.lists.len()
            ))),
        }
    }

    fn visit_f64<Err: Error>(self, number: f64) -> Result<(), Err> {
        self.push(E::of_float(number).ok_or_else(|| format!("{number}, not {}", E::WANTED)))
    }

    fn visit_i64<Err: Error>(self, number: i64) -> Result<(), Err> {
        self.push(E::of_signed(number).ok_or_else(|| format!("{number}, not {}", E::WANTED)))
    }

    fn visit_u64<Err: Error>(self, number: u64) -> Result<(), Err> {
        self.push(E::of_unsigned(number).ok_or_else(|| format!("{number}, not {}", E::WANTED)))
    }

    fn visit_bool<Err: Error>(self, value: bool) -> Result<(), Err> {
        self.push(E::of_bool(value).ok_or_else(|| format!("{value}, not {}", E::WANTED)))
    }

    fn visit_str<Err: Error>(self, text: &str) -> Result<(), Err> {
        let element = E::of_text(text).ok_or_else(|| {
            let shown: String = text.chars().take(24).collect();
            format!("the string \"{shown}\", not {}", E::WANTED)
        });
        self.push(element)
    }

    fn visit_unit<Err: Error>(self) -> Result<(), Err> {
        self.push(Err(format!("null, not {}", E::WANTED)))
    }

    /// `{"b64": "…"}`: the bytes of one string, as in V1. Or the placeholder of a bare word.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let name = map.next_key::<std::borrow::Cow<'de, str>>()?;
        if name.as_deref() == Some(json_words::KEY) {
            let float = json_words::float_of(map.next_value()?);
            let word = if float.is_nan() {
                "NaN"
            } else if float > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            return self.push(E::of_word(word).ok_or_else(|| format!("{word}, not {}", E::WANTED)));
        }
        let named = name.is_some_and(|name| name == "b64");
        let text = if named { Some(map.next_value::<std::borrow::Cow<'de, str>>()?) } else { None };
        let element = match text.map(|text| decode_base64(text.as_bytes())) {
            Some(Ok(bytes)) => E::of_bytes(bytes).ok_or_else(|| format!("bytes in base64, not {}", E::WANTED)),
            Some(Err(error)) => Err(format!("not base64: {error}")),
            None => Err(format!("an object, not {}", E::WANTED)),
        };
        if named && map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(format!("element {} has more than `b64` in its object", self.out.len())));
        }
        self.push(element)
    }
}

/// Conversions of one JSON element. `None`: it does not have this type, or is out of its range.
trait Element: Sized {
    /// For messages.
    const WANTED: &'static str;

    fn of_float(number: f64) -> Option<Self>;
    fn of_signed(number: i64) -> Option<Self>;
    fn of_unsigned(number: u64) -> Option<Self>;

    fn of_bool(_: bool) -> Option<Self> {
        None
    }

    fn of_text(_: &str) -> Option<Self> {
        None
    }

    fn of_bytes(_: Vec<u8>) -> Option<Self> {
        None
    }

    /// `NaN`, `Infinity` or `-Infinity`, not as a string.
    fn of_word(_: &str) -> Option<Self> {
        None
    }
}

macro_rules! whole {
    ($($type:ty, $wanted:literal;)*) => {$(
        impl Element for $type {
            const WANTED: &'static str = $wanted;

            fn of_float(number: f64) -> Option<Self> {
                // 3.0 is a whole number too; a float beyond 2^53 is not exact.
                if number.fract() != 0.0 || number.abs() > 9_007_199_254_740_992.0 {
                    return None;
                }
                #[allow(clippy::cast_possible_truncation, reason = "a whole number of at most 2^53")]
                Self::of_signed(number as i64)
            }

            fn of_signed(number: i64) -> Option<Self> {
                number.try_into().ok()
            }

            fn of_unsigned(number: u64) -> Option<Self> {
                number.try_into().ok()
            }
        }
    )*};
}

whole! {
    u8, "a whole number from 0 to 255";
    u16, "a whole number from 0 to 65535";
    u32, "a whole number from 0 to 4294967295";
    u64, "a whole number from 0 to 18446744073709551615";
    i8, "a whole number from -128 to 127";
    i16, "a whole number from -32768 to 32767";
    i32, "a whole number from -2147483648 to 2147483647";
    i64, "a whole number from -9223372036854775808 to 9223372036854775807";
}

macro_rules! float {
    ($($type:ty, $wanted:literal, $narrow:expr;)*) => {$(
        impl Element for $type {
            const WANTED: &'static str = $wanted;

            fn of_float(number: f64) -> Option<Self> {
                let narrow: Self = $narrow(number);
                narrow.is_finite().then_some(narrow)
            }

            #[allow(clippy::cast_precision_loss, reason = "the nearest float is what a float tensor holds")]
            fn of_signed(number: i64) -> Option<Self> {
                Self::of_float(number as f64)
            }

            #[allow(clippy::cast_precision_loss, reason = "the nearest float is what a float tensor holds")]
            fn of_unsigned(number: u64) -> Option<Self> {
                Self::of_float(number as f64)
            }

            /// JSON has no numbers for these; the words are from protobuf's JSON format.
            fn of_text(text: &str) -> Option<Self> {
                Self::of_word(text)
            }

            fn of_word(word: &str) -> Option<Self> {
                match word {
                    "NaN" => Some($narrow(f64::NAN)),
                    "Infinity" => Some($narrow(f64::INFINITY)),
                    "-Infinity" => Some($narrow(f64::NEG_INFINITY)),
                    _ => None,
                }
            }
        }
    )*};
}

#[allow(clippy::cast_possible_truncation, reason = "the nearest FP32, infinite if out of range")]
fn single(number: f64) -> f32 {
    number as f32
}

float! {
    f16, "a number in the range of FP16", f16::from_f64;
    bf16, "a number in the range of BF16", bf16::from_f64;
    f32, "a number in the range of FP32", single;
    f64, "a number", std::convert::identity;
}

impl Element for bool {
    const WANTED: &'static str = "true or false";

    fn of_float(_: f64) -> Option<Self> {
        None
    }

    fn of_signed(_: i64) -> Option<Self> {
        None
    }

    fn of_unsigned(number: u64) -> Option<Self> {
        match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn of_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Element for Bytes {
    const WANTED: &'static str = "a string";

    fn of_float(_: f64) -> Option<Self> {
        None
    }

    fn of_signed(_: i64) -> Option<Self> {
        None
    }

    fn of_unsigned(_: u64) -> Option<Self> {
        None
    }

    fn of_text(text: &str) -> Option<Self> {
        Some(Self::copy_from_slice(text.as_bytes()))
    }

    fn of_bytes(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes.into())
    }
}
