//! `ETag` and `If-Match`: a change based on an old version is refused.
//!
//! The tag is the *generation* of the specification, as in `"g3"`. It does not change when a worker writes the status;
//! otherwise a client could never change a deployment that a worker updates often. Therefore responses are marked
//! `no-store`: two responses with the same tag may have different statuses.

use std::fmt;

use store::StoreError;

use crate::error::Error;

/// The tag of a generation.
pub(crate) struct Tag(pub(crate) i64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"g{}\"", self.0)
    }
}

/// The condition of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// No condition: the last writer wins.
    None,
    /// The generation must be one of these. Empty if no tag has our format.
    OneOf(Vec<i64>),
}

impl Precondition {
    /// Parses the value of `If-Match`; `None` if it is not a list of entity tags.
    ///
    /// Weak tags never match, as RFC 9110, section 13.1.1, requires. `*` requires that the deployment exists, which
    /// every change does anyway.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        if value.trim() == "*" {
            return Some(Self::None);
        }
        let mut generations = Vec::new();
        for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let (weak, quoted) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
            let opaque = quoted.strip_prefix('"')?.strip_suffix('"')?;
            if !opaque.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
                return None;
            }
            let generation = opaque.strip_prefix('g').and_then(|digits| digits.parse::<i64>().ok());
            generations.extend(generation.filter(|_| !weak));
        }
        (!value.trim().is_empty()).then_some(Self::OneOf(generations))
    }

    /// Refuses a change of a resource at `generation` if the condition is not met.
    pub(crate) fn check(&self, generation: i64) -> Result<(), Error> {
        match self {
            Self::OneOf(generations) if !generations.contains(&generation) => Err(StoreError::Stale.into()),
            Self::None | Self::OneOf(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_reads_the_tags_that_we_write_and_refuses_what_is_no_tag() {
        let parse = Precondition::parse;
        assert_eq!(parse(&Tag(3).to_string()), Some(Precondition::OneOf(vec![3])));
        assert_eq!(parse(r#""g1" , "g2","other""#), Some(Precondition::OneOf(vec![1, 2])));
        assert_eq!(parse(r#"W/"g1""#), Some(Precondition::OneOf(vec![])), "a weak tag never matches");
        assert_eq!(parse("*"), Some(Precondition::None));
        assert_eq!(parse("g3"), None);
        for wrong in ["3", "", " ", r#""a"b""#, r#""a b""#] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_thought_out_on_another_generation_is_refused() {
        assert!(Precondition::OneOf(vec![1]).check(2).is_err());
        assert!(Precondition::OneOf(vec![]).check(2).is_err());
        assert!(Precondition::OneOf(vec![1, 2]).check(2).is_ok());
        assert!(Precondition::None.check(2).is_ok());
    }
}
