//! Signals that reach dctl while it is attached: sent on to the container, or a
//! reason to end.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use super::terminal;
use crate::client::{Call, Client};

/// What the container gets: all that can be caught, less those that are about
/// dctl itself (SIGCHLD, SIGPIPE, SIGURG, SIGWINCH), its terminal's job control
/// (SIGTTIN, SIGTTOU) and its faults. Numbers are Linux's.
const FORWARDED: [(&str, i32); 15] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCONT", 18),
    ("SIGTSTP", 20),
    ("SIGXCPU", 24),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGIO", 29),
    ("SIGPWR", 30),
];

/// What ends dctl when nothing is forwarded. It must be caught while the terminal
/// is raw.
const ENDING: [(&str, i32); 4] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGTERM", 15),
];

/// Hang-up: the terminal is gone.
pub(super) const SIGHUP: i32 = 1;
const SIGCONT: i32 = 18;

/// How long the engine may take to send a signal on when the terminal is gone.
const LAST_SIGNAL: Duration = Duration::from_secs(2);

/// What to do with signals.
#[derive(Debug)]
pub(crate) enum Handling {
    /// Send them to a container.
    Forward {
        /// The engine.
        client: Client,
        /// The container.
        container: String,
    },
    /// End the session.
    End,
}

/// Signals are handled for as long as this lives.
#[derive(Debug)]
pub(crate) struct Signals {
    task: JoinHandle<()>,
    started: watch::Sender<bool>,
    ended: Arc<Notify>,
    end_signal: watch::Receiver<i32>,
}

impl Signals {
    /// Begins to catch signals. They wait until [`Signals::started`].
    pub(crate) fn catch(handling: Handling, tty: bool) -> io::Result<Self> {
        let kinds: &[_] = match handling {
            Handling::Forward { .. } => &FORWARDED,
            Handling::End => &ENDING,
        };
        let (sender, mut received) = mpsc::unbounded_channel();
        for &(name, number) in kinds {
            let mut stream = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send((name, number)).is_err() {
                        break;
                    }
                }
            });
        }
        let (started, mut when_started) = watch::channel(false);
        let (end_with, end_signal) = watch::channel(0);
        let ended = Arc::new(Notify::new());
        let notify = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            if matches!(handling, Handling::Forward { .. })
                && when_started.wait_for(|started| *started).await.is_err()
            {
                return;
            }
            while let Some((name, number)) = received.recv().await {
                if tty && number == SIGCONT {
                    terminal::reenter_raw();
                }
                let end = match &handling {
                    Handling::End => true,
                    Handling::Forward { client, container } => {
                        forward(client, container, name).await;
                        tty && number == SIGHUP && terminal::is_gone()
                    }
                };
                if end {
                    end_with.send_replace(number);
                    notify.notify_one();
                }
            }
        });
        Ok(Self {
            task,
            started,
            ended,
            end_signal,
        })
    }

    /// There is a process now that can take signals.
    pub(crate) fn started(&self) {
        self.started.send_replace(true);
    }

    /// Waits for a signal that ends the session, and gives its number.
    pub(crate) async fn ended(&self) -> i32 {
        self.ended.notified().await;
        *self.end_signal.borrow()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(client: &Client, container: &str, name: &str) {
    let path = format!("/containers/{}/kill", Call::segment(container));
    let call = Call::post(path).query("signal", name);
    match tokio::time::timeout(LAST_SIGNAL, client.done(&call)).await {
        Ok(Ok(())) => {}
        // It has ended in the meantime, or the engine is gone: the session tells.
        Ok(Err(error)) => tracing::debug!(%error, name, "a signal was not sent on"),
        Err(_) => tracing::debug!(name, "the engine did not send a signal on in time"),
    }
}
