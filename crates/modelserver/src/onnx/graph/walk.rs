//! The fields of a protobuf message, one after the other, straight from a file.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
};

/// Names longer than this are none.
const LONGEST: u64 = 64 << 10;

/// One field: its number, its value if it is a number, and where it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) value: u64,
    pub(super) end: u64,
}

/// A place in the file.
#[derive(Debug)]
pub(super) struct Walk {
    input: BufReader<File>,
    at: u64,
    length: u64,
}

impl Walk {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { input: BufReader::with_capacity(8 << 10, file), at: 0, length })
    }

    /// The place in the file.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Of the whole file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The next field of a message that ends at `end`. The place is then behind the field's head.
    pub(super) fn next(&mut self, end: u64) -> io::Result<Option<Field>> {
        if self.at >= end {
            return Ok(None);
        }
        let head = self.varint()?;
        let number = u32::try_from(head >> 3).map_err(io::Error::other)?;
        let mut value = 0;
        let length = match head & 7 {
            0 => {
                value = self.varint()?;
                0
            }
            1 => 8,
            2 => self.varint()?,
            5 => 4,
            kind => return Err(io::Error::other(format!("a field of kind {kind}"))),
        };
        let field_end = self.at.checked_add(length).filter(|field_end| *field_end <= end);
        let end = field_end.ok_or_else(|| io::Error::other("a field beyond the end of its message"))?;
        Ok(Some(Field { number, value, end }))
    }

    /// The bytes from here to the end of a field.
    pub(super) fn bytes(&mut self, end: u64) -> io::Result<Vec<u8>> {
        let length = end.saturating_sub(self.at);
        if length > LONGEST {
            return Err(io::Error::other("a name or list of numbers that is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.input.read_exact(&mut bytes)?;
        self.at = end;
        Ok(bytes)
    }

    /// The text from here to the end of a field.
    pub(super) fn text(&mut self, end: u64) -> io::Result<String> {
        String::from_utf8(self.bytes(end)?).map_err(io::Error::other)
    }

    /// The numbers of a repeated field: its own, which was read with its head, or packed ones up to its end.
    pub(super) fn integers(&mut self, field: Field) -> io::Result<Vec<i64>> {
        if self.at == field.end {
            return Ok(vec![field.value.cast_signed()]);
        }
        let mut numbers = Vec::new();
        while self.at < field.end {
            numbers.push(self.varint()?.cast_signed());
        }
        Ok(numbers)
    }

    /// Goes to the end of a field.
    pub(super) fn skip_to(&mut self, end: u64) -> io::Result<()> {
        let length = end.checked_sub(self.at).ok_or_else(|| io::Error::other("a field that was left"))?;
        self.input.seek_relative(i64::try_from(length).map_err(io::Error::other)?)?;
        self.at = end;
        Ok(())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for place in 0..10 {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            self.at += 1;
            number |= u64::from(byte[0] & 0x7f).checked_shl(7 * place).unwrap_or(0);
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(io::Error::other("a number without an end"))
    }
}
