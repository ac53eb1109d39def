//! What the device's thread and those of its pool share: the server, and chains that
//! are done with.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use shares::{Outcome, Server};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    memory::{Reply, Request},
    pending::Waiting,
};
use crate::devices::{Chain, DetachedChain};

/// A chain that was worked on.
pub(super) struct Done {
    pub(super) queue: usize,
    pub(super) head: u16,
    pub(super) written: u32,
}

pub(super) struct Shared {
    server: Arc<Server>,
    waiting: Waiting,
    state: Mutex<State>,
    /// Nothing is being worked on any more.
    idle: Condvar,
    /// Readable while there are chains in `State::done`.
    event: EventFd,
    /// For those who finish chains later.
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    done: Vec<Done>,
    /// Chains that were handed over and are not done.
    in_work: usize,
}

impl Shared {
    pub(super) fn new(server: Arc<Server>) -> io::Result<Arc<Self>> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new_cyclic(|this| Self {
            server,
            waiting: Waiting::default(),
            state: Mutex::default(),
            idle: Condvar::new(),
            event,
            this: this.clone(),
        }))
    }

    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    pub(super) fn clear_event(&self) {
        // Before the list is looked at: what comes later signals again.
        let _ = self.event.read();
    }

    /// Has the server answer a request. Its chain is done then, unless it waits for a
    /// lock: then it is [finished](Self::finish) later.
    pub(super) fn answer(&self, queue: usize, chain: DetachedChain) -> Option<Done> {
        let head = chain.head;
        let outcome = {
            let Chain {
                readable, writable, ..
            } = chain.chain();
            let mut reply = Reply(writable);
            self.server.handle(&Request(readable), &mut reply)
        };
        let written = match outcome {
            Outcome::Reply(length) => u32::try_from(length).unwrap_or(u32::MAX),
            Outcome::None => 0,
            Outcome::Pending(pending) => {
                self.waiting.add(pending, queue, chain, &self.this);
                return None;
            }
        };
        Some(Done {
            queue,
            head,
            written,
        })
    }

    /// A chain is handed to another thread.
    pub(super) fn begin(&self) {
        self.lock().in_work += 1;
    }

    /// What was handed to another thread is done, or waits.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.in_work -= 1;
        if state.in_work == 0 {
            self.idle.notify_all();
        }
    }

    /// A chain is done.
    pub(super) fn finish(&self, done: Done) {
        let mut state = self.lock();
        let first = state.done.is_empty();
        state.done.push(done);
        drop(state);
        if first {
            // Fails only when the counter is full: it is readable then.
            let _ = self.event.write(1);
        }
    }

    pub(super) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut self.lock().done)
    }

    /// Waits until nothing is worked on, gives up waiting for locks, and forgets what
    /// is done: its queues are gone.
    pub(super) fn settle(&self) {
        let state = self
            .idle
            .wait_while(self.lock(), |state| state.in_work > 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        self.waiting.give_up();
        self.server.reset();
        self.lock().done.clear();
        self.clear_event();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
