//! The pipes and terminals between a process and the agent: both ends of them, made.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    pty::{OpenptFlags, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{Stdio, Stream, console, file::AsyncFile, output::Output};

/// How much a process can write before it waits for the agent: many reads, so that both
/// are busy, and more than comes in a pause. The kernel takes the memory only when it is
/// written to. What any process may have (`fs.pipe-max-size`).
const PIPE: usize = 1024 * 1024;

/// The process's ends of its stdio.
#[derive(Debug)]
pub(crate) struct ProcessEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The agent's ends, until pumping starts.
#[derive(Debug)]
pub(crate) struct AgentEnds {
    pub(super) stdin: Option<AsyncFile>,
    pub(super) outputs: Vec<(Stream, Output)>,
    pub(super) terminal: Option<AsyncFile>,
}

impl Stdio {
    /// Pipes for a process without a terminal.
    ///
    /// # Errors
    /// When the machine is out of files.
    pub(crate) fn pipes(&self) -> io::Result<(AgentEnds, ProcessEnds)> {
        let (stdin, to_stdin) = if self.shape.open_stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(AsyncFile::new(write)?))
        } else {
            (null()?, None)
        };
        let (from_stdout, stdout) = output_pipe()?;
        let (from_stderr, stderr) = output_pipe()?;
        let agent = AgentEnds {
            stdin: to_stdin,
            outputs: vec![
                (Stream::Stdout, Output::new(from_stdout)?),
                (Stream::Stderr, Output::new(from_stderr)?),
            ],
            terminal: None,
        };
        Ok((
            agent,
            ProcessEnds {
                stdin,
                stdout,
                stderr,
            },
        ))
    }

    /// The agent's ends of a terminal, from its master.
    ///
    /// # Errors
    /// When the master cannot be polled.
    pub(crate) fn terminal(&self, master: OwnedFd) -> io::Result<AgentEnds> {
        let output = Output::new(master.try_clone()?)?;
        let master = AsyncFile::new(master)?;
        // Before there is a process that looks.
        if let Some((height, width)) = self.lock().size {
            set_size(&master, height, width);
        }
        Ok(AgentEnds {
            stdin: self.shape.open_stdin.then(|| master.clone()),
            outputs: vec![(Stream::Stdout, output)],
            terminal: Some(master),
        })
    }

    /// The same, of a terminal that is given to user `uid` first.
    ///
    /// # Errors
    /// When it cannot be given, or its master not be polled.
    pub(crate) fn terminal_of(&self, master: OwnedFd, uid: u32) -> io::Result<AgentEnds> {
        console::give_terminal(&master, uid)?;
        self.terminal(master)
    }
}

/// A pipe for what a process writes: the agent's end, and the process's.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused to an agent without rights over limits: the default size serves too.
    let _ = fcntl_setpipe_size(&read, PIPE);
    Ok((read, write))
}

/// `/dev/null`, for a stdin that nobody attaches to.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// A terminal in the machine's own devpts: its master, and the process's ends.
///
/// # Errors
/// When there is no devpts, or no terminal left.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, ProcessEnds)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let stdin = console::open_peer(&master)?;
    let stdout = stdin.try_clone()?;
    let stderr = stdin.try_clone()?;
    Ok((
        master,
        ProcessEnds {
            stdin,
            stdout,
            stderr,
        },
    ))
}

pub(super) fn set_size(terminal: &AsyncFile, height: u16, width: u16) {
    let size = Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if let Err(error) = tcsetwinsize(terminal, size) {
        tracing::warn!("a terminal kept its size: {error}");
    }
}
