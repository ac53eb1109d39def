//! The last steps inside a container, before its program takes over.
//!
//! libcontainer calls [`ConfiningExecutor`] in the new process once everything
//! else is set up. It finds the program, waits until an exec's terminal is ready,
//! installs the system call filter, drops the capabilities that only that needed, and
//! executes. What goes wrong is reported in Docker's words.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use caps::{CapSet, Capability};
use guest_protocol::{AgentError, ErrorKind};
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use super::{
    execute::execute,
    job::{Confinement, Report},
    seccomp::Filters,
};
use crate::error::{Context, Result};

/// Where a container's program looks for programs when nothing says otherwise.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process that is made is to be. Failures are told in Docker's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A container's first process.
    Container,
    /// A command beside it.
    Exec,
    /// A command in the machine.
    Machine,
}

impl Purpose {
    /// The program did not start, because of `reason`.
    pub(crate) fn start_error(self, kind: ErrorKind, reason: &str) -> AgentError {
        let action = match self {
            Self::Container => {
                "failed to create task for container: OCI runtime create failed: \
                 unable to start container process"
            }
            Self::Exec => "OCI runtime exec failed: exec failed: unable to start container process",
            Self::Machine => "cannot start a command in the machine",
        };
        AgentError::new(kind, format!("{action}: {reason}"))
    }
}

/// The line to the agent about one job.
#[derive(Debug, Clone)]
pub(super) struct Status {
    socket: Arc<OwnedFd>,
}

impl Status {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
        }
    }

    /// Tells the agent.
    pub(super) fn report(&self, report: &Report) -> Result<()> {
        let message = serde_json::to_vec(report).context("cannot report to the agent")?;
        rustix::io::write(&*self.socket, &message).context("cannot report to the agent")?;
        Ok(())
    }

    /// Tells the agent that it failed. Only the first failure counts there, and an
    /// agent that has heard it hangs up.
    pub(super) fn failed(&self, error: AgentError) {
        let _ = self.report(&Report::Failed(error));
    }

    /// Waits until the agent says that the process may run.
    pub(super) fn wait_for_start(&self) -> Result<()> {
        let mut byte = [0];
        match rustix::io::read(&*self.socket, &mut byte) {
            Ok(1..) => Ok(()),
            Ok(0) => Err(AgentError::system("the agent is gone")),
            Err(error) => Err(error).context("cannot hear from the agent"),
        }
    }
}

/// Confines and executes a container's program.
#[derive(Debug, Clone)]
pub(super) struct ConfiningExecutor {
    purpose: Purpose,
    capabilities: HashSet<Capability>,
    seccomp: Option<Filters>,
    status: Status,
    /// Whether the agent says when the program may be executed.
    waits: bool,
}

impl ConfiningExecutor {
    /// # Errors
    /// When a capability has a name that is not known here, or the filters cannot be
    /// read.
    pub(super) fn new(purpose: Purpose, confinement: &Confinement, status: Status) -> Result<Self> {
        let capabilities = confinement
            .capabilities
            .iter()
            .map(|name| name.parse().context("unknown capability"))
            .collect::<Result<_>>()?;
        // Now: inside the container there is no such file.
        let seccomp = confinement
            .seccomp
            .as_deref()
            .map(Filters::read)
            .transpose()
            .context("cannot read the seccomp profile")?;
        Ok(Self {
            purpose,
            capabilities,
            seccomp,
            status,
            waits: false,
        })
    }

    /// The same, which executes the program only once the agent says so, if `waits`.
    pub(super) fn waiting(self, waits: bool) -> Self {
        Self { waits, ..self }
    }

    fn confine(&self) -> Result<()> {
        let Some(filters) = &self.seccomp else {
            return Ok(());
        };
        filters.install()?;
        // The set that libcontainer left has two more, which the filter needed.
        for capability in caps::read(None, CapSet::Bounding).context("cannot read capabilities")? {
            if !self.capabilities.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)
                    .context("cannot drop a capability")?;
            }
        }
        for set in [CapSet::Effective, CapSet::Permitted] {
            let kept: HashSet<_> = caps::read(None, set)
                .context("cannot read capabilities")?
                .intersection(&self.capabilities)
                .copied()
                .collect();
            caps::set(None, set, &kept).context("cannot drop capabilities")?;
        }
        Ok(())
    }
}

impl Executor for ConfiningExecutor {
    fn validate(&self, spec: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        find_program(self.purpose, spec).map(drop).map_err(|error| {
            self.status.failed(error.clone());
            ExecutorValidationError::ArgValidationError(error.message)
        })
    }

    /// The environment is handed over when the program is executed.
    fn setup_envs(
        &self,
        _: HashMap<String, String>,
    ) -> std::result::Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> std::result::Result<(), ExecutorError> {
        let fail = |error: AgentError| {
            self.status.failed(error.clone());
            ExecutorError::Other(error.message)
        };
        let (program, args) = find_program(self.purpose, spec).map_err(fail)?;
        if self.waits {
            self.status.wait_for_start().map_err(fail)?;
        }
        self.confine().map_err(fail)?;
        let error = execute(&program, args, environment(spec));
        Err(fail(execution_error(self.purpose, &program, &error)))
    }
}

fn environment(spec: &Spec) -> &[String] {
    spec.process()
        .as_ref()
        .and_then(|process| process.env().as_deref())
        .unwrap_or_default()
}

/// The program of `spec` as a path, and its arguments, of which there is one at
/// least.
fn find_program(purpose: Purpose, spec: &Spec) -> Result<(String, &[String])> {
    let args = spec
        .process()
        .as_ref()
        .and_then(|process| process.args().as_deref())
        .unwrap_or_default();
    let name = args
        .first()
        .ok_or_else(|| AgentError::invalid("no command specified"))?;
    let path = environment(spec)
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    Ok((look_up(purpose, name, path)?, args))
}

/// Finds `name` as execvp does, by the rights of the calling process.
fn look_up(purpose: Purpose, name: &str, path: &str) -> Result<String> {
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(purpose.start_error(
                ErrorKind::CommandNotFound,
                &format!("exec: {name:?}: stat {name}: no such file or directory"),
            )),
            Err(Errno::ISDIR) => Err(purpose.start_error(
                ErrorKind::CommandNotExecutable,
                &format!("exec: {name:?}: is a directory: permission denied"),
            )),
            Err(_) => Err(purpose.start_error(
                ErrorKind::CommandNotExecutable,
                &format!("exec: {name:?}: permission denied"),
            )),
        };
    }
    path.split(':')
        .map(|folder| {
            let folder = if folder.is_empty() { "." } else { folder };
            format!("{folder}/{name}")
        })
        .find(|candidate| !name.is_empty() && check(candidate).is_ok())
        .ok_or_else(|| {
            purpose.start_error(
                ErrorKind::CommandNotFound,
                &format!("exec: {name:?}: executable file not found in $PATH"),
            )
        })
}

fn check(path: &str) -> std::result::Result<(), Errno> {
    accessat(CWD, path, Access::EXISTS, AtFlags::EACCESS)?;
    if Path::new(path).is_dir() {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Why the kernel would not execute `program`.
pub(super) fn execution_error(purpose: Purpose, program: &str, error: &io::Error) -> AgentError {
    let (kind, reason) = match Errno::from_io_error(error) {
        // The file is there: it is its interpreter that is missing.
        Some(Errno::NOENT) => (
            ErrorKind::CommandNotFound,
            "no such file or directory".into(),
        ),
        Some(Errno::NOEXEC) => (ErrorKind::CommandNotExecutable, "exec format error".into()),
        Some(Errno::ACCESS) => (ErrorKind::CommandNotExecutable, "permission denied".into()),
        _ => (ErrorKind::CommandNotExecutable, error.to_string()),
    };
    purpose.start_error(kind, &format!("exec {program}: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_and_the_reason_given_when_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("data"), "text").unwrap();
        std::fs::write(path("tool"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path("tool"), PermissionsExt::from_mode(0o755)).unwrap();
        let search = folder.path().to_str().unwrap();

        assert_eq!(
            look_up(Purpose::Exec, "tool", search).unwrap(),
            path("tool")
        );
        assert_eq!(
            look_up(Purpose::Exec, &path("tool"), "").unwrap(),
            path("tool")
        );
        for (name, kind, text) in [
            (
                "nothing",
                ErrorKind::CommandNotFound,
                "executable file not found in $PATH",
            ),
            (
                "data",
                ErrorKind::CommandNotFound,
                "executable file not found in $PATH",
            ),
            (
                &path("nothing"),
                ErrorKind::CommandNotFound,
                "no such file or directory",
            ),
            (
                &path("data"),
                ErrorKind::CommandNotExecutable,
                "permission denied",
            ),
            (search, ErrorKind::CommandNotExecutable, "is a directory"),
        ] {
            let error = look_up(Purpose::Exec, name, search).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains(text), "{error}");
        }
    }
}
