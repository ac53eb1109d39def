//! A container's run, watched to its end, and what follows it: the record, the events,
//! and another start if the restart policy wants one.

use std::{sync::Arc, time::Duration};

use guest_protocol::{AgentError, container::Status};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{Containers, Entry, LOST, cgroup, health, new_stdio, restart_policy::wanted_after};
use crate::{clock, error::Result, exec::exit_code, stdio::Stdio};

/// How long a container's end waits for its output to be handed on. A connection
/// that is slower goes on reading; nothing is lost.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// The first pause of a restart policy, doubled each time up to the longest;
/// Docker's values.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A run this long was a success: the next pause is the first again.
const LONG_RUN: Duration = Duration::from_secs(10);

impl Containers {
    /// Waits for the end of a run, clears up after it, and does what the restart
    /// policy says.
    pub(super) async fn supervise(
        self,
        entry: Arc<Entry>,
        stdio: Arc<Stdio>,
        exit: oneshot::Receiver<i64>,
        pause: Duration,
    ) {
        let began = Instant::now();
        let code = exit.await.unwrap_or(LOST);
        health::stop_probing(&entry);
        let cgroup = entry.cgroup();
        let out_of_memory = cgroup::was_out_of_memory(&cgroup);
        // With a shared pid namespace its processes do not go with the first one.
        cgroup::kill(&cgroup);
        let _ = timeout(OUTPUT_GRACE, stdio.ended()).await;
        self.clear(&entry).await;
        self.shared.execs.forget_unstarted(&entry.id);

        let closing = *self.shared.closing.borrow();
        let long = began.elapsed() >= LONG_RUN;
        {
            let mut live = entry.live();
            live.process = None;
            live.stdio = new_stdio(&entry.record().container);
        }
        let (restart, noted) = {
            let mut record = entry.record();
            let restart = !closing && wanted_after(&record, code);
            let state = &mut record.container.state;
            state.status = if restart {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.pid = 0;
            state.exit_code = code;
            state.oom_killed = out_of_memory;
            state.finished_at = clock::now();
            // One that goes with its run is not worth a write: at a crash it is still
            // on disk as running, and goes at the next boot.
            let noted = if record.container.host_config.auto_remove == Some(true) {
                Ok(())
            } else {
                self.shared.records.put(&record)
            };
            (restart, noted)
        };
        Self::report(&entry, noted);
        if out_of_memory {
            self.tell(&entry, "oom", &[]);
        }
        let seconds = began.elapsed().as_secs().to_string();
        self.tell(
            &entry,
            "die",
            &[("exitCode", code.to_string()), ("execDuration", seconds)],
        );
        entry.history.send_modify(|history| {
            history.running = restart;
            history.runs += 1;
            history.exit_code = code;
        });
        if restart {
            let pause = if long { FIRST_PAUSE } else { pause };
            self.start_again(entry, pause);
        } else if entry.record().container.host_config.auto_remove == Some(true) {
            self.remove_soon(&entry);
        }
    }

    fn start_again(&self, entry: Arc<Entry>, pause: Duration) {
        let containers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _lifecycle = entry.lifecycle.lock().await;
            if entry.record().container.state.status != Status::Restarting {
                return;
            }
            let next = (pause * 2).min(LONGEST_PAUSE);
            // Boxed: a launch can lead here again.
            let launch = Box::pin(containers.launch(&entry, next, true));
            if let Err(error) = launch.await {
                tracing::error!("container {} was not started again: {error}", entry.id);
            }
        });
    }

    pub(super) fn note_failed_start(&self, entry: &Arc<Entry>, error: &AgentError) {
        entry.live().stdio = new_stdio(&entry.record().container);
        let noted = self.change(entry, |record| {
            let state = &mut record.container.state;
            if state.status == Status::Restarting {
                state.status = Status::Exited;
                state.finished_at = clock::now();
            }
            state.pid = 0;
            state.exit_code = exit_code(error);
            state.error.clone_from(&error.message);
            record.container.host_config.auto_remove == Some(true)
        });
        let auto_remove = *noted.as_ref().unwrap_or(&false);
        Self::report(entry, noted.map(drop));
        entry.history.send_modify(|history| {
            history.running = false;
            history.exit_code = exit_code(error);
        });
        if auto_remove {
            self.remove_soon(entry);
        }
    }

    /// A container whose record cannot be written goes on in memory; the disk tells
    /// the truth again with the next change.
    fn report(entry: &Entry, result: Result<()>) {
        if let Err(error) = result {
            tracing::error!("the state of container {} was not kept: {error}", entry.id);
        }
    }
}
