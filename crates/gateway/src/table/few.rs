//! A list that nearly always has one element, which then lies in the list itself: a table of 100,000 endpoints has two
//! such lists for each of them.

use std::ops::Deref;

/// A list whose length does not change.
#[derive(Debug)]
pub(crate) enum Few<T> {
    /// The only element.
    One(T),
    /// None, or several.
    Other(Box<[T]>),
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Other(all) => all,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all = all.into_iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Self::One(only),
            (first, second) => Self::Other(first.into_iter().chain(second).chain(all).collect()),
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_holds_what_it_was_made_of_and_takes_no_more_room_than_a_box() {
        for count in 0..4 {
            let few: Few<_> = (0..count).map(Arc::new).collect();
            assert!(few.iter().map(|number| **number).eq(0..count), "{few:?}");
        }
        assert_eq!(size_of::<Few<Arc<u8>>>(), size_of::<Box<[Arc<u8>]>>());
    }
}
