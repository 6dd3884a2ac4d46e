//! Amounts of CPU and memory in Kubernetes notation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An amount. It keeps the text that the user wrote (`500m`, `0.5`, `1Gi`) together with the value.
///
/// Source of the notation: Kubernetes, "resource.Quantity". Decimal exponents (`1e3`) are read too.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    milli: i128,
}

impl Quantity {
    /// The amount in thousandths of its unit (a CPU, a byte), rounded up.
    #[must_use]
    pub fn milli(&self) -> i128 {
        self.milli
    }

    /// The amount in whole units, rounded up; saturates.
    #[must_use]
    pub fn units(&self) -> u64 {
        u64::try_from((self.milli + 999) / 1000).unwrap_or(u64::MAX)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.milli == other.milli
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.milli.cmp(&other.milli)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is not an amount.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a quantity: write a number and, if need be, a unit, as in 500m, 2, 512Mi or 1.5Gi")]
pub struct NotAQuantity(String);

/// The factor of each suffix, in thousandths.
const SUFFIXES: [(&str, i128); 14] = [
    ("", 1_000),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("Ei", 1_000 << 60),
];

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAQuantity(crate::decode::short(text).into_owned());
        let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() + fraction.len() > 18 {
            return Err(wrong());
        }
        let factor = match SUFFIXES.iter().find(|(known, _)| *known == suffix) {
            Some((_, factor)) => *factor,
            None => suffix
                .strip_prefix(['e', 'E'])
                .and_then(|exponent| exponent.parse::<u32>().ok())
                .filter(|exponent| *exponent <= 18)
                .map(|exponent| 1_000 * 10_i128.pow(exponent))
                .ok_or_else(wrong)?,
        };
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
        let scale = 10_i128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let milli = (digits * factor + scale - 1) / scale;
        Ok(Self { text: text.to_owned(), milli })
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milli(text: &str) -> i128 {
        text.parse::<Quantity>().map_or(-1, |q| q.milli())
    }

    #[test]
    fn quantities_mean_what_they_mean_in_kubernetes() {
        assert_eq!(milli("500m"), 500);
        assert_eq!(milli("1"), 1_000);
        assert_eq!(milli("0.5"), 500);
        assert_eq!(milli("512Mi"), 512 * 1024 * 1024 * 1000);
        assert_eq!(milli("1.5Gi"), 1536 * 1024 * 1024 * 1000);
        assert_eq!(milli("1e3"), 1_000_000);
        assert_eq!(milli("2E"), 2_000_000_000_000_000_000_000);
        assert_eq!(milli(".5"), 500);
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for wrong in ["", "m", "-1", "1.2.3", "1 Gi", "1gb", "1e99", "99999999999999999999", "."] {
            assert!(wrong.parse::<Quantity>().is_err(), "{wrong}");
        }
    }
}
