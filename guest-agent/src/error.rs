//! Errors as the agent makes them: every failure that can reach a host is an
//! [`AgentError`], made from a library's error by saying what was being done.

use std::{error::Error, fmt::Display, io};

use guest_protocol::{AgentError, ErrorKind};

/// What a step of a call gives back.
pub(crate) type Result<T> = std::result::Result<T, AgentError>;

/// Turns a library's error into an [`AgentError`].
pub(crate) trait Context<T> {
    /// The error says `doing: cause`; its kind is [`ErrorKind::NoSpace`] when the
    /// cause is a full disk, else [`ErrorKind::System`].
    fn context(self, doing: impl Display) -> Result<T>;
}

impl<T, E: Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|error| {
            AgentError::new(kind_of(&error), format!("{doing}: {}", chain(&error)))
        })
    }
}

/// The error and its causes in one line, each cause once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn kind_of(error: &(dyn Error + 'static)) -> ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AgentError>() {
            return error.kind;
        }
        let full = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
            || error.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::NOSPC);
        if full {
            return ErrorKind::NoSpace;
        }
        next = error.source();
    }
    ErrorKind::System
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_keeps_its_kind() {
        let full: io::Result<()> = Err(io::ErrorKind::StorageFull.into());
        let error = full.context("cannot write the log").unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
        assert!(error.message.starts_with("cannot write the log: "));
    }

    #[test]
    fn an_agent_error_keeps_its_kind() {
        let inner: Result<()> = Err(AgentError::no_such_container("x"));
        let error = inner.context("cannot start").unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
}
