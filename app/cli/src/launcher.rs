//! Reaching the engine, and starting it when it does not run. Each machine has an
//! engine of its own: what one of them does, hangs or dies of is not the others'.
//!
//! A new engine is this same program, in a session of its own, with a pipe on
//! which it says that it is ready. Several dctl that start at once wait for one
//! another on a lock; the engine's own lock has the last word.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use dctl_engine::EngineError;
use dctl_machine::{DEFAULT_MACHINE, EngineFiles, Machine, Paths};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};

use crate::{
    client::{Client, Error},
    failure::Failure,
};

/// Names the engine's socket, instead of the one that dctl keeps.
const HOST_VARIABLE: &str = "DCTL_HOST";

/// Names the machine, where no option does.
const MACHINE_VARIABLE: &str = "DCTL_MACHINE";

/// How long an engine may take until it is ready. It boots no machine before.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks for an engine that somebody else is starting.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Which engine to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The one of a machine, which is started when it does not run.
    Machine(String),
    /// Whoever listens on this socket.
    Socket(PathBuf),
}

impl Target {
    /// The machine that `named` says, else what the environment says: an engine
    /// before a machine.
    ///
    /// # Errors
    /// When `DCTL_HOST` is no address of a socket.
    pub(crate) fn choose(named: Option<&str>) -> Result<Self, Failure> {
        Self::among(named, |name| {
            env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    fn among(
        named: Option<&str>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        if let Some(name) = named {
            return Ok(Self::Machine(name.to_owned()));
        }
        if let Some(host) = variable(HOST_VARIABLE) {
            let socket = host
                .to_str()
                .and_then(|host| host.strip_prefix("unix://"))
                .filter(|path| path.starts_with('/'))
                .ok_or_else(|| {
                    Failure::engine(format_args!(
                        "{HOST_VARIABLE} must be unix:// and an absolute path, such as unix:///run/docker.sock"
                    ))
                })?;
            return Ok(Self::Socket(socket.into()));
        }
        let name = variable(MACHINE_VARIABLE);
        Ok(Self::Machine(name.map_or_else(
            || DEFAULT_MACHINE.to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )))
    }
}

/// Which engine there is after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Started {
    /// The one that was started.
    Ours,
    /// One that was there before, and has the lock.
    Other,
}

/// What an engine writes when it is ready.
const READY: &[u8] = b"ready\n";

/// How much of the engine's log is shown when it does not start, in lines.
const LOG_LINES: usize = 5;

/// Connects to an engine; starts a machine's own when it does not run.
pub(crate) async fn connect(target: &Target) -> Result<Client, Failure> {
    let machine = match target {
        Target::Socket(socket) => return Ok(Client::connect(socket).await?),
        Target::Machine(name) => name,
    };
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let files = paths.engine(machine).map_err(Failure::engine)?;
    let socket = files.socket();
    if let Some(client) = connect_if_running(&socket).await? {
        return Ok(client);
    }
    // The default machine is made when it boots.
    if machine != DEFAULT_MACHINE {
        let known = Machine::open(&paths, machine).map_err(Failure::engine)?;
        if !known.exists() {
            let error = dctl_machine::Error::NoSuchMachine(machine.clone());
            return Err(Failure::engine(error));
        }
    }
    paths.create().map_err(Failure::engine)?;
    files.create().map_err(Failure::engine)?;
    let _starting = lock(&files.start_lock())?;
    // Whoever had the lock before has started it.
    if let Some(client) = connect_if_running(&socket).await? {
        return Ok(client);
    }
    if start(&files, machine)? == Started::Other {
        return connect_to_other(&socket).await;
    }
    Ok(Client::connect(&socket).await?)
}

/// Connects to an engine that somebody else is starting right now.
async fn connect_to_other(socket: &Path) -> Result<Client, Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if let Some(client) = connect_if_running(socket).await? {
            return Ok(client);
        }
        if Instant::now() > deadline {
            return Err(Failure::engine(format_args!(
                "another engine runs and does not listen on {}",
                socket.display()
            )));
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Connects; `None` when nobody listens.
async fn connect_if_running(socket: &Path) -> Result<Option<Client>, Failure> {
    match Client::connect(socket).await {
        Ok(client) => Ok(Some(client)),
        Err(Error::Unreachable { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        // One that is about to end.
        Err(Error::Lost(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the lock. Whoever holds it gives up in bounded time.
fn lock(path: &Path) -> Result<File, Failure> {
    let open = || {
        let file = private(path)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
        Ok::<_, io::Error>(file)
    };
    open().map_err(|error| Failure::engine(format_args!("cannot lock {}: {error}", path.display())))
}

/// Opens a file of ours to add to it.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Starts an engine and waits until it is ready.
fn start(files: &EngineFiles, machine: &str) -> Result<Started, Failure> {
    let log_path = files.log();
    let fails =
        |error: io::Error| Failure::engine(format_args!("cannot start the engine: {error}"));
    let log = private(&log_path).map_err(fails)?;
    let log_start = log.metadata().map_err(fails)?.len();
    let (mut reader, writer) = io::pipe().map_err(fails)?;
    // Its standard output is the pipe: nothing else has to be inherited.
    let mut command = Command::new(executable().map_err(fails)?);
    command
        .args(["engine", "--ready-fd", "1", "--machine", machine])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(log);
    let child = command.spawn();
    // Drops our copy of the writing end: the pipe ends with the engine.
    drop(command);
    let mut child = child.map_err(fails)?;
    match wait_until_ready(&mut reader).map_err(fails)? {
        Readiness::Ready => return Ok(Started::Ours),
        Readiness::Ended => {
            let code = child.wait().map_err(fails)?.code();
            if code == Some(EngineError::ALREADY_RUNNING.into()) {
                return Ok(Started::Other);
            }
        }
        Readiness::Silent => {}
    }
    let said = last_lines(&log_path, log_start);
    Err(Failure::engine(if said.is_empty() {
        format!(
            "the engine did not start; its log, {}, may tell why",
            log_path.display()
        )
    } else {
        format!(
            "the engine did not start:\n{said}\n(from {})",
            log_path.display()
        )
    }))
}

/// This program, also when its file was replaced while it runs.
fn executable() -> io::Result<PathBuf> {
    let path = env::current_exe()?;
    if path.exists() {
        Ok(path)
    } else {
        Ok(PathBuf::from("/proc/self/exe"))
    }
}

/// What came of a wait for an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// It said that it is ready.
    Ready,
    /// It has ended, or is about to.
    Ended,
    /// It has said nothing in time.
    Silent,
}

/// Waits until the engine says that it is ready.
fn wait_until_ready(reader: &mut io::PipeReader) -> io::Result<Readiness> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut descriptors = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
        let count = match poll(&mut descriptors, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        if count == 0 {
            return Ok(Readiness::Silent);
        }
        let mut buffer = [0; 64];
        let length = reader.read(&mut buffer)?;
        said.extend_from_slice(&buffer[..length]);
        if said.starts_with(READY) {
            return Ok(Readiness::Ready);
        }
        if length == 0 {
            return Ok(Readiness::Ended);
        }
        if !READY.starts_with(&said) {
            return Ok(Readiness::Silent);
        }
    }
}

/// The end of what was logged from `start` on.
fn last_lines(path: &Path, start: u64) -> String {
    let Ok(log) = fs::read(path) else {
        return String::new();
    };
    let new = usize::try_from(start)
        .ok()
        .and_then(|start| log.get(start..))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<_> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_engine_is_ready_when_it_says_so() {
        for (said, readiness) in [
            (&b"ready\n"[..], Readiness::Ready),
            (b"", Readiness::Ended),
            (b"rea", Readiness::Ended),
            (b"no, sorry", Readiness::Silent),
        ] {
            let (mut reader, mut writer) = io::pipe().unwrap();
            writer.write_all(said).unwrap();
            drop(writer);
            assert_eq!(wait_until_ready(&mut reader).unwrap(), readiness);
        }
    }

    #[test]
    fn an_option_comes_before_an_engine_and_that_before_a_machine() {
        let choose = |named, host: &str, machine: &str| {
            Target::among(named, |name| {
                let value = if name == HOST_VARIABLE { host } else { machine };
                Some(value)
                    .filter(|value| !value.is_empty())
                    .map(Into::into)
            })
            .unwrap()
        };
        let machine = |name: &str| Target::Machine(name.to_owned());
        assert_eq!(choose(Some("a"), "unix:///s", "b"), machine("a"));
        assert_eq!(choose(None, "unix:///s", "b"), Target::Socket("/s".into()));
        assert_eq!(choose(None, "", "b"), machine("b"));
        assert_eq!(choose(None, "", ""), machine(DEFAULT_MACHINE));
        assert!(Target::among(None, |_| Some("tcp://h".into())).is_err());
    }

    #[test]
    fn only_the_new_end_of_the_log_is_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"old\n1\n2\n3\n4\n5\n6\n").unwrap();
        assert_eq!(last_lines(file.path(), 4), "2\n3\n4\n5\n6");
        assert_eq!(last_lines(file.path(), 99), "");
        assert_eq!(last_lines(Path::new("/nonexistent"), 0), "");
    }
}
