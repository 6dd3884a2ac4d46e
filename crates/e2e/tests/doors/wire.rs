//! Requests as bytes, and answers as they came: no client's library smooths anything over.

use std::{collections::BTreeMap, future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// How a request is sent.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// These bytes on a connection of HTTP/1, read until the server closes it.
    Http1(Vec<u8>),
    /// One stream of a connection of HTTP/2.
    Http2 { request: Request<()>, body: Bytes },
    /// The same, whose answer goes on for as long as the client listens: its first message is taken.
    Begun { request: Request<()>, body: Bytes },
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The status of gRPC where there is one, else that of HTTP; 0 if the stream or the connection broke off.
    pub(crate) status: u16,
    /// Headers and trailers, joined where there are several of one name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) async fn send(&self, port: u16) -> Said {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let asking = async {
            match self {
                Self::Http1(bytes) => {
                    // A server that refuses a request need not read it to its end.
                    let _refused = stream.write_all(bytes).await;
                    let mut came = Vec::new();
                    let _reset = stream.read_to_end(&mut came).await;
                    read(&came)
                }
                Self::Http2 { request, body } => over_http2(stream, request, body, false).await,
                Self::Begun { request, body } => over_http2(stream, request, body, true).await,
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no answer in time: {self:?}"))
    }
}

impl Said {
    fn add(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.add_one(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
    }

    fn add_one(&mut self, name: &str, value: &str) {
        let all = self.headers.entry(name.to_ascii_lowercase()).or_default();
        *all = if all.is_empty() { value.to_owned() } else { format!("{all}, {value}") };
    }
}

/// Reads an answer of HTTP/1, those with 1xx before it left out, and what comes behind it as its body.
fn read(mut came: &[u8]) -> Said {
    loop {
        let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") else { return Said::default() };
        let (head, rest) = (String::from_utf8_lossy(&came[..end]).into_owned(), &came[end + 4..]);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let mut said = Said { status: status.unwrap(), ..Said::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            said.add_one(name, value.trim());
        }
        if said.status < 200 && said.status != 101 {
            came = rest;
            continue;
        }
        let chunked = said.headers.get("transfer-encoding").is_some_and(|it| it == "chunked");
        said.body = if chunked { unchunked(rest) } else { rest.to_vec() };
        return said;
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(piece) = length.and_then(|length| rest.get(end + 2..end + 2 + length)) else { break };
        if piece.is_empty() {
            return body;
        }
        body.extend_from_slice(piece);
        rest = &rest[end + 4 + piece.len()..];
    }
    body.extend_from_slice(b"<broken off>");
    body
}

async fn over_http2(stream: TcpStream, request: &Request<()>, body: &Bytes, begun: bool) -> Said {
    let builder = h2::client::Builder::new().initial_window_size(1 << 24).clone();
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let asking = async {
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (answer, mut sending) = sender.send_request(request.clone(), body.is_empty())?;
        if !body.is_empty() {
            sending.reserve_capacity(body.len());
            // A server that refuses a request need not take it to its end.
            let _refused = sending.send_data(body.clone(), true);
        }
        let mut said = Said::default();
        let (head, mut rest) = answer.await?.into_parts();
        said.status = head.status.as_u16();
        said.add(&head.headers);
        let ended = take(&mut rest, begun, &mut said).await;
        if let Some(code) = said.headers.get("grpc-status") {
            said.status = code.parse().unwrap();
        }
        if let Err(error) = ended {
            said.status = 0;
            said.add_one("broke-off", &error.to_string());
        }
        Ok(said)
    };
    let failed = async {
        match connection.await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        said = asking => said,
        error = failed => Err(error),
    }
    .unwrap_or_else(|error: h2::Error| {
        let mut said = Said::default();
        said.add_one("broke-off", &error.to_string());
        said
    })
}

async fn take(rest: &mut RecvStream, begun: bool, said: &mut Said) -> Result<(), h2::Error> {
    while let Some(piece) = rest.data().await {
        let piece = piece?;
        said.body.extend_from_slice(&piece);
        rest.flow_control().release_capacity(piece.len())?;
        if begun {
            return Ok(());
        }
    }
    if let Some(trailers) = rest.trailers().await? {
        said.add(&trailers);
    }
    Ok(())
}
