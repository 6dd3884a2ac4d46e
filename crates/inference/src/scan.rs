//! Scans JSON text byte by byte, for readers that know what they expect.
//!
//! Everything here returns `None` for what it does not accept, which may still be valid JSON; nothing here reports an
//! error. Whatever it accepts is valid JSON with the meaning of JSON.

use super::json_words;

/// A position in a text.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'j> {
    text: &'j [u8],
    at: usize,
}

/// Maximum nesting of values that are skipped.
const DEEPEST: usize = 64;

impl<'j> Cursor<'j> {
    pub(super) fn new(text: &'j [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The remaining bytes.
    pub(super) fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// The current byte.
    pub(super) fn here(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips the current byte.
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// Moves to the next byte that is not blank, and returns it.
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            match self.here()? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Skips blanks and then this byte.
    pub(super) fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// Skips exactly these bytes.
    pub(super) fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// A word for a float that JSON cannot represent.
    #[cold]
    pub(super) fn float_word(&mut self) -> Option<f64> {
        let (float, length) = json_words::leading_float(&self.text[self.at..])?;
        self.at += length;
        Some(float)
    }

    /// Whether only blanks remain.
    pub(super) fn is_done(&mut self) -> bool {
        self.next().is_none()
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Option<&'j str> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.here()? {
                b'"' => break,
                b'\\' | 0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).ok()?;
        self.at += 1;
        Some(text)
    }

    /// The text of one value; the reader checks whether all of it is valid.
    pub(super) fn value(&mut self) -> Option<&'j [u8]> {
        self.next()?;
        let start = self.at;
        let mut depth: usize = 0;
        loop {
            match self.here()? {
                b'"' => self.over_string()?,
                b'{' | b'[' if depth < DEEPEST => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'{' | b'[' => return None,
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if depth == 0 && matches!(self.here()?, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                return Some(&self.text[start..self.at]);
            }
        }
    }

    fn over_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.here()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    /// A JSON number.
    #[inline]
    pub(super) fn number(&mut self) -> Option<Decimal<'j>> {
        let start = self.at;
        let is_negative = self.here()? == b'-';
        self.at += usize::from(is_negative);
        let (mut mantissa, mut exponent) = (0, 0);
        let first = self.here()?;
        let mut digits = self.digits(&mut mantissa);
        if digits == 0 || (first == b'0' && digits > 1) {
            return None;
        }
        let mut is_whole = true;
        if self.here() == Some(b'.') {
            self.at += 1;
            let fraction = self.digits(&mut mantissa);
            if fraction == 0 {
                return None;
            }
            is_whole = false;
            digits += fraction;
            exponent = -i64::try_from(fraction).ok()?;
        }
        if let Some(b'e' | b'E') = self.here() {
            self.at += 1;
            let is_below = self.here()? == b'-';
            self.at += usize::from(matches!(self.here()?, b'-' | b'+'));
            let mut power = 0;
            let count = self.digits(&mut power);
            if !(1..=4).contains(&count) {
                return None;
            }
            is_whole = false;
            let power = i64::try_from(power).ok()?;
            exponent += if is_below { -power } else { power };
        }
        Some(Decimal { text: &self.text[start..self.at], is_negative, mantissa, exponent, digits, is_whole })
    }

    /// Appends the digits here to a number, which wraps around beyond 19 of them, and counts them.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let start = self.at;
        // Eight at a time, and the last few of them at once too: a loop over them would be mispredicted.
        while let Some(eight) = self.text.get(self.at..).and_then(|text| text.first_chunk::<8>()) {
            let (count, value) = leading_digits(*eight);
            *number = number.wrapping_mul(WHOLE_POWERS[count]).wrapping_add(value);
            self.at += count;
            if count < 8 {
                return self.at - start;
            }
        }
        while let Some(digit @ b'0'..=b'9') = self.here() {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.at - start
    }
}

const WHOLE_POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many of eight bytes are digits before the first that is none, and the number that they write. It is found
/// in three steps for all of them at once: neighbours become numbers below 100, those become numbers below
/// 10,000, and those the whole.
#[inline]
fn leading_digits(text: [u8; 8]) -> (usize, u64) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let bytes = u64::from_le_bytes(text) ^ 0x3030_3030_3030_3030;
    // A digit is now at most 9: added to 0x76 it leaves the highest bit of its byte alone.
    let others = (((bytes & LOW) + 0x7676_7676_7676_7676) | bytes) & !LOW;
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // What is no digit goes out at one end, and zeros come in at the other, before the first digit.
    let ones = bytes << (64 - 8 * count);
    let hundreds = (ones.wrapping_mul(10) + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let ten_thousands = (hundreds.wrapping_mul(100) + (hundreds >> 16)) & 0x0000_ffff_0000_ffff;
    (count, (ten_thousands.wrapping_mul(10_000) + (ten_thousands >> 32)) & 0xffff_ffff)
}

/// A number as it was written: `mantissa` × 10^`exponent`, if `digits` is at most 19.
pub(super) struct Decimal<'j> {
    text: &'j [u8],
    is_negative: bool,
    mantissa: u64,
    exponent: i64,
    digits: usize,
    is_whole: bool,
}

/// The powers of ten that a 64-bit float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Decimal<'_> {
    /// The whole number, if it was written as one.
    pub(super) fn whole(&self) -> Option<i128> {
        let number = i128::from(self.mantissa);
        (self.is_whole && self.digits <= 19).then_some(if self.is_negative { -number } else { number })
    }

    /// The nearest FP64, if it is finite.
    pub(super) fn double(&self) -> Option<f64> {
        // Both factors are exact, so that the one rounding is the right one.
        if let Some(near) = self.near()
            && self.mantissa <= 1 << 53
        {
            return Some(near);
        }
        self.parse()
    }

    /// The nearest FP32, if it is finite.
    #[inline]
    pub(super) fn single(&self) -> Option<f32> {
        const HALF: u64 = 1 << 28;
        if let Some(near) = self.near() {
            let size = near.abs();
            // `near` was rounded at most twice and is off by less than three units in its last place. Rounded
            // once more it is right, unless it lies so close to the middle between two FP32.
            let is_clear = (near.to_bits() & (2 * HALF - 1)).abs_diff(HALF) > 4;
            let is_normal = size >= f64::from(f32::MIN_POSITIVE) && size < f64::from(f32::MAX);
            if (is_clear && is_normal) || self.mantissa == 0 {
                #[allow(clippy::cast_possible_truncation, reason = "rounded to the nearest FP32")]
                return Some(near as f32);
            }
        }
        self.parse()
    }

    /// The FP64 that one multiplication or division gives.
    #[inline]
    fn near(&self) -> Option<f64> {
        if self.digits > 19 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "the first of at most two roundings")]
        let mantissa = self.mantissa as f64;
        let power = *POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        let size = if self.exponent < 0 { mantissa / power } else { mantissa * power };
        Some(if self.is_negative { -size } else { size })
    }

    fn parse<F: std::str::FromStr + Into<f64> + Copy>(&self) -> Option<F> {
        let number: F = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        number.into().is_finite().then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(text: &str) -> Option<f32> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.number().filter(|_| cursor.left() == 0)?.single()
    }

    fn double(text: &str) -> Option<f64> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.number().filter(|_| cursor.left() == 0)?.double()
    }

    /// Both, bit by bit, as the standard library reads them.
    #[track_caller]
    fn check(text: &str) {
        let wanted: f32 = text.parse().unwrap();
        assert_eq!(single(text).map(f32::to_bits), wanted.is_finite().then_some(wanted.to_bits()), "{text}");
        let wanted: f64 = text.parse().unwrap();
        assert_eq!(double(text).map(f64::to_bits), wanted.is_finite().then_some(wanted.to_bits()), "{text}");
    }

    #[test]
    fn numbers_at_the_edges_are_the_nearest_floats() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0e5",
            "1",
            "16777217",
            "16777219",
            "9007199254740993",
            "9999999999999999999",
            "99999999999999999999",
            "18446744073709551615",
            "1.17549435e-38",
            "1.1754943e-38",
            "1e-45",
            "7e-46",
            "3.4028235e38",
            "3.4028236e38",
            "3.5e38",
            "1e39",
            "1e400",
            "1e-400",
            "4.9e-324",
            "0.000000000000000000001",
            "0.1",
            "0.30000000000000004",
            "8388608.5",
            "8388609.5",
            "1.00000005960464477539",
            "1.000000059604644775390625",
            "1.0000000596046447753906251",
            "12345678.12345678",
            "1.5e0022",
        ] {
            check(text);
        }
    }

    #[test]
    fn what_is_no_number_of_json_is_not_taken() {
        for text in
            ["", "-", "+1", "01", "-01", ".5", "1.", "1.e5", "1e", "1e+", "0x10", "1_0", "NaN", "1e99999", "--1"]
        {
            assert_eq!(double(text), None, "{text}");
        }
    }

    #[test]
    fn digits_end_at_whatever_is_none() {
        assert_eq!(leading_digits(*b"12345678"), (8, 12_345_678));
        for other in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            for (place, number) in [(0, 0), (1, 9), (4, 9_876), (7, 9_876_543)] {
                let mut text = *b"98765432";
                text[place] = other;
                assert_eq!(leading_digits(text), (place, number), "{other}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn every_float_comes_back(bits: u32, wide: u64) {
            let (single, wide) = (f32::from_bits(bits), f64::from_bits(wide));
            prop_assume!(single.is_finite() && wide.is_finite());
            check(&format!("{single:?}"));
            check(&format!("{:?}", f64::from(single)));
            check(&format!("{wide:e}"));
        }

        #[test]
        fn every_decimal_is_the_nearest_float(
            negative: bool, whole in "0|[1-9][0-9]{0,12}", fraction in "(\\.[0-9]{1,20})?", power in "([eE][+-]?[0-9]{1,2})?"
        ) {
            check(&format!("{}{whole}{fraction}{power}", if negative { "-" } else { "" }));
        }

        #[test]
        fn decimals_beside_the_middle_of_two_singles_are_the_nearest(bits in 0x0080_0000u32..0x7f00_0000, off in -3i64..4) {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = f64::midpoint(f64::from(low), f64::from(high));
            let beside = f64::from_bits(middle.to_bits().saturating_add_signed(off));
            check(&format!("{beside:?}"));
            check(&format!("{beside:.18e}"));
        }
    }
}
