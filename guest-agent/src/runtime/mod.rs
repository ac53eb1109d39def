//! Starting processes: containers, execs in them, and shells in the machine.
//!
//! An OCI runtime forks without exec, changes the caller's working directory and
//! joins namespaces, none of which a threaded PID 1 may do. So the runtime
//! ([`server`]) is a process of its own, started once from this same program and
//! single-threaded for all its life, that forks a child for each [`job`]. The
//! agent's side ([`Runtime`]) sends it jobs and hears how they went; the
//! processes become children of the agent, whose reaper collects them.

pub(crate) mod devices;
mod execute;
pub(crate) mod executor;
pub(crate) mod job;
pub(crate) mod loopback;
pub(crate) mod seccomp;
pub(crate) mod server;
mod user_namespace;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Command, Stdio as ProcessStdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use guest_protocol::AgentError;
use rustix::{
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair,
    },
    process::Pid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::job::{Job, Report};
use crate::{
    error::{Context, Result},
    stdio::{ProcessEnds, console::ConsoleSocket, file::AsyncFile, null},
};

/// The argument that makes this program the runtime process.
pub(crate) const ARGUMENT: &str = "runtime";

/// What lets a process go that waits before it executes its program.
const START: &[u8] = b"s";

/// The largest report, in bytes.
const LONGEST_REPORT: usize = 16 * 1024;

/// The agent's side of the runtime process.
#[derive(Debug)]
pub(crate) struct Runtime {
    socket: Mutex<OwnedFd>,
}

/// A process that was made and waits to be let go.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its id in the machine.
    pub(crate) pid: Pid,
    status: AsyncFile,
}

impl Runtime {
    /// Starts the runtime process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            socket: Mutex::new(spawn().context("cannot start the container runtime")?),
        })
    }

    /// Has the runtime do `job`, with `stdio` as the new process's unless it gets
    /// a terminal. Comes back when the process exists but has not run a
    /// single instruction of its program; for an exec it may have.
    ///
    /// # Errors
    /// Why the process could not be made.
    pub(crate) async fn create(&self, job: &Job, stdio: Option<ProcessEnds>) -> Result<Created> {
        created(self.begin(job, stdio)?).await
    }

    /// As [`create`](Self::create), for a process with a terminal that it sends to
    /// `console`. What `prepare` makes of the terminal's master is made before the
    /// program runs, an exec's, too.
    ///
    /// # Errors
    /// Why the process could not be made, or its terminal not be prepared.
    pub(crate) async fn create_with_terminal<T>(
        &self,
        job: &Job,
        console: &ConsoleSocket,
        prepare: impl FnOnce(OwnedFd) -> Result<T>,
    ) -> Result<(Created, T)> {
        let status = self.begin(job, None)?;
        let mut ready = status.clone();
        let receive = async {
            let master = match console.receive().await {
                Ok(master) => master,
                // The runtime knows better why, and is about to say so.
                Err(error) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    return Err(error).context("the terminal did not arrive");
                }
            };
            let terminal = prepare(master)?;
            if matches!(job, Job::Exec { .. }) {
                // A failure means that the process ended, which its report explains.
                let _ = ready.write_all(START).await;
            }
            Ok(terminal)
        };
        tokio::try_join!(created(status), receive)
    }

    /// Has the runtime begin with `job`; gives the line on which it reports.
    fn begin(&self, job: &Job, stdio: Option<ProcessEnds>) -> Result<AsyncFile> {
        let (status, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("cannot make a socket")?;
        let stdio = match stdio {
            Some(stdio) => stdio,
            None => ProcessEnds {
                stdin: null().context("cannot open /dev/null")?,
                stdout: null().context("cannot open /dev/null")?,
                stderr: null().context("cannot open /dev/null")?,
            },
        };
        let message = serde_json::to_vec(job).context("cannot describe a job to the runtime")?;
        self.send(
            &message,
            &[
                theirs.as_fd(),
                stdio.stdin.as_fd(),
                stdio.stdout.as_fd(),
                stdio.stderr.as_fd(),
            ],
        )
        .context("the container runtime does not answer")?;
        drop((theirs, stdio));
        AsyncFile::new(status).context("cannot poll a socket")
    }

    fn send(&self, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match send_with_files(&socket, message, files) {
            // It died, by the kernel's hand when memory ran out: a new one serves as well.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                tracing::error!("the container runtime died; starting it again");
                *socket = spawn()?;
                send_with_files(&socket, message, files)
            }
            result => result,
        }
    }
}

impl Created {
    /// Lets the process run. Comes back when its program is running.
    ///
    /// # Errors
    /// Why the program could not be executed; the process is gone then.
    pub(crate) async fn start(mut self) -> Result<()> {
        // A failure means that the other side ended, which its report explains.
        let _ = self.status.write_all(START).await;
        match next_report(&mut self.status).await? {
            // Every copy of the socket is closed: the last by the kernel, at exec.
            None | Some(Report::Created { .. }) => Ok(()),
            Some(Report::Failed(error)) => Err(error),
        }
    }
}

/// Waits until the process is there.
async fn created(mut status: AsyncFile) -> Result<Created> {
    match next_report(&mut status).await? {
        Some(Report::Created { pid }) => {
            let pid = Pid::from_raw(pid)
                .ok_or_else(|| AgentError::system("the container runtime reported no process"))?;
            Ok(Created { pid, status })
        }
        Some(Report::Failed(error)) => Err(error),
        None => Err(AgentError::system(
            "the container runtime ended before it made the process",
        )),
    }
}

async fn next_report(status: &mut AsyncFile) -> Result<Option<Report>> {
    let mut report = vec![0; LONGEST_REPORT];
    let length = match status.read(&mut report).await {
        // Closed with our unread "start" in it, which an exec never reads.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        result => result.context("cannot hear from the container runtime")?,
    };
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&report[..length])
        .context("the container runtime's report is not understood")
        .map(Some)
}

fn spawn() -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The reaper collects it, should it ever end.
    Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(ProcessStdio::from(theirs))
        .spawn()?;
    Ok(ours)
}

fn send_with_files(socket: &OwnedFd, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for one message"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
