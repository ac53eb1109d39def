//! Requests that wait for a file lock. The host has no event for "the lock is free":
//! one thread, which is there while somebody waits, asks every few milliseconds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use shares::{Pending, ReplyBuffer};

use super::{
    memory::Reply,
    shared::{Done, Shared},
};
use crate::devices::DetachedChain;

/// How often is asked.
const INTERVAL: Duration = Duration::from_millis(5);

/// One request, and where its answer goes.
struct Waiter {
    pending: Pending,
    queue: usize,
    chain: DetachedChain,
}

/// All of a device.
#[derive(Default)]
pub(super) struct Waiting(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// As many as queue entries at most.
    waiters: Vec<Waiter>,
    /// Whether a thread asks.
    asking: bool,
}

impl Waiting {
    /// Waits for `pending`; its chain is finished at `device` when that is over.
    pub(super) fn add(
        &self,
        pending: Pending,
        queue: usize,
        chain: DetachedChain,
        device: &Weak<Shared>,
    ) {
        let mut state = lock(&self.0);
        state.waiters.push(Waiter {
            pending,
            queue,
            chain,
        });
        if state.asking {
            return;
        }
        let (shared, device) = (Arc::clone(&self.0), device.clone());
        let thread = thread::Builder::new()
            .name("shares-locks".to_owned())
            .spawn(move || ask(&shared, &device));
        match thread {
            Ok(_) => state.asking = true,
            // The next one that waits tries again.
            Err(error) => tracing::error!(%error, "nobody can wait for file locks"),
        }
    }

    /// Nobody waits any more.
    pub(super) fn give_up(&self) {
        lock(&self.0).waiters.clear();
    }
}

fn ask(state: &Mutex<State>, device: &Weak<Shared>) {
    loop {
        thread::sleep(INTERVAL);
        let Some(device) = device.upgrade() else {
            return;
        };
        // Locked while it writes to guest memory: after `give_up` nobody does.
        let mut state = lock(state);
        state.waiters.retain_mut(|waiter| {
            let Some(answer) = waiter.pending.attempt() else {
                return true;
            };
            let put = Reply(waiter.chain.chain().writable).put(0, &answer);
            device.finish(Done {
                queue: waiter.queue,
                head: waiter.chain.head,
                written: put.map_or(0, |()| answer.len() as u32),
            });
            false
        });
        if state.waiters.is_empty() {
            state.asking = false;
            return;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing that holds the lock can leave it half-changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
