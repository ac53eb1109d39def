//! Files of the host that the guest sees, in a monitor: the server that answers the
//! guest's requests, whichever way they come, and the list of what is exported.
//!
//! Requests are answered by threads of their own, for they alone may open files:
//!
//! - they are started before the monitor gives up the file system (`crate::sandbox`).
//!   Landlock holds for a thread and those that it starts; what it denies, it denies
//!   below descriptors that are passed in, too. So the exported roots are opened, and
//!   everything below them, by threads outside of its domain, and by no others;
//! - what they may do instead is bounded by a seccomp filter of their own: to work on
//!   files and memory, and nothing that makes a process, a network connection or
//!   another privilege. What it does not list fails, and costs one request;
//! - that they stay inside of an export is the server's affair (`openat2` with
//!   `RESOLVE_BENEATH`), see `app/shares`;
//! - files get the mode that the guest asked for: these threads have a file mode
//!   creation mask of their own, of nothing.
//!
//! The main thread asks over a channel ([`SharesHandle`]) and waits a bounded time, as
//! a path may be on a server that does not answer.

mod changes;
mod exports;
mod stream;

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::Duration,
};

use shares::{Limits, Server};

use self::exports::Exports;
use crate::{
    config::{ExportConfig, ShareTransport, SharesConfig, VsockConfig},
    control::Answer,
    devices::fs::{Fs, Pool},
    sandbox::FileConfinement,
};

/// How long a path may take to be opened.
const PATIENCE: Duration = Duration::from_secs(4);

/// Before what failed for want of something is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// More threads than this gain nothing: what they wait for is the host's disk.
const MOST_THREADS: usize = 4;

/// What the main thread asks.
enum Job {
    Add(ExportConfig),
    Remove(String),
    Names,
}

type Question = (Job, SyncSender<Answer>);

/// For asking what is exported, and changing it.
pub struct SharesHandle(Option<Sender<Question>>);

/// The server and its threads.
pub struct Shares {
    /// The device, if that is the way that requests take.
    pub device: Option<Fs>,
    /// For the main thread.
    pub handle: SharesHandle,
}

impl Shares {
    /// Starts serving. Must be called before the calling thread gives up the file
    /// system.
    ///
    /// # Errors
    /// When there are no threads or file descriptors, or the socket cannot be made.
    pub fn start(
        config: &SharesConfig,
        vsock: &VsockConfig,
        confinement: &FileConfinement,
    ) -> io::Result<Self> {
        let server = Arc::new(Server::new(Limits::default())?);
        let device = match &config.transport {
            ShareTransport::VirtioFs { tag } => {
                let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
                let confinement = confinement.clone();
                let on_start = move || confinement.enter();
                let pool = Pool::start("shares", threads.min(MOST_THREADS), on_start)?;
                Some(Fs::new(tag, Arc::clone(&server), Arc::new(pool))?)
            }
            ShareTransport::Vsock { port } => {
                let socket = vsock.host_port_socket(*port);
                stream::serve(&socket, Arc::clone(&server), confinement)?;
                None
            }
        };
        changes::tell(Arc::clone(&server), vsock, config.changes_port, confinement)?;
        let mut exports = Exports::new(server);
        let wanted = config.exports.clone();
        let (questions, asked) = mpsc::channel::<Question>();
        on_own_thread("shares-exports", confinement, move || {
            exports.add_later(wanted);
            loop {
                exports.retry();
                match asked.recv_timeout(exports.next_retry()) {
                    Ok((job, answer)) => {
                        // Who asked may have lost patience.
                        let _ = answer.send(exports.answer(job));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self {
            device,
            handle: SharesHandle(Some(questions)),
        })
    }
}

impl SharesHandle {
    /// Of a machine that shares nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Answers [`crate::control::Request::AddExport`].
    pub fn add(&self, export: ExportConfig) -> Answer {
        self.ask(Job::Add(export))
    }

    /// Answers [`crate::control::Request::RemoveExport`].
    pub fn remove(&self, name: String) -> Answer {
        self.ask(Job::Remove(name))
    }

    /// Answers [`crate::control::Request::Exports`].
    pub fn names(&self) -> Answer {
        self.ask(Job::Names)
    }

    fn ask(&self, job: Job) -> Answer {
        let error = |message: &str| Answer::Error {
            message: message.to_owned(),
        };
        let Some(questions) = &self.0 else {
            return error("this machine shares no files");
        };
        let (answer, answered) = mpsc::sync_channel(1);
        if questions.send((job, answer)).is_err() {
            return error("the thread that shares files has ended");
        }
        answered
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| error("the host's file system does not answer"))
    }
}

/// Starts a thread that confines itself.
fn on_own_thread(
    name: &str,
    confinement: &FileConfinement,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let confinement = confinement.clone();
    let (started, has_started) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let outcome = confinement.enter();
            let failed = outcome.is_err();
            // The spawning thread waits for it.
            let _ = started.send(outcome);
            if !failed {
                run();
            }
        })?;
    has_started
        .recv()
        .map_err(|_| io::Error::other("a thread that shares files ended before it started"))?
}

#[cfg(test)]
mod tests;
