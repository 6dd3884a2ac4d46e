//! Decompresses gzip and deflate in small steps with bounded time, whatever the input is.
//!
//! A megabyte may decompress to a gigabyte or to nothing: eight million empty deflate blocks are 40 MB, and a block may
//! make the decoder build its tables and then contain no data. So a step is limited in its output and in its time. The
//! caller counts the output before it is stored.
//!
//! A gzip body may consist of several members, and beginning one costs as much as decompressing a kilobyte. Two million
//! empty members are 40 MB. No well-behaved client sends thousands of nearly empty members, so such a body is refused.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Maximum output of a step, in bytes.
const STEP: usize = 64 << 10;

/// How many bytes are read between two checks of the clock.
const PIECE: usize = 4 << 10;

/// The cost of beginning a member, as a number of bytes.
const MEMBER: usize = 1 << 10;

/// A step ends after the piece in which it exceeds this time.
const TURN: Duration = Duration::from_micros(500);

/// Members with less output than this are small.
const SMALL: usize = 1 << 10;

/// Maximum number of small members in a body.
const MOST_SMALL: usize = 10_000;

/// An encoding of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// The zlib format, which the name means; raw deflate, which some clients send, is accepted too.
    Deflate,
}

/// Why decompression failed.
#[derive(Debug)]
pub(crate) enum Failed<E> {
    /// The data is invalid.
    Damaged(String),
    /// The caller refused the output.
    Refused(E),
}

/// The decompressed `body`. `admit` is called with its size before each step is stored. Other tasks run between steps.
pub(crate) async fn inflate<E>(
    body: &[u8],
    encoding: Encoding,
    mut admit: impl FnMut(usize) -> Result<(), E>,
) -> Result<Bytes, Failed<E>> {
    let mut inflating = Inflating::new(body, encoding);
    let mut all = Vec::new();
    let mut step = vec![0; STEP];
    loop {
        let made = inflating.step(&mut step).map_err(|words| Failed::Damaged(damaged(encoding, &words)))?;
        let Some(made) = made else { return Ok(all.into()) };
        admit(all.len() + made).map_err(Failed::Refused)?;
        all.extend_from_slice(&step[..made]);
        tokio::task::yield_now().await;
    }
}

fn damaged(encoding: Encoding, why: &str) -> String {
    let name = match encoding {
        Encoding::Gzip => "gzip",
        Encoding::Deflate => "deflate",
    };
    format!("the body does not inflate as {name}: {why}")
}

/// The data that is being decompressed.
struct Inflating<'b> {
    left: &'b [u8],
    state: Decompress,
    /// The state of the current member; `None` before one.
    member: Option<Crc>,
    /// The number of small members.
    small: usize,
    gzip: bool,
    ended: bool,
}

impl<'b> Inflating<'b> {
    fn new(body: &'b [u8], encoding: Encoding) -> Self {
        let gzip = encoding == Encoding::Gzip;
        // The first two bytes of the zlib format, as a number, are a multiple of 31.
        let zlib = !gzip
            && matches!(body, [first, second, ..]
                if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31));
        Self { left: body, state: Decompress::new(zlib), member: None, small: 0, gzip, ended: false }
    }

    /// Decompresses a part of the rest, and returns its size, which may be 0. `None`: everything is done.
    fn step(&mut self, out: &mut [u8]) -> Result<Option<usize>, String> {
        let (mut made, mut read) = (0, 0);
        let (mut looked, began) = (0, Instant::now());
        while made < out.len() {
            if read - looked >= PIECE {
                looked = read;
                if began.elapsed() >= TURN {
                    break;
                }
            }
            if self.ended && self.left.is_empty() {
                return Ok((made > 0).then_some(made));
            }
            if self.ended && !self.gzip {
                return Err(format!("{} bytes are left after its end", self.left.len()));
            }
            if self.member.is_none() {
                if self.gzip {
                    let before = self.left.len();
                    self.left = after_header(self.left)?;
                    self.state.reset(false);
                    read += MEMBER + before - self.left.len();
                }
                (self.member, self.ended) = (Some(Crc::new()), false);
            }
            let (took, wrote, status) = self.run(&mut out[made..])?;
            read += took;
            let done = &out[made..made + wrote];
            made += wrote;
            if let Some(sum) = self.member.as_mut().filter(|_| self.gzip) {
                sum.update(done);
            }
            match status {
                Status::StreamEnd => {
                    self.check_end()?;
                    self.ended = true;
                }
                Status::Ok | Status::BufError if took == 0 && wrote == 0 => return Err("it ends too early".to_owned()),
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(Some(made))
    }

    fn run(&mut self, out: &mut [u8]) -> Result<(usize, usize, Status), String> {
        let (read, made) = (self.state.total_in(), self.state.total_out());
        let input = &self.left[..self.left.len().min(PIECE)];
        let status = self.state.decompress(input, out, FlushDecompress::None).map_err(|error| error.to_string())?;
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        let read = count(self.state.total_in(), read);
        self.left = &self.left[read..];
        Ok((read, count(self.state.total_out(), made), status))
    }

    /// Skips the trailer of a gzip member, and compares it with the output.
    fn check_end(&mut self) -> Result<(), String> {
        let Some(sum) = self.member.take().filter(|_| self.gzip) else { return Ok(()) };
        let Some((end, left)) = self.left.split_first_chunk::<8>() else { return Err("it ends too early".to_owned()) };
        let [a, b, c, d, e, f, g, h] = *end;
        if (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])) != (sum.sum(), sum.amount()) {
            return Err("its checksum is another".to_owned());
        }
        self.small += usize::from(self.state.total_out() < SMALL as u64);
        if self.small > MOST_SMALL {
            return Err(format!(
                "more than {MOST_SMALL} of its members hold less than {SMALL} bytes each: compress it as one member"
            ));
        }
        self.left = left;
        Ok(())
    }
}

/// The optional fields after the header of a gzip member (RFC 1952, 2.3).
fn after_header(member: &[u8]) -> Result<&[u8], String> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    /// Nobody writes longer names, and searching the end of one costs time.
    const LONGEST: usize = STEP;
    let early = || "it ends too early".to_owned();
    let Some(([first, second, method, flags, ..], mut left)) = member.split_first_chunk::<10>() else {
        return Err(early());
    };
    if (*first, *second, *method) != (0x1f, 0x8b, 8) || flags & 0xe0 != 0 {
        return Err("there is no gzip header where one should be".to_owned());
    }
    if flags & EXTRA != 0 {
        let (length, rest) = left.split_first_chunk::<2>().ok_or_else(early)?;
        left = rest.get(usize::from(u16::from_le_bytes(*length))..).ok_or_else(early)?;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let within = &left[..left.len().min(LONGEST)];
            let end = memchr::memchr(0, within).ok_or_else(|| "its header has no end".to_owned())?;
            left = &left[end + 1..];
        }
    }
    if flags & CRC != 0 { left.get(2..).ok_or_else(early) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder, write};

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// What is made, and in how many steps.
    fn steps(body: &[u8], encoding: Encoding) -> Result<(Vec<u8>, usize), String> {
        let mut inflating = Inflating::new(body, encoding);
        let (mut all, mut out, mut steps) = (Vec::new(), vec![0; STEP], 0);
        while let Some(made) = inflating.step(&mut out)? {
            all.extend_from_slice(&out[..made]);
            steps += 1;
        }
        Ok((all, steps))
    }

    #[test]
    fn members_one_after_the_other_are_one_text() {
        let long: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut named =
            GzBuilder::new().filename("a").comment("b").extra(vec![1; 300]).write(Vec::new(), Compression::best());
        named.write_all(b"named").unwrap();
        let body = [gzip(b"one"), gzip(b""), gzip(&long), named.finish().unwrap()].concat();
        let wanted = [&b"one"[..], &long, b"named"].concat();
        assert_eq!(steps(&body, Encoding::Gzip).unwrap().0, wanted);
        assert_eq!(steps(&zlib(&long), Encoding::Deflate).unwrap().0, long);
        assert_eq!(steps(&zlib(b""), Encoding::Deflate).unwrap().0, b"");
    }

    #[test]
    fn what_is_damaged_is_said() {
        let whole = gzip(b"some text that is long enough");
        let said = |body: &[u8], encoding| steps(body, encoding).unwrap_err();
        for end in 0..whole.len() {
            assert!(said(&whole[..end], Encoding::Gzip).contains("early"), "{end}");
        }
        assert!(said(&[&whole[..], b"rest of it"].concat(), Encoding::Gzip).contains("no gzip header"));
        let mut wrong = whole.clone();
        let place = wrong.len() - 6;
        wrong[place] ^= 1;
        assert!(said(&wrong, Encoding::Gzip).contains("checksum"));
        let whole = zlib(b"some text that is long enough");
        for end in 0..whole.len() {
            assert!(steps(&whole[..end], Encoding::Deflate).is_err(), "{end}");
        }
        assert!(said(&[&whole[..], b"rest"].concat(), Encoding::Deflate).contains("4 bytes are left"));
        let endless = [&[0x1f, 0x8b, 8, 1 << 3, 0, 0, 0, 0, 0, 0][..], &vec![b'n'; 1 << 20]].concat();
        assert!(said(&endless, Encoding::Gzip).contains("no end"));
    }

    #[test]
    fn a_step_is_bounded_whatever_it_inflates() {
        // Blocks of deflate that make nothing: empty ones, and ones that begin with tables. And zeros, of which a little makes
        // much.
        let blocks = [&[0, 0, 0, 0xff, 0xff].repeat(1 << 20)[..], &[1, 0, 0, 0xff, 0xff]].concat();
        assert!(steps(&blocks, Encoding::Deflate).unwrap().0.is_empty());
        let tables = [&empty_blocks_with_tables(10_000)[..], &[1, 0, 0, 0xff, 0xff]].concat();
        let (made, count) = steps(&tables, Encoding::Deflate).unwrap();
        assert!(made.is_empty() && count >= tables.len() / PIECE / 2, "{count}");
        let (made, count) = steps(&gzip(&vec![0; 32 << 20]), Encoding::Gzip).unwrap();
        assert!(made.len() == 32 << 20 && count >= (32 << 20) / STEP, "{count}");
    }

    #[test]
    fn many_members_that_hold_next_to_nothing_are_refused() {
        for text in [&b""[..], b"x"] {
            let member = gzip(text);
            assert_eq!(steps(&member.repeat(MOST_SMALL), Encoding::Gzip).unwrap().0, text.repeat(MOST_SMALL));
            let refused = steps(&member.repeat(MOST_SMALL + 1), Encoding::Gzip).unwrap_err();
            assert!(refused.contains("more than 10000 of its members"), "{refused}");
        }
        let member = gzip(&[7; SMALL]);
        assert_eq!(steps(&member.repeat(MOST_SMALL + 1), Encoding::Gzip).unwrap().0.len(), (MOST_SMALL + 1) * SMALL);
    }

    /// Blocks of deflate with Huffman tables of their own and no content (RFC 1951, 3.2.7): the end of a block and one distance have
    /// codes of one bit.
    fn empty_blocks_with_tables(blocks: usize) -> Vec<u8> {
        let mut bits: Vec<u8> = Vec::new();
        let mut put = |value: usize, count: usize| bits.extend((0..count).map(|bit| u8::from(value >> bit & 1 == 1)));
        for _ in 0..blocks.next_multiple_of(8) {
            put(0b100, 3);
            // 257 lengths of literals, one of distances, and 18 of the code for lengths, in their order 16, 17, 18, 0, 8, 7, 9, ...
            [(0, 5), (0, 5), (14, 4)].into_iter().for_each(|(value, count)| put(value, count));
            // 18 (a run of zeros) and 1 have codes of one bit, which are 0 for 1 and 1 for 18.
            for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
                put(usize::from(matches!(symbol, 18 | 1)), 3);
            }
            // 138 and 118 zeros, the end of the block, the distance; then the end.
            [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]
                .into_iter()
                .for_each(|(value, count)| put(value, count));
        }
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | bit)).collect()
    }
}
