//! The clock of a software CPU: its time-stamp counter is the host's (QEMU's
//! `system/cpu-timers.c`), so its rate is measured here and told to the guest.
//!
//! The guest would calibrate it by the PIT, and on a busy host it cannot: it falls
//! back on counting ticks, loses those that come late, and its clock with them.

use std::{
    arch::x86_64::_rdtsc,
    thread,
    time::{Duration, Instant},
};

/// Long enough for some ten parts in a million.
const MEASURED: Duration = Duration::from_millis(50);
/// Readings of both clocks of which the quickest counts.
const READINGS: usize = 16;

/// The rate of the host's time-stamp counter in kHz; `None` if it does not count
/// upwards.
pub(super) fn time_stamp_counter_khz() -> Option<u64> {
    let (begun, from) = both_clocks();
    thread::sleep(MEASURED);
    let (ended, to) = both_clocks();
    rate(ended.duration_since(begun), to.checked_sub(from)?)
}

/// Counts in a time, in kHz.
fn rate(time: Duration, counts: u64) -> Option<u64> {
    let khz = (u128::from(counts) * 1_000_000).checked_div(time.as_nanos())?;
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// One moment on both clocks: that of the reading which was interrupted least.
fn both_clocks() -> (Instant, u64) {
    let reading = || {
        let before = counter();
        let now = Instant::now();
        let taken = counter().saturating_sub(before);
        (taken, (now, before.saturating_add(taken / 2)))
    };
    let first = reading();
    let others = (1..READINGS).map(|_| reading());
    others
        .fold(first, |best, one| if one.0 < best.0 { one } else { best })
        .1
}

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and Linux lets a program read it that
    // has not asked to be denied.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_counts_by_time() {
        assert_eq!(
            rate(Duration::from_millis(50), 115_000_000),
            Some(2_300_000)
        );
        assert_eq!(rate(Duration::ZERO, 1), None);
        assert_eq!(rate(Duration::from_secs(1), 0), None);
        assert_eq!(rate(Duration::from_nanos(1), u64::MAX), None);
    }

    #[test]
    fn the_rate_is_the_same_each_time() {
        let rates = [(); 2].map(|()| time_stamp_counter_khz().unwrap());
        assert!(rates[0].abs_diff(rates[1]) < rates[0] / 1000, "{rates:?}");
    }
}
