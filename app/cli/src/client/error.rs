//! How a call can fail.

use std::{io, path::PathBuf};

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine said no. Scripts match on the wording, which is Docker's.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// Nobody listens on the socket.
    #[error("cannot connect to the engine at {}: {source}", socket.display())]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine went away in the middle of a call.
    #[error("lost the connection to the engine: {0}")]
    Lost(String),
    /// The engine sent something that is not what the API promises.
    #[error("the engine's reply to {path} was not understood: {source}")]
    Malformed {
        /// The call.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The engine sent more than anybody should.
    #[error("the engine's reply is over the limit of {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The connection should have become a raw stream.
    #[error("the engine answered {path} with status {status} instead of a stream")]
    NotHijacked {
        /// The call.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// A request could not be written as HTTP.
    #[error("the request for {path} cannot be sent: {source}")]
    Request {
        /// The call.
        path: String,
        /// Why not.
        source: hyper::http::Error,
    },
    /// A request could not be written as JSON.
    #[error("the request cannot be encoded: {0}")]
    Encode(serde_json::Error),
}

impl Error {
    /// Whether the engine said that the thing does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        // What hyper has to say of a connection that ended is its own business.
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<io::Error>()
                && cause.kind() != io::ErrorKind::UnexpectedEof
            {
                return Self::Lost(cause.to_string());
            }
            source = cause.source();
        }
        if error.is_parse() {
            Self::Lost(error.to_string())
        } else {
            Self::Lost("it ended in the middle of an answer".into())
        }
    }
}
