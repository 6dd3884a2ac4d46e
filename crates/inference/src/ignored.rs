//! Unknown fields of a request. They are ignored, as the protocol requires, and reported to the caller.

use std::fmt::Write as _;

use api::decode::nearest;

/// Maximum number of names.
const NAMED: usize = 10;

/// Maximum size of the header with the names, in bytes.
const LONGEST: usize = 1 << 10;

/// The ignored fields: their number, and the names of the first ten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    count: u64,
    names: Vec<String>,
}

impl Ignored {
    /// Records a field. `within` is its parent, such as `inputs[0].`; empty for the body itself.
    pub fn add(&mut self, within: &str, field: &str) {
        self.count += 1;
        if self.names.len() < NAMED {
            let end = field.floor_char_boundary(LONGEST);
            self.names.push(format!("{within}{}", &field[..end]));
        }
    }

    /// Adds the fields that were ignored elsewhere.
    pub fn append(&mut self, more: Self) {
        self.count += more.count;
        self.names.extend(more.names);
        self.names.truncate(NAMED);
    }

    /// The number of fields.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The names of the first ten for a header: `a, inputs[0].b`. At most 1 KiB; characters that a header cannot
    /// contain, and commas, are percent-encoded. `None` if nothing was ignored.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let mut header = String::new();
        for (place, name) in self.names.iter().enumerate() {
            header.push_str(if place > 0 { ", " } else { "" });
            for byte in name.bytes() {
                if byte.is_ascii_graphic() && !matches!(byte, b',' | b'%') {
                    header.push(char::from(byte));
                } else {
                    let _ = write!(header, "%{byte:02X}");
                }
            }
        }
        header.truncate(LONGEST);
        Some(header)
    }

    /// A suggestion for an error about a missing field, if an ignored field has a similar name.
    pub(super) fn hint(&self, within: &str, missing: &str) -> String {
        let names = self.names.iter().filter_map(|name| name.strip_prefix(within));
        nearest(missing, names)
            .map_or_else(String::new, |near| format!("; `{near}` is not a field: did you mean `{missing}`?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_are_named_in_what_a_header_can_hold() {
        let mut ignored = Ignored::default();
        assert_eq!(ignored.header(), None);
        ignored.add("", "a,b é\r\n%");
        ignored.add("inputs[0].", "c");
        assert_eq!(ignored.header().unwrap(), "a%2Cb%20%C3%A9%0D%0A%25, inputs[0].c");
        for _ in 0..20 {
            ignored.add("", "x");
        }
        assert_eq!((ignored.count(), ignored.header().unwrap().split(", ").count()), (22, 10));
        let mut long = Ignored::default();
        (0..10).for_each(|_| long.add("", &"é".repeat(5_000)));
        assert_eq!(long.header().unwrap().len(), 1_024);
    }
}
