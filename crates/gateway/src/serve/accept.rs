//! Accepts connections and hands each to a serving thread.

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

/// Connections that may wait for one thread to take them.
pub(crate) const HANDOVER: usize = 1_024;
/// How long to wait after the machine refused to hand over a connection, as when it has no file descriptors left.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 105\r\n\r\n\
{\"error\":\"too many connections are open (gateway.max_connections); close some, or try again in a moment\"}";

/// Accepts connections and hands each to the thread that has the fewest, until told to end.
pub(crate) async fn accept(app: &App, listener: TcpListener, lanes: Vec<(Arc<Thread>, mpsc::Sender<Accepted>)>) {
    let refusals = Refusals::default();
    let mut failing = false;
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
                hand_over(app, stream, from, &lanes, &refusals).await;
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
            // It fails only when the thread ended, which the acceptor notices by itself.
            let _sent = lane.send(Accepted { stream, place }).await;
        }
        Err(error) => tracing::warn!("the connection of {from} could not be handed over: {error}"),
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
