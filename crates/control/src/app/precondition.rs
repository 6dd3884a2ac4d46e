//! `ETag` and `If-Match`: a change of a version that is no longer the newest is not made.
//!
//! The tag names the *generation* of what is wanted, as in `"g3"`; it does not change when a worker reports
//! something, or nobody could ever win against a busy worker. Answers are therefore marked `no-store`: two of them with the
//! same tag may differ in their status.

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

/// What a change is conditional on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Nothing: the last writer wins.
    None,
    /// That the generation is one of these. Empty where the tags were none of ours.
    OneOf(Vec<i64>),
}

impl Precondition {
    /// Reads the value of `If-Match`; `None` for one that is no list of entity tags.
    ///
    /// Weak tags never match, as RFC 9110, section 13.1.1, demands. `*` asks for a deployment that exists,
    /// which every change does.
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

    /// Refuses a change of something at `generation` unless the condition holds.
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
