//! The one place that waits for child processes.
//!
//! PID 1 is the parent of every orphan in the machine, so children come that
//! nobody asked for. The [`Reaper`] takes every `SIGCHLD`, collects all that
//! ended, and hands each exit code to whoever [`watch`](Reaper::watch)es that
//! process. Nothing else in the agent may wait for a child.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::error::{Context, Result};

/// How many exits of processes that nobody watches yet are remembered: a child
/// can end before the one who made it knows its id.
const REMEMBERED: usize = 128;

/// Collects children and routes their exit codes. Clones share one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    watchers: HashMap<i32, oneshot::Sender<i64>>,
    unclaimed: VecDeque<(i32, i64)>,
}

impl Reaper {
    /// Starts to collect children, in a task on the current runtime.
    ///
    /// # Errors
    /// When the signal handler cannot be installed.
    pub(crate) fn start() -> Result<Self> {
        let reaper = Self::default();
        let mut child_ended =
            signal(SignalKind::child()).context("cannot listen for ended processes")?;
        let table = reaper.clone();
        tokio::spawn(async move {
            loop {
                table.collect();
                if child_ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// The exit code of `pid` when it comes: 0 to 255, or 128+n for signal n.
    ///
    /// `pid` must be a process that the caller knows to be new: one that it just
    /// started or was told of by the one who did.
    pub(crate) fn watch(&self, pid: Pid) -> oneshot::Receiver<i64> {
        let (sender, receiver) = oneshot::channel();
        let pid = pid.as_raw_nonzero().get();
        let mut table = self.lock();
        if let Some(at) = table.unclaimed.iter().rposition(|(ended, _)| *ended == pid) {
            if let Some((_, code)) = table.unclaimed.remove(at) {
                // The receiver is in hand: this cannot fail.
                let _ = sender.send(code);
            }
        } else {
            table.watchers.insert(pid, sender);
        }
        receiver
    }

    fn collect(&self) {
        // Held across the wait, so that a watcher cannot slip in between.
        let mut table = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(code) = exit_code(status) else {
                continue;
            };
            let pid = pid.as_raw_nonzero().get();
            if let Some(watcher) = table.watchers.remove(&pid) {
                // A watcher that went away needs no answer.
                let _ = watcher.send(code);
            } else {
                if table.unclaimed.len() == REMEMBERED {
                    table.unclaimed.pop_front();
                }
                table.unclaimed.push_back((pid, code));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exit_code(status: WaitStatus) -> Option<i64> {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .map(i64::from)
}
