//! The minimum rate of a request body.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second that a client must send on average, after the first idle time.
const SLOWEST: u64 = 4 << 10;

/// The time that a body may still take: this long between two pieces, and in total at most one such pause plus the time
/// for its bytes at [`SLOWEST`]. Only the time spent waiting for the client counts.
#[derive(Debug)]
pub(crate) struct Pace {
    idle: Duration,
    bytes: u64,
    waited: Duration,
    waiting: Option<Instant>,
}

impl Pace {
    /// `idle` is the maximum pause between two pieces.
    pub(crate) fn new(idle: Duration) -> Self {
        Self { idle, bytes: 0, waited: Duration::ZERO, waiting: None }
    }

    /// Nothing has arrived: returns when to give up.
    pub(crate) fn wait(&mut self) -> Instant {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let whole = self.idle + Duration::from_millis(self.bytes.saturating_mul(1_000) / SLOWEST);
        since + self.idle.min(whole.saturating_sub(self.waited))
    }

    /// A piece arrived.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    /// How long a client lasts that sends `bytes` every `pause`.
    async fn lasts(bytes: usize, pause: Duration) -> Duration {
        let (begun, mut pace) = (Instant::now(), Pace::new(IDLE));
        while begun.elapsed() < Duration::from_secs(3_600) && Instant::now() + pause < pace.wait() {
            tokio::time::advance(pause).await;
            pace.came(bytes);
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_and_a_slow_one_goes_on() {
        let second = Duration::from_secs(1);
        assert!(lasts(1, 2 * second).await < 2 * IDLE);
        assert!(lasts(100, second).await < 2 * IDLE);
        assert!(lasts(8 << 10, second).await >= 3_600 * second);
        assert_eq!(lasts(1 << 20, 11 * second).await, Duration::ZERO, "one pause is too long");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_the_clients() {
        let mut pace = Pace::new(IDLE);
        pace.came(1);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(pace.wait(), Instant::now() + IDLE);
    }
}
