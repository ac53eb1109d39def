//! What all threads of a monitor share: whether virtual CPUs run, are paused or
//! must stop, and how the machine ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::kvm::vcpu::{End, Next};

/// Shared by the virtual CPUs' threads and the main thread.
pub(super) struct Lifecycle {
    state: Mutex<State>,
    changed: Condvar,
    /// Becomes readable when the machine has ended.
    ended: OwnedFd,
}

#[derive(Default)]
struct State {
    order: Order,
    /// Virtual CPUs that are parked by a pause.
    parked: usize,
    /// Virtual CPUs that will not run again.
    ended: usize,
    /// The first end, which is the one that counts.
    end: Option<End>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Order {
    #[default]
    Run,
    Pause,
    Stop,
}

impl Lifecycle {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Becomes readable when the machine has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// A virtual CPU came to its end, and with it the machine.
    pub(super) fn end(&self, end: End) {
        let mut state = self.lock();
        if end != End::Stopped && state.end.is_none() {
            state.end = Some(end);
        }
        state.ended += 1;
        self.changed.notify_all();
        // The counter can only overflow after 2^64 ends.
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
    }

    /// How the machine ended, if a virtual CPU said so.
    pub(super) fn take_end(&self) -> Option<End> {
        self.lock().end.take()
    }

    /// Orders a pause. The virtual CPUs must be kicked after this.
    pub(super) fn order_pause(&self) {
        self.order(Order::Pause);
    }

    /// Ends a pause.
    pub(super) fn resume(&self) {
        self.order(Order::Run);
    }

    /// Orders an end. The virtual CPUs must be kicked after this.
    pub(super) fn order_stop(&self) {
        self.order(Order::Stop);
    }

    /// Waits until all of `cpus` are parked. False when that took longer than
    /// `patience`.
    pub(super) fn wait_parked(&self, cpus: usize, patience: Duration) -> bool {
        self.wait_until(patience, |state| state.parked >= cpus)
    }

    /// Waits until all of `cpus` have ended. False when that took longer than
    /// `patience`.
    pub(super) fn wait_ended(&self, cpus: usize, patience: Duration) -> bool {
        self.wait_until(patience, |state| state.ended >= cpus)
    }

    fn wait_until(&self, patience: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !reached(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Called by a virtual CPU that was kicked: parks it for as long as a pause
    /// lasts.
    pub(super) fn kicked(&self) -> Next {
        let mut state = self.lock();
        let paused = state.order == Order::Pause;
        if paused {
            state.parked += 1;
            // Once: those that are parked already are woken by it, too.
            self.changed.notify_all();
            while state.order == Order::Pause {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.parked -= 1;
        }
        match state.order {
            Order::Stop => Next::Stop,
            _ if paused => Next::ContinueAfterPause,
            _ => Next::Continue,
        }
    }

    fn order(&self, order: Order) {
        let mut state = self.lock();
        if state.order != Order::Stop {
            state.order = order;
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_pause_holds_all_until_it_ends() {
        let lifecycle = Lifecycle::new().unwrap();
        assert_eq!(lifecycle.kicked(), Next::Continue);
        lifecycle.order_pause();
        thread::scope(|scope| {
            let cpus: Vec<_> = (0..3).map(|_| scope.spawn(|| lifecycle.kicked())).collect();
            assert!(lifecycle.wait_parked(3, SOON));
            assert!(cpus.iter().all(|cpu| !cpu.is_finished()));
            lifecycle.resume();
            for cpu in cpus {
                assert_eq!(cpu.join().unwrap(), Next::ContinueAfterPause);
            }
        });
    }

    #[test]
    fn a_stop_ends_a_pause_and_nothing_ends_a_stop() {
        let lifecycle = Lifecycle::new().unwrap();
        lifecycle.order_pause();
        thread::scope(|scope| {
            let cpu = scope.spawn(|| lifecycle.kicked());
            assert!(lifecycle.wait_parked(1, SOON));
            lifecycle.order_stop();
            assert_eq!(cpu.join().unwrap(), Next::Stop);
        });
        lifecycle.resume();
        assert_eq!(lifecycle.kicked(), Next::Stop);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_not_waited_for_for_ever() {
        let lifecycle = Lifecycle::new().unwrap();
        assert!(!lifecycle.wait_parked(1, Duration::from_millis(1)));
    }

    #[test]
    fn the_first_end_counts() {
        let lifecycle = Lifecycle::new().unwrap();
        lifecycle.end(End::Reset);
        lifecycle.end(End::Stopped);
        lifecycle.end(End::TripleFault);
        let mut ends = [0; 8];
        rustix::io::read(lifecycle.ended(), &mut ends).unwrap();
        assert_eq!(u64::from_ne_bytes(ends), 3);
        assert_eq!(lifecycle.take_end(), Some(End::Reset));
        assert!(lifecycle.wait_ended(3, SOON));
        assert!(!lifecycle.wait_ended(4, Duration::from_millis(1)));
    }
}
