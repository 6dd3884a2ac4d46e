//! The loop of attempts to get an answer from a replica, over HTTP and gRPC.
//!
//! A request that no replica has begun is sent to another one: the connection failed, it closed before anything was
//! sent, or the replica says that it has not begun (`x-modelway-not-begun`: it is full or stopping).
//!
//! A request that may have begun is retried once, only if its connection broke before the first byte of an answer, its
//! route says that it is idempotent, and its whole body is still held. Such a request may be what crashed the replica.
//! So each replica gets only one such request at a time, and a request that crashed a second replica is not retried: it
//! crashes two replicas at most, and no other request is refused because of it. It is remembered, and gets only one
//! attempt if it comes again. After a timeout nothing is retried.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use api::ejected::Cause;
use base::grpc::{TIMEOUT, timeout_value};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;

use super::{
    ejection,
    flight::{Claim, Flight},
    gateway::Gateway,
    head::{Protocol, stamp},
    lane::Lane,
    line::Line,
    loss::{self, InHand},
    receive::{Received, blame_client},
    reply::{OutBody, ReplicaBody, Source},
};
use crate::{
    admit::limits::Admission,
    choose,
    observe::records::Draft,
    table::{
        endpoint::{Endpoint, Revision},
        replica::Replica,
    },
    upstream::body::{SendBody, SendError, StreamState},
    wire::{
        alarm::Alarm,
        headers::{NOT_BEGUN, REQUEST_ID},
        refusal::Refusal,
    },
};

/// How often a request that waits for its second attempt looks for another replica, because requests before it may
/// crash more of them.
const MOST_WAITS: usize = 16;

/// An admitted request, and what is known about it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) lane: Arc<Lane>,
    pub(crate) admission: Admission,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) revision: Arc<Revision>,
    /// Whether the client specified the version.
    pub(crate) versioned: bool,
    pub(crate) protocol: Protocol,
    /// When the header of the request was read.
    pub(crate) started: Instant,
    /// When the caller's own time for the call is up.
    pub(crate) until: Option<Instant>,
    pub(crate) alarm: Alarm,
    /// The time until the header of an answer, for all attempts together.
    pub(crate) timeout: Duration,
    /// The maximum pause within an answer.
    pub(crate) gap: Duration,
    pub(crate) draft: Option<Draft>,
}

/// Gets an answer from a replica. `head` is what it gets besides the body.
pub(crate) async fn forward(call: Call, head: Request<()>, body: Received) -> Result<Response<OutBody>, Refusal> {
    let id = head.headers().get(&REQUEST_ID).cloned();
    let Call { lane, endpoint, protocol, timeout, mut alarm, .. } = call;
    // What is needed to send the request once more.
    let spare = body.held().cloned();
    let (body, progress) = body.into_sending(&lane.gateway.config);
    let streams = matches!(body, SendBody::Part(..));
    let mut outgoing = head.map(|()| body);
    let mut attempts = Attempts {
        lane: &lane,
        endpoint: &endpoint,
        revision: call.revision,
        tried: Vec::new(),
        versioned: call.versioned,
        suspected: spare.as_ref().is_some_and(|body| endpoint.live.fatal.knows(body)),
        ended: None,
    };
    // The time that the client took to send its body does not count for the replica.
    let begun = Instant::now();
    alarm.set(begun + timeout);
    let mut sent = begun;
    loop {
        let Some(turn) = attempts.turn(protocol, streams, &mut alarm).await? else {
            let words = "and before there was room for its second try its time was up";
            return Err(attempts.refuse(StatusCode::GATEWAY_TIMEOUT, words));
        };
        let Turn { replica, claim, mut line, reused, trial } = turn;
        let again = spare.as_ref().filter(|_| attempts.left());
        if !attempts.tried.is_empty() {
            sent = Instant::now();
        }
        let mut seen = 0;
        let extend = |alarm: &mut Alarm| {
            let Some(progress) = &progress else { return false };
            let bytes = progress.bytes.load(Ordering::Relaxed);
            let moving = progress.state() == StreamState::Open && bytes != std::mem::replace(&mut seen, bytes);
            let due = Instant::now() + timeout;
            alarm.set(call.until.map_or(due, |until| until.min(due)));
            moving && call.until.is_none_or(|until| until > Instant::now())
        };
        let in_hand = InHand {
            lane: &lane,
            endpoint: &endpoint,
            revision: &attempts.revision,
            replica: &replica,
            id: id.as_ref(),
        };
        if let Some(until) = call.until {
            let left = until.saturating_duration_since(Instant::now());
            outgoing.headers_mut().insert(TIMEOUT.clone(), timeout_value(left));
        }
        let answer = line.send(&mut outgoing, &mut alarm, extend).await;
        drop((in_hand, trial));
        let error = match answer {
            Ok(response) => {
                replica.heard(lane.tick());
                if attempts.suspected
                    && let Some(body) = &spare
                {
                    endpoint.live.fatal.forget(body);
                }
                let code = protocol.code(response.status(), response.headers());
                if response.headers().contains_key(&NOT_BEGUN)
                    && let Some(body) = again
                    && attempts.has_other(&replica)
                {
                    let how = format!("it answered {} without beginning the request", code.as_u16());
                    ejection::failed(&lane.gateway, &replica, || how.clone());
                    attempts.failed(&replica, &how);
                    *outgoing.body_mut() = SendBody::held(body.clone());
                    continue;
                }
                judge(&lane.gateway, &replica, code);
                let flight = Box::new(Flight {
                    revision: attempts.revision,
                    _admission: call.admission,
                    claim,
                    id,
                    started: call.started,
                    sent,
                    code: code.as_u16(),
                    draft: call.draft,
                    whole: false,
                    endpoint,
                    lane,
                });
                let (mut parts, incoming) = response.into_parts();
                stamp(&mut parts.headers, &flight);
                let source = match (line, incoming) {
                    (Line::Http1(mut link), _) => {
                        link.reuse(std::mem::take(outgoing.headers_mut()));
                        Source::Http1(link)
                    }
                    (Line::Shared(grpc), Some(incoming)) => Source::Http2 { incoming, _place: grpc.into_place() },
                    (Line::Own(grpc), Some(incoming)) => Source::Stream { incoming, grpc },
                    (Line::Shared(_) | Line::Own(_), None) => Source::Ended,
                };
                let body = ReplicaBody::new(source, flight, alarm, call.gap);
                return Ok(Response::from_parts(parts, OutBody::Replica(body)));
            }
            Err(error) => error,
        };
        if let Some(refusal) = progress.as_ref().and_then(|progress| blame_client(progress, &lane.gateway.config)) {
            endpoint.live.own.get().count(refusal.status.as_u16());
            return Err(refusal);
        }
        if reused
            && matches!(error, SendError::Closing)
            && let Some(body) = &spare
        {
            line.forget(&lane, &replica);
            lane.gateway.counters.stale.inc();
            *outgoing.body_mut() = SendBody::held(body.clone());
            continue;
        }
        let refusal = match error {
            SendError::Unsent => {
                line.forget(&lane, &replica);
                if let Some(body) = &spare {
                    *outgoing.body_mut() = SendBody::held(body.clone());
                }
                if reused {
                    // A kept connection that had closed meanwhile says nothing about its replica.
                    lane.gateway.counters.stale.inc();
                } else {
                    attempts.unreachable(&replica, "it closed the connection at once");
                }
                continue;
            }
            SendError::TimedOut => {
                // A short timeout of the client says nothing about the replica.
                if timeout >= Duration::from_millis(endpoint.route.request_timeout_ms) {
                    // One slow request proves nothing, but a hanging replica must not make every second request hang.
                    let error = || format!("it did not answer within {} ms", timeout.as_millis());
                    ejection::failed(&lane.gateway, &replica, error);
                }
                endpoint.live.own.get().count(504);
                let words = format!(
                    "{} did not answer within {} ms (the deployment's request timeout, or the caller's own); the request \
                     may have been begun and is not sent again",
                    replica.id,
                    timeout.as_millis()
                );
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, words)
            }
            SendError::Closing | SendError::TurnedAway => {
                line.forget(&lane, &replica);
                match again {
                    Some(body) => {
                        attempts.failed(&replica, "it refused the request");
                        *outgoing.body_mut() = SendBody::held(body.clone());
                        continue;
                    }
                    None => {
                        endpoint.live.own.get().count(503);
                        Refusal::unavailable(format!("{} refused the request; try again", replica.id))
                    }
                }
            }
            SendError::Reset(error) => {
                ejection::failed(&lane.gateway, &replica, || {
                    format!("it gave a request up before it answered: {error}")
                });
                let words = format!("{} gave the request up before it answered: {error}", replica.id);
                attempts.refuse(StatusCode::BAD_GATEWAY, &words)
            }
            SendError::Broken { error, answering } => {
                line.forget(&lane, &replica);
                let ended = Ended { replica: replica.id.clone(), error, answering };
                match (attempts.broke_off(&replica, ended, spare.as_ref(), id.as_ref()), again) {
                    (Ok(()), Some(body)) => {
                        *outgoing.body_mut() = SendBody::held(body.clone());
                        continue;
                    }
                    (Ok(()), None) => {
                        let words = "it was offered to other replicas as often as gateway.retries allows";
                        attempts.refuse(StatusCode::BAD_GATEWAY, words)
                    }
                    (Err(refusal), _) => refusal,
                }
            }
        };
        return Err(if progress.is_some() { refusal.closing() } else { refusal });
    }
}

/// What an answer says about its replica.
fn judge(gateway: &Gateway, replica: &Replica, code: StatusCode) {
    if code.is_server_error() && code != StatusCode::NOT_IMPLEMENTED && code != StatusCode::GATEWAY_TIMEOUT {
        ejection::failed(gateway, replica, || format!("it answered {}", code.as_u16()));
    } else {
        replica.answered_well();
    }
}

/// The attempted replicas, and the results.
struct Attempts<'a> {
    lane: &'a Arc<Lane>,
    endpoint: &'a Arc<Endpoint>,
    revision: Arc<Revision>,
    tried: Vec<(Arc<Replica>, String)>,
    versioned: bool,
    /// The same request crashed replicas a short time ago.
    suspected: bool,
    /// The replica whose connection broke with this request.
    ended: Option<Ended>,
}

/// How the connection to a replica broke with a request.
struct Ended {
    replica: String,
    error: String,
    /// Whether a part of the answer had arrived.
    answering: bool,
}

/// One attempt: the replica, and its resources.
struct Turn {
    replica: Arc<Replica>,
    claim: Claim,
    line: Line,
    /// Whether the connection existed before.
    reused: bool,
    trial: Option<Trial>,
}

impl Attempts<'_> {
    /// Whether another attempt is allowed after the current one.
    fn left(&self) -> bool {
        self.tried.len() < self.lane.gateway.config.retries as usize
    }

    /// Whether there is a replica without an attempt.
    fn has_other(&self, replica: &Arc<Replica>) -> bool {
        let had = |other: &Arc<Replica>| {
            Arc::ptr_eq(other, replica) || self.tried.iter().any(|(tried, _)| Arc::ptr_eq(tried, other))
        };
        self.revision.replicas.iter().any(|other| !had(other) && !other.is_hung())
    }

    /// Records that a replica did not begin the request.
    fn failed(&mut self, replica: &Arc<Replica>, how: &str) {
        self.lane.gateway.counters.retries.inc();
        self.tried.push((Arc::clone(replica), how.to_owned()));
        self.refresh();
    }

    /// Records that no connection to a replica can be made.
    fn unreachable(&mut self, replica: &Arc<Replica>, how: &str) {
        ejection::eject(&self.lane.gateway, replica, Cause::Unreachable, how);
        self.failed(replica, how);
    }

    /// Records that the connection to a replica broke with the request. `Ok` if the request may be retried once.
    fn broke_off(
        &mut self,
        replica: &Arc<Replica>,
        ended: Ended,
        spare: Option<&Bytes>,
        id: Option<&HeaderValue>,
    ) -> Result<(), Refusal> {
        let Ended { error, answering, .. } = &ended;
        ejection::eject(&self.lane.gateway, replica, Cause::BrokeOff, error);
        self.lane.gateway.counters.broken.inc();
        tracing::warn!(
            request = id.and_then(|id| id.to_str().ok()),
            replica = &replica.id,
            before = self.ended.as_ref().map(|before| &before.replica),
            deployment = %self.endpoint.id,
            "the connection to a replica broke with this request: {error}"
        );
        let first = self.ended.as_ref().map(|before| before.replica.as_str());
        loss::broke_off(&self.lane.gateway, self.endpoint, &self.revision, replica, id, error, first);
        let why = match (spare, first) {
            _ if !self.endpoint.route.idempotent => "the requests of the deployment are not idempotent".to_owned(),
            (None, _) => "its body was forwarded while it arrived, and is no longer available".to_owned(),
            (Some(body), Some(first)) => {
                self.endpoint.live.fatal.remember(body);
                format!("the connection to {first} had broken with it before, so it may have crashed both")
            }
            (Some(_), None) if *answering => "a part of its answer had arrived".to_owned(),
            (Some(_), None) if self.suspected => "the same request crashed two replicas a short time ago".to_owned(),
            (Some(_), None) => {
                self.failed(replica, error);
                self.ended = Some(ended);
                return Ok(());
            }
        };
        self.ended = Some(ended);
        Err(self.refuse(StatusCode::BAD_GATEWAY, &why))
    }

    /// Reports a request that may have begun.
    fn refuse(&self, status: StatusCode, why: &str) -> Refusal {
        self.endpoint.live.own.get().count(status.as_u16());
        let words = match &self.ended {
            Some(Ended { replica, error, answering }) => {
                let when = if *answering { "in the header of its answer" } else { "before it answered" };
                format!(
                    "the connection to {replica} broke {when} ({error}); the request may have begun and is not sent again: \
                     {why}"
                )
            }
            None => why.to_owned(),
        };
        Refusal::new(status, words)
    }

    /// The table may have changed: the failed replica may be gone, and a new one may exist.
    fn refresh(&mut self) {
        let Some(newer) = self.lane.gateway.table.of(self.endpoint.key) else { return };
        let version = self.versioned.then_some(&*self.revision.model_version);
        let same = newer.revisions.iter().find(|revision| revision.number == self.revision.number);
        if let Some(same) = same.filter(|same| !same.replicas.is_empty()) {
            self.revision = Arc::clone(same);
        } else if let Some(other) = choose::split::revision(&newer, version) {
            self.revision = Arc::clone(other);
        }
    }

    /// The next replica.
    fn next(&self) -> Result<Arc<Replica>, Refusal> {
        let now = || self.lane.gateway.now_ms();
        let tried: Vec<_> = self.tried.iter().map(|(replica, _)| Arc::clone(replica)).collect();
        let fits = self.tried.len() <= self.lane.gateway.config.retries as usize;
        // If every replica was tried, the first one may have recovered: a crash is often short.
        let choose = |tried: &[Arc<Replica>]| choose::replica::choose(&self.revision, tried, now).map(Arc::clone);
        choose(&tried).or_else(|| choose(&[])).filter(|_| fits).ok_or_else(|| self.nobody())
    }

    /// Why there is no next replica.
    fn nobody(&self) -> Refusal {
        let name = self.endpoint.id;
        let last = self.tried.last().map(|(replica, how)| format!("{}: {how}", replica.id));
        if self.ended.is_some() {
            let last = last.map(|last| format!("; the last to {last}")).unwrap_or_default();
            return self.refuse(StatusCode::BAD_GATEWAY, &format!("no other replica could be reached{last}"));
        }
        self.endpoint.live.own.get().count(503);
        Refusal::unavailable(match last {
            Some(last) => {
                format!("no replica of {name} could be reached: {} tries, the last to {last}", self.tried.len())
            }
            None if !self.revision.replicas.is_empty() => {
                format!("no replica of {name} answers: all of them hang, and are asked again and again how they are")
            }
            None => self.endpoint.why_not(&name.to_string()),
        })
    }

    /// The next reachable replica; `None` if the time is up first.
    async fn turn(&mut self, protocol: Protocol, streams: bool, alarm: &mut Alarm) -> Result<Option<Turn>, Refusal> {
        let mut waits = 0;
        loop {
            let replica = self.next()?;
            let claim = Claim::new(&replica, self.lane.tick());
            let mut trial = None;
            if self.suspected || self.ended.is_some() {
                let Some(begun) = Trial::begin(&replica, alarm).await else { return Ok(None) };
                waits += 1;
                // The request before this one may have crashed this replica too.
                let gone = replica.is_ejected(|| self.lane.gateway.now_ms()) || replica.is_hung();
                if gone && waits < MOST_WAITS && self.has_other(&replica) {
                    continue;
                }
                trial = Some(begun);
            }
            match Line::to(self.lane, &replica, protocol, streams).await {
                Ok((line, reused)) => return Ok(Some(Turn { replica, claim, line, reused, trial })),
                Err(error) => self.unreachable(&replica, &error),
            }
        }
    }
}

/// The place of the one request that may run at a replica although it may have crashed another one.
struct Trial(Arc<Replica>);

impl Trial {
    /// Waits for the place; `None` if the time is up first.
    async fn begin(replica: &Arc<Replica>, alarm: &mut Alarm) -> Option<Self> {
        let mut free = pin!(replica.trial().acquire());
        let taken = poll_fn(|cx| match free.as_mut().poll(cx) {
            Poll::Ready(taken) => Poll::Ready(taken.ok()),
            Poll::Pending => alarm.poll(cx).map(|()| None),
        });
        taken.await?.forget();
        Some(Self(Arc::clone(replica)))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.trial().add_permits(1);
    }
}
