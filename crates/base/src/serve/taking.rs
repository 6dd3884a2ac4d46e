//! Ends an HTTP/2 call whose client does not read its answer.
//!
//! HTTP/2 has a flow-control window for each call. While the window of a client is full, hyper keeps the current piece
//! of the answer and does not poll the body for another one. The socket still works and the client answers pings, so
//! nothing else shows that the call is stuck. Therefore a body reports when it [`gave`] a piece and when it is
//! [`asked`] for the next one, and hyper's task for the call runs within [`while_taken`]. The other calls of the
//! connection continue.
//!
//! **Invariant:** a call whose client reads its answer uses no timer and no allocation here.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// What a body did last while its call was polled.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    Asked,
    Gave,
}

thread_local! {
    static LAST: Cell<Last> = const { Cell::new(Last::Nothing) };
}

/// A body was polled for a piece: its client has room for one.
pub fn asked() {
    LAST.set(Last::Asked);
}

/// A body returned a piece, which its client has to read next.
pub fn gave() {
    LAST.set(Last::Gave);
}

/// Runs hyper's task for one HTTP/2 call. Drops it, which resets the call, if its client has had no room for the next
/// piece of the answer for `most`.
pub async fn while_taken(call: impl Future, most: Duration) {
    let mut call = pin!(call);
    let mut waits_since: Option<Instant> = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        LAST.set(Last::Nothing);
        if call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match LAST.get() {
            Last::Nothing => {}
            Last::Asked => waits_since = None,
            Last::Gave => waits_since = Some(Instant::now()),
        }
        let Some(since) = waits_since else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + most)));
        while timer.as_mut().poll(cx).is_ready() {
            if since.elapsed() >= most {
                return Poll::Ready(());
            }
            timer.as_mut().reset(since + most);
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    /// A call whose client makes room after each of these times.
    async fn lasts(pauses: &[u64]) -> Duration {
        let begun = Instant::now();
        let call = async {
            for pause in pauses {
                asked();
                gave();
                tokio::time::sleep(Duration::from_secs(*pause)).await;
            }
            asked();
            tokio::time::sleep(Duration::from_secs(1_000)).await;
        };
        while_taken(call, MOST).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_when_its_client_has_no_room_for_too_long_and_not_while_the_answer_is_waited_for() {
        assert_eq!(lasts(&[1_000]).await.as_secs(), 30);
        assert_eq!(lasts(&[20, 25, 29, 29, 1_000]).await.as_secs(), 133);
        assert_eq!(lasts(&[]).await.as_secs(), 1_000);
        assert_eq!(lasts(&[29, 29]).await.as_secs(), 1_058);
    }
}
