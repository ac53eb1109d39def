//! The one way in which a command fails: a message for the user, if there is one
//! left to say, and an exit code. `main` renders it.

use std::{fmt, io, path::Path, process::ExitCode};

use crate::{client, session::SessionError};

/// A command failed in itself; Docker's code for the client and the engine.
pub(crate) const ENGINE_FAILED: u8 = 125;
/// The container's command cannot be executed.
const COMMAND_NOT_EXECUTABLE: u8 = 126;
/// The container's command does not exist.
const COMMAND_NOT_FOUND: u8 = 127;
/// What a shell reports of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

/// Why dctl ends with something else than success.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: Option<String>,
}

impl Failure {
    /// An ordinary failure.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: Some(message.into()),
        }
    }

    /// An exit code with nothing to say: that of a container, or of errors that
    /// were reported already.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            code,
            message: None,
        }
    }

    /// A failure of dctl or the engine rather than of what was asked.
    pub(crate) fn engine(message: impl fmt::Display) -> Self {
        Self {
            code: ENGINE_FAILED,
            message: Some(format!("dctl: {message}")),
        }
    }

    /// The container's command did not start: as [`Failure::before_run`], with 127
    /// for a command that is not found and 126 for one that is not executable.
    /// Only the wording tells.
    pub(crate) fn at_start(mut self, command: &str) -> Self {
        let message = self.message.as_deref().unwrap_or_default();
        let is = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
        if self.code != 1 {
            // It is about something else.
        } else if is(&["executable file not found", "no such file or directory"]) {
            self.code = COMMAND_NOT_FOUND;
        } else if is(&["permission denied", "is a directory"]) {
            self.code = COMMAND_NOT_EXECUTABLE;
        }
        self.before_run(command)
    }

    /// A failure of `command` before the container ran, in Docker's form and with
    /// its code.
    pub(crate) fn before_run(self, command: &str) -> Self {
        let Some(message) = self.message else {
            return self;
        };
        let code = if self.code == 1 {
            ENGINE_FAILED
        } else {
            self.code
        };
        let message = if message.starts_with("dctl: ") {
            message
        } else {
            format!("dctl: {message}\n\nRun 'dctl {command} --help' for more information")
        };
        Self {
            code,
            message: Some(message),
        }
    }

    /// What there is to say.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused { .. } => Self::new(error.to_string()),
            _ => Self::engine(error),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Output(error) => output(&error),
            SessionError::Engine(error) => error.into(),
            SessionError::Input(_) | SessionError::Terminal(_) => Self::engine(error),
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Output cannot be written. A reader that has seen enough is no reason to
/// complain.
pub(crate) fn output(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::silent(BROKEN_PIPE)
    } else {
        Failure::new(format!("dctl: cannot write the output: {error}"))
    }
}

/// That a file cannot be opened, in the words that Docker's client has.
pub(crate) fn cannot_open(path: &Path, error: &io::Error) -> String {
    let reason = error.to_string();
    // The number says nothing that the words do not.
    let reason = reason.split(" (os error").next().unwrap_or_default();
    let mut letters = reason.chars();
    let reason: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_lowercase)
        .chain(letters)
        .collect();
    format!("open {}: {reason}", path.display())
}

/// Writes to standard output.
pub(crate) fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    use io::Write as _;
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_ref().as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| output(&error))
}

/// Writes a line to standard output.
pub(crate) fn print_line(text: impl fmt::Display) -> Result<(), Failure> {
    print(format!("{text}\n"))
}

/// Writes a line to standard error. When even that is closed there is nobody left
/// to tell.
pub(crate) fn note(text: impl fmt::Display) {
    use io::Write as _;
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_said_so_in_dockers_words() {
        let error = std::fs::File::open("/no/such").unwrap_err();
        assert_eq!(
            cannot_open(Path::new("/no/such"), &error),
            "open /no/such: no such file or directory"
        );
    }

    #[test]
    fn codes_before_a_run_are_dockers() {
        let code = |message: &str| Failure::new(message).at_start("run").code;
        assert_eq!(
            code("Error response from daemon: exec: \"x\": executable file not found in $PATH"),
            127
        );
        assert_eq!(code("exec /x: no such file or directory"), 127);
        assert_eq!(code("exec /etc: permission denied"), 126);
        assert_eq!(code("exec /etc: is a directory"), 126);
        assert_eq!(code("Conflict. The container name is already in use"), 125);
        let before = Failure::new("cannot use /dev/kvm: permission denied").before_run("run");
        assert_eq!(before.code, 125);
        let engine = Failure::engine("permission denied").at_start("run");
        assert_eq!(engine.code, 125);
    }

    #[test]
    fn the_form_is_dockers() {
        assert_eq!(
            Failure::new("Error response from daemon: no")
                .before_run("run")
                .message(),
            Some(
                "dctl: Error response from daemon: no\n\nRun 'dctl run --help' for more information"
            )
        );
        let lost = Failure::from(client::Error::Lost("gone".into())).before_run("run");
        assert_eq!(
            lost.message(),
            Some("dctl: lost the connection to the engine: gone")
        );
        assert_eq!(lost.code, 125);
        assert_eq!(Failure::silent(3).before_run("run").code, 3);
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        let failure = output(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.code, failure.message()), (141, None));
        assert!(
            output(&io::ErrorKind::StorageFull.into())
                .message()
                .is_some()
        );
    }
}
