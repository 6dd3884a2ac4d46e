//! Merges the logs of all replicas of a deployment. Each line begins with the name of its replica.

use std::{collections::HashSet, sync::Arc};

use api::{DeploymentId, ReplicaId};
use backend::{Backend, BackendError, Replica};
use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt,
    stream::{BoxStream, SelectAll},
};

/// Maximum length of a line that is not split.
const MAX_LINE: usize = 64 * 1024;
/// Maximum number of replicas in a merged log.
const MAX_REPLICAS: usize = 64;
/// How many lines of an existing log are shown if its replica appears while the log is followed.
const NEWCOMER_TAIL: usize = 1_000;

/// Pieces of a log.
pub(crate) type Log = BoxStream<'static, std::io::Result<Bytes>>;

/// The last `tail` lines of each replica. With `follow`, also new lines, and lines of new replicas. `None` if there are
/// no replicas and `follow` is not set. Only replicas that are `ours` count.
pub(crate) async fn of_deployment(
    backend: Arc<dyn Backend>,
    id: DeploymentId,
    tail: usize,
    follow: bool,
    ours: impl Fn(&Replica) -> bool + Send + Sync + 'static,
) -> Result<Option<Log>, BackendError> {
    // Subscribe before the first observation, so that no change is missed.
    let changes = backend.changes();
    let mut known = HashSet::new();
    let first = newcomers(&*backend, id, (tail, follow), &ours, &mut known).await?;
    if !follow {
        let together = futures::stream::iter(first).flatten().boxed();
        return Ok((!known.is_empty()).then_some(together));
    }
    Ok(Some(following(backend, id, changes, first, known, ours).boxed()))
}

fn following(
    backend: Arc<dyn Backend>,
    id: DeploymentId,
    mut changes: BoxStream<'static, DeploymentId>,
    first: Vec<Log>,
    mut known: HashSet<ReplicaId>,
    ours: impl Fn(&Replica) -> bool + Send + Sync + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    async_stream::stream! {
        let mut logs: SelectAll<Log> = futures::stream::select_all(first);
        loop {
            tokio::select! {
                Some(piece) = logs.next() => yield piece,
                changed = changes.next() => match changed {
                    Some(changed) if changed == id => {
                        match newcomers(&*backend, id, (NEWCOMER_TAIL, true), &ours, &mut known).await {
                            Ok(newcomers) => logs.extend(newcomers),
                            Err(error) => {
                                yield Err(std::io::Error::other(error));
                                return;
                            }
                        }
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
}

/// The logs of replicas that are not `known` yet.
async fn newcomers(
    backend: &dyn Backend,
    id: DeploymentId,
    (tail, follow): (usize, bool),
    ours: &(impl Fn(&Replica) -> bool + Sync),
    known: &mut HashSet<ReplicaId>,
) -> Result<Vec<Log>, BackendError> {
    let mut logs = Vec::new();
    for replica in backend.observe(id).await? {
        if known.len() >= MAX_REPLICAS || known.contains(&replica.id) || !ours(&replica) {
            continue;
        }
        if let Some(log) = backend.logs(&replica.id, tail, follow).await? {
            logs.push(led_by(format!("{} | ", replica.id), log).boxed());
            known.insert(replica.id);
        }
    }
    Ok(logs)
}

/// Puts `lead` before each line. An incomplete line at the end of a piece waits for its rest.
fn led_by(lead: String, mut log: Log) -> impl Stream<Item = std::io::Result<Bytes>> {
    async_stream::stream! {
        let mut rest = BytesMut::new();
        while let Some(piece) = log.next().await {
            match piece {
                Ok(piece) => rest.extend_from_slice(&piece),
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
            let end = match rest.iter().rposition(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None if rest.len() >= MAX_LINE => rest.len(),
                None => continue,
            };
            yield Ok(lead_lines(&lead, &rest.split_to(end)));
        }
        if !rest.is_empty() {
            yield Ok(lead_lines(&lead, &rest));
        }
    }
}

fn lead_lines(lead: &str, lines: &[u8]) -> Bytes {
    let mut led = BytesMut::with_capacity(lines.len() + lead.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        led.extend_from_slice(lead.as_bytes());
        led.extend_from_slice(line);
    }
    if !lines.ends_with(b"\n") {
        led.extend_from_slice(b"\n");
    }
    led.freeze()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::RevisionNumber;
    use backend::{
        conformance::{fence, revision},
        fake,
    };
    use base::{Clock, Tasks};

    use super::*;

    async fn led(pieces: &[&'static str]) -> String {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        let log = led_by("a | ".to_owned(), futures::stream::iter(pieces).boxed());
        let pieces: Vec<Bytes> = log.map(|piece| piece.expect("no piece fails")).collect().await;
        String::from_utf8(pieces.concat()).expect("text")
    }

    #[tokio::test]
    async fn every_line_is_led_by_the_name_however_the_log_is_cut() {
        assert_eq!(led(&["one\ntwo\n"]).await, "a | one\na | two\n");
        assert_eq!(led(&["on", "e\ntw", "o"]).await, "a | one\na | two\n");
        assert_eq!(led(&["one\n\n", "three\n"]).await, "a | one\na | \na | three\n");
        assert_eq!(led(&[]).await, "");
    }

    #[tokio::test]
    async fn a_deployment_that_is_followed_shows_replicas_that_come_later() {
        let id = DeploymentId(1);
        let machine = fake::FakeBackend::new(fake::Config::default(), Tasks::new(), Clock::system());
        let backend: Arc<dyn Backend> = Arc::new(machine.clone());
        assert!(of_deployment(Arc::clone(&backend), id, 10, false, |_| true).await.expect("logs").is_none());
        let mut log = of_deployment(backend, id, 10, true, |_| true).await.expect("logs").expect("something may come");
        machine.ensure(&revision(id, RevisionNumber(1), "/models/iris"), 1, &[], &fence(1)).await.expect("ensure");
        let first = tokio::time::timeout(Duration::from_secs(30), log.next()).await.expect("in time");
        let first = first.expect("a piece").expect("of a log");
        assert!(first.starts_with(b"md-1-r1-0 | "), "{first:?}");
    }
}
