//! Timestamps in the format of the control plane.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Microseconds since 1970 in UTC. Written as `2025-03-09T02:16:33.792720` without a zone, or with [`zulu`] with a `Z`.
/// Both forms are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus a duration; saturates at the maximum.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The duration since `earlier`; zero if this time is before it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        let civil = jiff::tz::TimeZone::UTC.to_datetime(time);
        write!(f, "{}", civil.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let civil: jiff::civil::DateTime = text.strip_suffix('Z').unwrap_or(text).parse()?;
        Ok(Self(jiff::tz::TimeZone::UTC.to_timestamp(civil)?.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "…")]`: a time with the UTC suffix `Z`.
pub mod zulu {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Timestamp;

    /// Writes `2025-03-09T02:16:33.792720Z`.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{time}Z"))
    }

    /// Reads either form.
    ///
    /// # Errors
    /// The text is not a valid time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_as_in_the_public_sample() {
        let time = Timestamp(1_741_486_593_792_720);
        assert_eq!(time.to_string(), "2025-03-09T02:16:33.792720");
        assert_eq!("2025-03-09T02:16:33.792720".parse::<Timestamp>().ok(), Some(time));
        assert_eq!("2025-03-09T02:16:33.792720Z".parse::<Timestamp>().ok(), Some(time));
        assert!("2025-03-09T02:16:33ZZ".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp(1_741_486_593_000_000).to_string(), "2025-03-09T02:16:33.000000");
    }
}
