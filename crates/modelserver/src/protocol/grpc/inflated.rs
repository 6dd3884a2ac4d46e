//! Inflates the compressed messages of a request in small steps, before tonic reads them: tonic inflates a message in one
//! piece, and would hold up a thread for as long as a large one takes.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Status, body::Body as GrpcBody, codec::CompressionEncoding};

use super::{messages::PREFIX, metered::Metered};
use crate::protocol::inflate::{self, Encoding, Failed};

/// The header that names the encoding of messages.
const ENCODING: &str = "grpc-encoding";

/// The request with plain messages, and how they were compressed. What is not known here tonic refuses.
pub(super) fn inflated(
    mut request: Request<Metered>,
    limit: usize,
) -> (Request<GrpcBody>, Option<CompressionEncoding>) {
    let (encoding, name) = match request.headers().get(ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => (Encoding::Gzip, CompressionEncoding::Gzip),
        Some(b"deflate") => (Encoding::Deflate, CompressionEncoding::Deflate),
        Some(_) | None => return (request.map(GrpcBody::new), None),
    };
    request.headers_mut().remove(ENCODING);
    let request = request.map(|body| {
        let messages = Messages { body, encoding, limit, read: BytesMut::new(), made: Bytes::new() };
        GrpcBody::new(StreamBody::new(stream::try_unfold(messages, async |mut messages| {
            Ok::<_, Status>(messages.next().await?.map(|bytes| (Frame::data(bytes), messages)))
        })))
    });
    (request, Some(name))
}

/// The messages of one body.
struct Messages {
    body: Metered,
    encoding: Encoding,
    limit: usize,
    /// What was read and not handed on.
    read: BytesMut,
    /// A message of which only the prefix was handed on.
    made: Bytes,
}

impl Messages {
    /// The next bytes that are handed on. A message that is cut off is handed on as it is: tonic refuses it.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.made.is_empty() {
            return Ok(Some(std::mem::take(&mut self.made)));
        }
        self.fill(PREFIX).await?;
        let Some([flag, length @ ..]) = self.read.first_chunk::<PREFIX>() else { return Ok(self.rest()) };
        let (flag, length) = (*flag, u32::from_be_bytes(*length) as usize);
        self.admit(length)?;
        self.fill(PREFIX + length).await?;
        if self.read.len() < PREFIX + length {
            return Ok(self.rest());
        }
        let message = self.read.split_to(PREFIX + length).freeze();
        if flag != 1 {
            return Ok(Some(message));
        }
        let mut counted = 0;
        let inflated = inflate::inflate(&message[PREFIX..], self.encoding, |size| {
            self.admit(size)?;
            let more = size - std::mem::replace(&mut counted, size);
            self.body.count(more)
        });
        self.made = inflated.await.map_err(|failed| match failed {
            Failed::Damaged(words) => Status::invalid_argument(words),
            Failed::Refused(status) => status,
        })?;
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        // It is no larger than the limit, which was checked.
        prefix.put_u32(u32::try_from(self.made.len()).unwrap_or(u32::MAX));
        Ok(Some(prefix.freeze()))
    }

    fn admit(&self, size: usize) -> Result<(), Status> {
        if size <= self.limit {
            return Ok(());
        }
        let limit = self.limit;
        Err(Status::resource_exhausted(format!(
            "the message has more than the {limit} bytes that are allowed (serve.body_limit_bytes)"
        )))
    }

    /// Reads until there are so many bytes, or no more.
    async fn fill(&mut self, size: usize) -> Result<(), Status> {
        while self.read.len() < size {
            let Some(frame) = self.body.frame().await else { return Ok(()) };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    fn rest(&mut self) -> Option<Bytes> {
        (!self.read.is_empty()).then(|| self.read.split().freeze())
    }
}
