//! Accepts connections and passes each to a serving thread.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use base::serve::Refusals;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    app::App,
    thread::{Accepted, OpenPlace, Thread},
};

/// How many connections may wait for one thread to accept them.
pub(crate) const HANDOVER: usize = 1_024;
/// The delay after a failed accept, for example without free file descriptors.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 105\r\n\r\n\
{\"error\":\"too many connections are open (gateway.max_connections); close some, or try again in a moment\"}";

/// Accepts connections and passes each to the thread with the fewest connections, until told to end.
pub(crate) async fn accept(app: &App, listener: TcpListener, lanes: Vec<(Arc<Thread>, mpsc::Sender<Accepted>)>) {
    let refusals = Refusals::default();
    let mut failing = false;
    let mut any_ended = futures::future::select_all(lanes.iter().map(|(_, lane)| Box::pin(lane.closed())));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.gateway.tasks.stopping() => return,
            // If a thread ends, the whole gateway ends: a part of a gateway would be worse than none.
            _ = &mut any_ended => return,
        };
        match accepted.and_then(|(stream, from)| prepare(stream).map(|stream| (stream, from))) {
            Ok((stream, from)) => {
                failing = false;
                hand_over(app, stream, from, &lanes, &refusals).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("cannot accept a connection: {error}; the server keeps accepting");
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
    refusals: &Refusals,
) {
    let Some((thread, lane)) = lanes.iter().min_by_key(|(thread, _)| thread.open()) else { return };
    let Some(place) = OpenPlace::take(thread) else {
        app.gateway.counters.connections_refused.inc();
        refusals.refuse_tcp(stream, FULL, &app.gateway.tasks);
        return;
    };
    match stream.into_std() {
        Ok(stream) => {
            // It fails only if the thread ended, which the acceptor detects itself.
            let _sent = lane.send(Accepted { stream, place }).await;
        }
        Err(error) => tracing::warn!("cannot pass the connection of {from} to its thread: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_at_the_bound_is_well_formed() {
        let (head, body) = super::FULL.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
