//! The delay before a replica that ended by itself is restarted.

use std::time::Duration;

use super::config::Config;

/// The delay after `failures` consecutive failures (from 1). `chance` is uniform in `0.0..1.0`.
///
/// Exponential with full jitter, so that replicas that failed together do not restart together (AWS Architecture Blog,
/// "Exponential Backoff And Jitter"). After a permanent failure the delay is long and almost fixed: only a person can
/// fix it, and a retry only saves a command.
pub(super) fn wait(config: &Config, failures: u32, permanent: bool, chance: f64) -> Duration {
    let base = if permanent { config.permanent_retry_ms } else { config.backoff_base_ms };
    let doublings = failures.saturating_sub(1).min(32);
    let bound = base.saturating_mul(1 << doublings).min(config.backoff_cap_ms.max(base));
    let bound = Duration::from_millis(bound);
    if permanent { bound.mul_f64(1.0 + chance / 10.0) } else { bound.mul_f64(chance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let config = Config::default();
        let longest = |failures| wait(&config, failures, false, 1.0);
        assert_eq!(longest(1), Duration::from_millis(250));
        assert_eq!(longest(2), Duration::from_millis(500));
        assert_eq!(longest(5), Duration::from_secs(4));
        assert_eq!(longest(60), Duration::from_secs(300));
        assert_eq!(wait(&config, 5, false, 0.0), Duration::ZERO);
    }

    #[test]
    fn what_a_person_must_mend_is_tried_again_after_a_minute_at_the_earliest() {
        let config = Config::default();
        assert_eq!(wait(&config, 1, true, 0.0), Duration::from_secs(60));
        assert!(wait(&config, 1, true, 1.0) <= Duration::from_secs(66));
        assert_eq!(wait(&config, 9, true, 0.0), Duration::from_secs(300));
    }
}
