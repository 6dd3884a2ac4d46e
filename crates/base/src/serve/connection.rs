//! One connection from its acceptance to its end.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::time::Sleep;

use super::{
    body::{InFlight, Watched},
    head,
    socket::Socket,
    stream::Stream,
    taking::while_taken,
    terms::{Answer, Ending, Limits},
    untaken::Calls,
    watch::{Answering, Peer, Watch},
};
use crate::Tasks;

/// Interval of pings to HTTP/2 clients.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The read buffer for an HTTP/1 request, which is also the maximum size of its header.
const MOST_READ_AHEAD: usize = 256 << 10;

/// How long a client that closed its sending half is assumed to be connected.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// Interval of checking whether it is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The error for an HTTP/2 call above the limit.
const TOO_MANY_CALLS: &str = "this server has reached its limit of HTTP/2 calls: try again";

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Overdue {
    /// The header of a request, or the first byte, did not arrive in time.
    Head,
    /// The idle timeout.
    Idle,
    /// The client does not read its answer.
    Stalled,
    /// The client has not read the last piece of an answer over HTTP/2.
    Untaken,
    /// The client is gone.
    Gone,
    /// The server is shutting down, and the drain time is over.
    Cut,
}

pub(super) async fn serve<A: Answer>(
    stream: Stream,
    limits: &Limits,
    calls: Arc<Calls>,
    answer: &Arc<A>,
    ending: &Ending,
) {
    let watch = Arc::new(Watch::new(limits.head, calls));
    let socket = Socket::new(stream, Arc::clone(&watch), limits);
    let service = service_fn(|request: Request<Incoming>| {
        let (answer, watch, idle) = (Arc::clone(answer), Arc::clone(&watch), limits.idle);
        async move {
            let version = request.version();
            let bare = version == Version::HTTP_2 && request.method() == Method::HEAD;
            let in_flight = InFlight::new(Arc::clone(&watch), version, idle);
            let mut answered = match head::too_large(&request) {
                _ if in_flight.is_one_too_many() => {
                    answer.refuse(&request, StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_CALLS)
                }
                None => answer.answer(Peer(Arc::clone(&watch)), request).await?,
                Some(words) => answer.refuse(&request, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words),
            };
            // An error response may leave some of the request unread; hyper then closes the connection over HTTP/1.
            if answered.status().as_u16() >= 400 && version != Version::HTTP_2 {
                watch.set_unread();
            }
            if watch.is_draining() && version != Version::HTTP_2 {
                answered.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let events = answered.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
            watch.set_answering(if events { Answering::Events } else { Answering::Bytes });
            if bare && let Some(length) = answered.body().size_hint().exact() {
                answered.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
            }
            Ok::<_, Infallible>(answered.map(|body| Watched::new(body, in_flight, bare)))
        }
    });
    let builder = builder(&ending.connections, limits.stall);
    let overdue = {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
        let mut end = pin!(ending.connections.stopping());
        let mut drain = pin!(ending.draining.stopping());
        let mut cut = pin!(ending.cut.stopping());
        let (mut told, mut draining) = (false, false);
        let mut clock = Clock::new(&watch, limits);
        poll_fn(|context| {
            if cut.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Overdue::Cut));
            }
            if !draining && drain.as_mut().poll(context).is_ready() {
                draining = true;
                watch.set_draining();
            }
            // If it got a GOAWAY before its first request, the client would get no answer here.
            let leaves = draining && watch.is_http2();
            if !told && (leaves || end.as_mut().poll(context).is_ready()) {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                if let Err(error) = ended {
                    // Clients often disconnect, and some do not speak HTTP.
                    tracing::debug!("a connection ended: {error}");
                }
                return Poll::Ready(None);
            }
            if !told && draining && watch.is_http2() {
                context.waker().wake_by_ref();
            }
            match clock.poll(context) {
                // An HTTP/2 client gets a GOAWAY, and then the same time again to close.
                Poll::Ready(Overdue::Idle | Overdue::Untaken) if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                    clock.give(limits.stall);
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Ready(overdue) => Poll::Ready(Some(overdue)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    let Some(stream) = watch.take_stream() else { return };
    match overdue {
        Some(Overdue::Head) if watch.in_head() => {
            stream.say(limits.slow);
            stream.linger().await;
        }
        None if watch.is_unread() => stream.linger().await,
        None | Some(_) => {}
    }
}

/// Checks when a connection is overdue. Its timer is reset only when it fires, or when an earlier deadline appears.
struct Clock<'w> {
    watch: &'w Watch,
    limits: &'w Limits,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires.
    armed: u64,
    /// The deadline of a later header that has begun.
    head_until: Option<u64>,
    /// The deadline for reading pending data.
    owed_until: Option<u64>,
    /// The end of the period in which the client must read HTTP/2 pieces that were sent before.
    turn_until: Option<u64>,
    /// The deadline for closing the connection if no request is in flight then.
    last: Option<u64>,
    /// When to test the next time whether a client with a closed sending half is still connected.
    ask_at: Option<u64>,
    /// The part of the answer at the last test.
    last_asked: Option<Answering>,
}

impl<'w> Clock<'w> {
    fn new(watch: &'w Watch, limits: &'w Limits) -> Self {
        let armed = watch.idle_until();
        let timer = Box::pin(tokio::time::sleep_until(watch.at(armed)));
        Self {
            watch,
            limits,
            timer,
            armed,
            head_until: None,
            owed_until: None,
            turn_until: None,
            last: None,
            ask_at: None,
            last_asked: None,
        }
    }

    /// The connection closes, within this time.
    fn give(&mut self, time: Duration) {
        self.last = Some(self.watch.after(time));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Overdue> {
        loop {
            let (due, why) = self.due();
            if due < self.armed {
                self.arm(due);
            }
            ready!(self.timer.as_mut().poll(context));
            if due <= self.watch.now() {
                if why == Overdue::Gone && !self.watch.is_gone() && self.asks() {
                    context.waker().wake_by_ref();
                    continue;
                }
                if why == Overdue::Untaken {
                    self.turn_until = None;
                    if self.watch.held().next_turn() {
                        continue;
                    }
                }
                return Poll::Ready(why);
            }
            self.arm(due.min(self.watch.after(self.limits.idle)));
        }
    }

    fn arm(&mut self, due: u64) {
        self.armed = due;
        self.timer.as_mut().reset(self.watch.at(due));
    }

    /// The next deadline in milliseconds, and its meaning. Reads the time only if something is late.
    fn due(&mut self) -> (u64, Overdue) {
        let watch = self.watch;
        // A client may have sent a request before it got the GOAWAY: it is still answered.
        let idle = self.last.filter(|_| !watch.has_requests()).unwrap_or_else(|| watch.idle_until());
        let mut due = (idle, if watch.spoke() { Overdue::Idle } else { Overdue::Head });
        if watch.spoke() && watch.in_head() {
            let until = *self.head_until.get_or_insert_with(|| watch.after(self.limits.head));
            due = due.min((until, Overdue::Head));
        } else {
            self.head_until = None;
        }
        if watch.is_owed() {
            if self.owed_until.is_none() || watch.took() {
                self.owed_until = Some(watch.after(self.limits.stall));
            }
            due = due.min((self.owed_until.unwrap_or(u64::MAX), Overdue::Stalled));
        } else {
            self.owed_until = None;
        }
        if watch.held().has_pieces() {
            let until = *self.turn_until.get_or_insert_with(|| watch.after(self.limits.stall));
            due = due.min((until, Overdue::Untaken));
        } else {
            self.turn_until = None;
        }
        due.min((watch.write_until(), Overdue::Stalled)).min((self.gone_at(), Overdue::Gone))
    }

    /// When the client is considered gone, or when to test it.
    fn gone_at(&mut self) -> u64 {
        let watch = self.watch;
        if !watch.is_half_closed() || !watch.has_requests() {
            return u64::MAX;
        }
        if watch.is_gone() {
            return 0;
        }
        *self.ask_at.get_or_insert_with(|| watch.after(HALF_CLOSED))
    }

    /// A client that closed only its sending half waits for its answer; a client that is gone resets the connection
    /// when the server sends something. Returns false if nothing can be sent that is not part of the answer, and no
    /// answer data is available: then the client is considered gone.
    fn asks(&mut self) -> bool {
        let watch = self.watch;
        // Data that was sent before has caused a reset by now if the client is gone.
        let first = self.last_asked.replace(watch.answering()) != Some(watch.answering());
        match watch.answering() {
            Answering::No if first => watch.ask(),
            Answering::Events => watch.ask(),
            Answering::Bytes if !watch.is_owed() && watch.write_until() == u64::MAX => return false,
            Answering::No | Answering::Bytes => {}
        }
        self.ask_at = Some(watch.after(LOOK_AGAIN));
        true
    }
}

fn builder(tasks: &Tasks, stall: Duration) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(Executor { tasks: tasks.clone(), stall });
    // Without `pipeline_flush`: it holds an answer back while a part of a body is unread, and loses an answer that
    // refuses the body. Without hyper's header timeout: a timer for each request costs more than the watch.
    builder.http1().half_close(true).header_read_timeout(None).max_buf_size(MOST_READ_AHEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(1_000)
        .max_header_list_size(head::MOST_READ)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// Runs hyper's tasks, one for each HTTP/2 call, as tasks of ours, so that shutdown waits for them.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
    stall: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.tasks.spawn(while_taken(task, self.stall));
    }
}
