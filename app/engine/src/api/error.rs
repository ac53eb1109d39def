//! Errors as Docker's clients expect them: a status and `{"message": …}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use guest_protocol::{AgentError, ErrorKind};
use serde_json::json;

use crate::{agent::CallError, images::ImportError, registry::RegistryError, shares::ShareError};

/// What a handler ends with when it does not succeed.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl ApiError {
    /// An error of `status` that says `message`.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// Itself, with `prefix` before a message that begins with `beginning`.
    pub(super) fn about(mut self, beginning: &str, prefix: &str) -> Self {
        let told = !prefix.is_empty() && self.message.starts_with(prefix);
        if !told && self.message.starts_with(beginning) && self.status.is_client_error() {
            self.message.insert_str(0, prefix);
        }
        self
    }

    /// The client's mistake (400).
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing (404).
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Docker does it and dctl does not (501).
    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("not implemented by dctl: {what}"),
        )
    }

    /// Something is broken (500).
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // 304 means that nothing was to do, and has no body.
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        tracing::info!(status = self.status.as_u16(), message = %self.message, "refused");
        (self.status, Json(json!({"message": self.message}))).into_response()
    }
}

impl From<AgentError> for ApiError {
    fn from(error: AgentError) -> Self {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            // As Docker does: its client finds 126 and 127 by the message.
            ErrorKind::InvalidParameter
            | ErrorKind::CommandNotFound
            | ErrorKind::CommandNotExecutable => StatusCode::BAD_REQUEST,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Corrupt | ErrorKind::NoSpace | ErrorKind::System | ErrorKind::Unknown => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.message)
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Agent(error) => error.into(),
            CallError::Machine(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            CallError::Connection { .. } => Self::internal(error.to_string()),
        }
    }
}

impl From<dctl_machine::Error> for ApiError {
    fn from(error: dctl_machine::Error) -> Self {
        let status = match error {
            dctl_machine::Error::Running(_)
            | dctl_machine::Error::Exists(_)
            | dctl_machine::Error::OtherDriver { .. } => StatusCode::CONFLICT,
            dctl_machine::Error::Unacceptable(_) | dctl_machine::Error::InvalidName(_) => {
                StatusCode::BAD_REQUEST
            }
            dctl_machine::Error::NoSuchMachine(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ShareError> for ApiError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Source(error) if error.is_internal() => Self::internal(error.to_string()),
            ShareError::Source(error) => Self::bad_request(error.to_string()),
            ShareError::Machine(error) => error.into(),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let status = match error {
            RegistryError::Denied { .. }
            | RegistryError::ManifestUnknown { .. }
            | RegistryError::NameUnknown { .. } => StatusCode::NOT_FOUND,
            RegistryError::NoCredentials(_) | RegistryError::Unauthorized { .. } => {
                StatusCode::UNAUTHORIZED
            }
            RegistryError::PushDenied { .. } => StatusCode::FORBIDDEN,
            RegistryError::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Registry(error) => error.into(),
            ImportError::Agent(error) => error.into(),
            ImportError::Platform(message) | ImportError::Missing(message) => {
                Self::not_found(message)
            }
            ImportError::Invalid(_) | ImportError::Gone(_) => Self::internal(error.to_string()),
        }
    }
}
