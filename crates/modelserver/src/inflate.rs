//! Inflates gzip and deflate in small steps, each of which takes a bounded time whatever the input is.
//!
//! A megabyte may inflate to a gigabyte or to nothing at all: two million empty members of gzip are 40 MB, and so are
//! eight million empty blocks of deflate. So a step is bounded in what it reads, in what it makes and in the members that it
//! begins. What is made is counted by the caller before it is kept.

use bytes::Bytes;
use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Bytes that a step reads, and bytes that it makes, at most.
const STEP: usize = 64 << 10;

/// What beginning a member costs, as so many bytes.
const MEMBER: usize = 1 << 10;

/// An encoding of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// Zlib's format, which is what the name means; bare deflate, which some send, is understood.
    Deflate,
}

/// Why something was not inflated.
#[derive(Debug)]
pub(crate) enum Failed<E> {
    /// It is not what it says that it is.
    Damaged(String),
    /// The caller did not want what it became.
    Refused(E),
}

/// What `body` becomes. `admit` is asked about its size before each step is kept. Between steps others get their turn.
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

/// What is being inflated.
struct Inflating<'b> {
    left: &'b [u8],
    state: Decompress,
    /// Of the member that is being inflated; `None` before one.
    member: Option<Crc>,
    gzip: bool,
    ended: bool,
}

impl<'b> Inflating<'b> {
    fn new(body: &'b [u8], encoding: Encoding) -> Self {
        let gzip = encoding == Encoding::Gzip;
        // The first two bytes of zlib's format, as a number, are a multiple of 31.
        let zlib = !gzip
            && matches!(body, [first, second, ..]
                if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31));
        Self { left: body, state: Decompress::new(zlib), member: None, gzip, ended: false }
    }

    /// Makes something of what is left, and says how much; that may be nothing. `None`: all of it is done.
    fn step(&mut self, out: &mut [u8]) -> Result<Option<usize>, String> {
        let (mut made, mut work) = (0, 0);
        while made < out.len() && work < STEP {
            if self.ended && self.left.is_empty() {
                return Ok((made > 0).then_some(made));
            }
            if self.ended && !self.gzip {
                return Err(format!("{} bytes are left after its end", self.left.len()));
            }
            if self.member.is_none() {
                let before = self.left.len();
                if self.gzip {
                    self.left = after_header(self.left)?;
                    self.state.reset(false);
                }
                (self.member, self.ended) = (Some(Crc::new()), false);
                work += MEMBER + before - self.left.len();
            }
            let (read, wrote, status) = self.run(&mut out[made..])?;
            work += read;
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
                Status::Ok | Status::BufError if read == 0 && wrote == 0 => return Err("it ends too early".to_owned()),
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(Some(made))
    }

    fn run(&mut self, out: &mut [u8]) -> Result<(usize, usize, Status), String> {
        let (read, made) = (self.state.total_in(), self.state.total_out());
        let input = &self.left[..self.left.len().min(STEP)];
        let status = self.state.decompress(input, out, FlushDecompress::None).map_err(|error| error.to_string())?;
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        let read = count(self.state.total_in(), read);
        self.left = &self.left[read..];
        Ok((read, count(self.state.total_out(), made), status))
    }

    /// Goes over what stands behind a member of gzip, and holds it against what was made.
    fn check_end(&mut self) -> Result<(), String> {
        let Some(sum) = self.member.take().filter(|_| self.gzip) else { return Ok(()) };
        let Some((end, left)) = self.left.split_first_chunk::<8>() else { return Err("it ends too early".to_owned()) };
        let [a, b, c, d, e, f, g, h] = *end;
        if (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])) != (sum.sum(), sum.amount()) {
            return Err("its checksum is another".to_owned());
        }
        self.left = left;
        Ok(())
    }
}

/// What stands behind the header of a member of gzip (RFC 1952, 2.3).
fn after_header(member: &[u8]) -> Result<&[u8], String> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    /// Nobody writes longer names, and looking for the end of one is work.
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
        // Members, and blocks of deflate, that make nothing; and zeros, of which a little makes much.
        let members = gzip(b"").repeat(10_000);
        let (made, count) = steps(&members, Encoding::Gzip).unwrap();
        assert!(made.is_empty() && count >= 10_000 * MEMBER / STEP, "{count}");
        let blocks = [&[0, 0, 0, 0xff, 0xff].repeat(1 << 20)[..], &[1, 0, 0, 0xff, 0xff]].concat();
        let (made, count) = steps(&blocks, Encoding::Deflate).unwrap();
        assert!(made.is_empty() && count >= blocks.len() / STEP, "{count}");
        let (made, count) = steps(&gzip(&vec![0; 32 << 20]), Encoding::Gzip).unwrap();
        assert!(made.len() == 32 << 20 && count >= (32 << 20) / STEP, "{count}");
    }
}
