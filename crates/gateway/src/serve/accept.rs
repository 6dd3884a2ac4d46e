//! Accepts connections and hands each to a serving thread.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

use super::{
    app::App,
    thread::{Accepted, OpenPlace, Thread},
};

/// Connections that may wait for one thread to take them.
pub(crate) const HANDOVER: usize = 1_024;
/// How long to wait after the machine refused to hand over a connection, as when it has no file descriptors left.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Refused connections that are read for a while at one time, so that their clients read the refusal.
const MOST_REFUSED: usize = 256;
/// How long, and how much, one of them is read.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERED: u64 = 16 << 20;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 105\r\n\r\n\
{\"error\":\"too many connections are open (gateway.max_connections); close some, or try again in a moment\"}";

/// Accepts connections and hands each to the thread that has the fewest, until told to end.
pub(crate) async fn accept(app: &App, listener: TcpListener, lanes: Vec<(Arc<Thread>, mpsc::Sender<Accepted>)>) {
    let mut failing = false;
    let refused = Arc::new(Semaphore::new(MOST_REFUSED));
    let mut any_ended = futures::future::select_all(lanes.iter().map(|(_, lane)| Box::pin(lane.closed())));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.gateway.tasks.stopping() => return,
            // A thread that ended takes the gateway with it: half of one would be worse than none.
            _ = &mut any_ended => return,
        };
        match accepted.and_then(|(stream, from)| prepare(stream).map(|stream| (stream, from))) {
            Ok((stream, from)) => {
                failing = false;
                hand_over(app, stream, from, &lanes, &refused).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("a connection could not be accepted: {error}; the next ones are tried");
                }
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn hand_over(
    app: &App,
    stream: TcpStream,
    from: SocketAddr,
    lanes: &[(Arc<Thread>, mpsc::Sender<Accepted>)],
    refused: &Arc<Semaphore>,
) {
    let Some((thread, lane)) = lanes.iter().min_by_key(|(thread, _)| thread.open()) else { return };
    let Some(place) = OpenPlace::take(thread) else {
        app.gateway.counters.connections_refused.inc();
        // Its send buffer is empty; a client that is gone already need not be told.
        let _told = stream.try_write(FULL);
        if let Ok(place) = Arc::clone(refused).try_acquire_owned() {
            app.gateway.tasks.spawn(async move {
                linger(stream).await;
                drop(place);
            });
        }
        return;
    };
    match stream.into_std() {
        Ok(stream) => {
            // It fails only when the thread ended, which the acceptor notices by itself.
            let _sent = lane.send(Accepted { stream, place }).await;
        }
        Err(error) => tracing::warn!("the connection of {from} could not be handed over: {error}"),
    }
}

/// Ends our half and reads what still comes for a while: closing with bytes unread would reset the connection, and the
/// client might lose the answer.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_LINGERED), &mut tokio::io::sink()).await
    };
    let _gone = tokio::time::timeout(LINGER, reading).await;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_at_the_bound_is_well_formed() {
        let text = std::str::from_utf8(super::FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
