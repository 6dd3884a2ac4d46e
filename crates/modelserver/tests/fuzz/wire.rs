//! HTTP/1.1 by hand, so that anything can be sent, and what comes back is seen as it is.

use std::io::Read as _;

use flate2::read;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::requests::{Framing, Sent};

/// A connection, made anew when the server has closed it.
pub(crate) struct Wire {
    address: String,
    stream: Option<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Answer {
    /// The body as it was before it was compressed.
    pub(crate) fn unpacked(&self) -> Result<Vec<u8>, String> {
        let mut whole = Vec::new();
        let read = match self.header("content-encoding") {
            None => return Ok(self.body.clone()),
            Some("gzip") => read::GzDecoder::new(&self.body[..]).read_to_end(&mut whole),
            Some("deflate") => read::ZlibDecoder::new(&self.body[..]).read_to_end(&mut whole),
            Some(other) => return Err(format!("the content-encoding {other:?}")),
        };
        read.map(|_| whole).map_err(|e| format!("an answer that cannot be unpacked: {e}"))
    }
}

/// Why there is no answer.
enum Broken {
    /// The connection ended before any byte of it.
    Silent(String),
    Wrong(String),
}

impl From<&str> for Broken {
    fn from(why: &str) -> Self {
        Self::Wrong(why.to_owned())
    }
}

impl From<String> for Broken {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl Wire {
    pub(crate) fn new(address: String) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request and reads its whole answer. A connection that the server closed after the request before
    /// is replaced, as every client does it.
    pub(crate) async fn send(&mut self, sent: &Sent) -> Result<Answer, String> {
        let used = self.stream.take();
        if let Some(stream) = used {
            match self.exchange(stream, sent).await {
                Ok(answer) => return Ok(answer),
                Err(Broken::Wrong(why)) => return Err(why),
                Err(Broken::Silent(_)) => {}
            }
        }
        let fresh = TcpStream::connect(&self.address).await.map_err(|e| format!("no connection: {e}"))?;
        self.exchange(fresh, sent).await.map_err(|broken| match broken {
            Broken::Silent(why) | Broken::Wrong(why) => why,
        })
    }

    async fn exchange(&mut self, mut stream: TcpStream, sent: &Sent) -> Result<Answer, Broken> {
        let bytes = sent.bytes();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        if sent.framing == Framing::CutOff {
            let _ = stream.shutdown().await;
        }
        let mut got = Vec::new();
        let end = loop {
            if let Some(end) = memchr::memmem::find(&got, b"\r\n\r\n") {
                break end + 4;
            }
            let silent = got.is_empty();
            more(&mut stream, &mut got)
                .await
                .map_err(|why| if silent { Broken::Silent(why) } else { Broken::Wrong(why) })?;
        };
        let head = String::from_utf8(got[..end].to_vec()).map_err(|_| "a head that is not ASCII")?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or("no status")?;
        let mut answer = Answer { status, head, body: got.split_off(end) };
        if sent.method != "HEAD" {
            read_body(&mut stream, &mut answer).await?;
        }
        let closes = answer.header("connection").is_some_and(|value| value == "close");
        if !closes && sent.framing != Framing::CutOff {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

async fn more(stream: &mut TcpStream, got: &mut Vec<u8>) -> Result<(), String> {
    match stream.read_buf(got).await {
        Ok(0) => Err(format!("the answer ends after {} bytes: {}", got.len(), String::from_utf8_lossy(got))),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error} after {} bytes: {}", got.len(), String::from_utf8_lossy(got))),
    }
}

async fn read_body(stream: &mut TcpStream, answer: &mut Answer) -> Result<(), String> {
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().map_err(|_| "a content-length that is no number")?;
        while answer.body.len() < length {
            more(stream, &mut answer.body).await?;
        }
        return if answer.body.len() == length { Ok(()) } else { Err("more body than said".to_owned()) };
    }
    if answer.header("transfer-encoding") != Some("chunked") {
        return Err(format!("an answer without a length: {}", answer.head));
    }
    let mut whole = Vec::new();
    loop {
        let line = loop {
            if let Some(end) = memchr::memmem::find(&answer.body, b"\r\n") {
                break answer.body.drain(..end + 2).collect::<Vec<_>>();
            }
            more(stream, &mut answer.body).await?;
        };
        let line = String::from_utf8_lossy(&line);
        let length = usize::from_str_radix(line.trim(), 16).map_err(|_| format!("the chunk {line:?}"))?;
        while answer.body.len() < length + 2 {
            more(stream, &mut answer.body).await?;
        }
        whole.extend(answer.body.drain(..length));
        answer.body.drain(..2);
        if length == 0 {
            answer.body = whole;
            return Ok(());
        }
    }
}
