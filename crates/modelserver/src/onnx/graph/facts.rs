//! What is known of a tensor in a graph before it is run.

use std::ops::{BitAnd, BitOr, BitOrAssign};

/// A set of facts. What is not known is taken to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facts(u8);

impl Facts {
    /// Its values depend on the values of the inputs.
    pub(super) const VALUES: Self = Self(1);
    /// Its size depends on the values of the inputs.
    pub(super) const SIZE: Self = Self(1 << 1);
    /// Its values depend on those of inputs that are more than a single number.
    pub(super) const TENSORS: Self = Self(1 << 2);
    /// Its values depend on the sizes of the inputs, and grow with them.
    pub(super) const SIZES: Self = Self(1 << 3);
    /// Its values depend on the sizes of the inputs in another way.
    pub(super) const COMPUTED: Self = Self(1 << 4);
    /// It may be empty where no input is, and is not where the inputs are large enough.
    pub(super) const SHRINKS: Self = Self(1 << 5);
    /// It may be empty where no input is, for sizes that nobody knows.
    pub(super) const JUMPS: Self = Self(1 << 6);
    /// Its values may be below 0, where a bound counts from the end.
    pub(super) const SIGNED: Self = Self(1 << 7);

    pub(super) const NOTHING: Self = Self(0);
    pub(super) const EVERYTHING: Self = Self(0xff);
    /// Whatever says that it depends on the inputs.
    pub(super) const VARIES: Self = Self(0x7f);
    /// What an input is.
    pub(super) const INPUT: Self = Self(1 | 1 << 2);
    /// How it may be empty.
    pub(super) const EMPTY: Self = Self(1 << 5 | 1 << 6);

    /// Whether one of these facts holds.
    pub(super) fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// These facts, if it is so.
    pub(super) fn when(self, so: bool) -> Self {
        if so { self } else { Self::NOTHING }
    }
}

impl BitOr for Facts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Facts {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for Facts {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Facts> for Facts {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        all.into_iter().fold(Self::NOTHING, Self::bitor)
    }
}
