//! The lock across what changes a container: start, stop, rename, removal.
//!
//! Whoever carries a stopped container's files to or from a host has it, too, and hosts
//! may be slow or stand still. So it is known whether somebody waits for one of those.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// A container's lock.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    lock: Mutex<()>,
    waiting: AtomicUsize,
    /// Who has it carries files.
    carrying: AtomicBool,
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Held<'a> {
    _guard: MutexGuard<'a, ()>,
    carrying: Option<&'a AtomicBool>,
}

impl Lifecycle {
    /// Waits for the lock.
    pub(super) async fn lock(&self) -> Held<'_> {
        Held {
            _guard: self.wait().await,
            carrying: None,
        }
    }

    /// As [`lock`](Self::lock), for one who carries files.
    pub(super) async fn lock_to_carry(&self) -> Held<'_> {
        let guard = self.wait().await;
        self.carrying.store(true, Ordering::Relaxed);
        Held {
            _guard: guard,
            carrying: Some(&self.carrying),
        }
    }

    async fn wait(&self) -> MutexGuard<'_, ()> {
        let _waiting = Waiting::new(&self.waiting);
        self.lock.lock().await
    }

    /// Whether somebody waits for one who carries files.
    pub(super) fn is_held_up(&self) -> bool {
        self.carrying.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(carrying) = self.carrying {
            carrying.store(false, Ordering::Relaxed);
        }
    }
}

/// One who waits, until it has the lock or waits no more.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_carries_files_is_told_of_those_who_wait() {
        let lifecycle = Lifecycle::default();
        let held = lifecycle.lock().await;
        let mut other = Box::pin(lifecycle.lock());
        assert!(futures_util::poll!(&mut other).is_pending());
        assert!(!lifecycle.is_held_up());
        drop((other, held));

        let carrying = lifecycle.lock_to_carry().await;
        assert!(!lifecycle.is_held_up());
        let mut other = Box::pin(lifecycle.lock());
        assert!(futures_util::poll!(&mut other).is_pending());
        assert!(lifecycle.is_held_up());
        drop(carrying);
        let other = other.await;
        assert!(!lifecycle.is_held_up());
        drop(other);
    }
}
