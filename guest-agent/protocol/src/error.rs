//! The error a call can end with, as the guest sends it to the host.

use serde::{Deserialize, Serialize};

/// What sort of failure it was. The engine maps each kind to the HTTP status
/// that Docker gives for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The named container, image, exec or layer does not exist (404).
    NotFound,
    /// The state of the thing forbids it: name taken, still running (409).
    Conflict,
    /// It is not allowed: an address that is taken, a network that stays (403).
    Forbidden,
    /// The request makes no sense (400).
    InvalidParameter,
    /// It already is as asked: started, stopped (304).
    NotModified,
    /// The agent is shutting down or not ready (503).
    Unavailable,
    /// The container's command could not be found (the client exits with 127).
    CommandNotFound,
    /// The container's command could not be executed (the client exits with 126).
    CommandNotExecutable,
    /// What arrived does not have the digest or the form that was announced.
    Corrupt,
    /// The data disk is full.
    NoSpace,
    /// Anything else (500).
    System,
    /// A kind from a newer agent.
    #[serde(other)]
    Unknown,
}

/// A failed call: its kind, and a message fit for a user, in Docker's wording
/// where clients match on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// One line that names the thing and what happened to it.
    pub message: String,
}

impl AgentError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// [`ErrorKind::NotFound`] in Docker's words for a container.
    pub fn no_such_container(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("No such container: {name}"))
    }

    /// [`ErrorKind::NotFound`] in Docker's words for an image.
    pub fn no_such_image(reference: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("No such image: {reference}"))
    }

    /// [`ErrorKind::NotFound`] in Docker's words for a volume.
    pub fn no_such_volume(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("get {name}: no such volume"))
    }

    /// [`ErrorKind::NotFound`] in Docker's words for a network.
    pub fn no_such_network(reference: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("network {reference} not found"),
        )
    }

    /// [`ErrorKind::Forbidden`] with `message`.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// [`ErrorKind::System`] with `message`.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }

    /// [`ErrorKind::InvalidParameter`] with `message`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }
}
