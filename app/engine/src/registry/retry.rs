//! How long to wait before a registry is asked again.

use std::time::Duration;

/// How often something is tried in all, without progress in between.
const ATTEMPTS: u32 = 5;
/// The first wait.
const BASE: Duration = Duration::from_millis(250);
/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential back-off over a bounded number of attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure; how long to wait before the next attempt, or `None` when
    /// there is to be none. `asked` is the server's own wish (`Retry-After`).
    pub(crate) fn after_failure(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return None;
        }
        let wait = BASE * 2u32.pow(self.failures - 1);
        Some(asked.unwrap_or(wait).min(LONGEST))
    }

    /// Notes that something came of the last attempt.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }
}

/// The `Retry-After` of a response, if it is a number of seconds.
pub(super) fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    Some(Duration::from_secs(
        value.to_str().ok()?.trim().parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = std::iter::from_fn(|| backoff.after_failure(None)).collect();
        assert_eq!(waits, [1, 2, 4, 8].map(|n| BASE * n));
        backoff.progress();
        assert_eq!(backoff.after_failure(Some(LONGEST * 9)), Some(LONGEST));
    }
}
