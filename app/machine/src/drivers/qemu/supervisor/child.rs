//! QEMU as a child process, and the ends of its connections.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
};

use dctl_vmm::config::VmConfig;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{
        Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal,
    },
};

use super::arguments::{BackEnds, arguments};

/// A running QEMU.
pub(super) struct Qemu {
    child: Child,
    /// Readable when it has ended.
    pub(super) pidfd: OwnedFd,
    /// Its monitor protocol.
    pub(super) qmp: UnixStream,
    /// What the guest prints.
    pub(super) console: UnixStream,
    /// What QEMU says of itself.
    pub(super) errors: ChildStderr,
}

impl Qemu {
    /// Starts it. It is killed when the calling thread ends, which must be the one
    /// that lives as long as the process.
    pub(super) fn spawn(
        program: &Path,
        config: &VmConfig,
        back_ends: BackEnds,
    ) -> io::Result<Self> {
        let (qmp, its_qmp) = UnixStream::pair()?;
        let (console, its_console) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command
            .args(arguments(config, &back_ends, &its_qmp, &its_console))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let inherited: Vec<OwnedFd> = back_ends
            .disks
            .into_iter()
            .chain(back_ends.vsock)
            .chain(back_ends.shares)
            .chain([its_qmp, its_console])
            .map(OwnedFd::from)
            .collect();
        let parent = getpid();
        let prepare = move || -> io::Result<()> {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::NotFound.into());
            }
            for descriptor in &inherited {
                fcntl_setfd(descriptor, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls (prctl, getppid, fcntl)
        // alone, and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        // With the command go our copies of QEMU's ends: when it ends, ours end.
        drop(command);
        let pid = Pid::from_child(&child);
        let (pidfd, errors) = match (pidfd_open(pid, PidfdFlags::empty()), child.stderr.take()) {
            (Ok(pidfd), Some(errors)) => (pidfd, errors),
            (result, _) => {
                child.kill()?;
                child.wait()?;
                return Err(result
                    .err()
                    .map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::from));
            }
        };
        Ok(Self {
            child,
            pidfd,
            qmp,
            console,
            errors,
        })
    }

    /// Ends it, if it has not ended, and says how it did.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => self.child.wait(),
            Err(error) => Err(error.into()),
        }
    }

    /// How it ended, once `pidfd` is readable.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}
