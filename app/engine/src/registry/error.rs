//! What can go wrong with a registry, in words for the user who asked.

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It cannot be reached.
    #[error("cannot reach registry {host}: {reason}")]
    Unreachable {
        /// The registry, or the server that gives its tokens.
        host: String,
        /// The innermost cause.
        reason: String,
    },
    /// The connection broke too often.
    #[error("{what} from {host} failed: {reason}")]
    Interrupted {
        /// What was fetched.
        what: String,
        /// The registry.
        host: String,
        /// The last cause.
        reason: String,
    },
    /// It asks for credentials, and there are none.
    #[error(
        "unauthorized: registry {0} asks for credentials and none are known: run `docker login {0}`"
    )]
    NoCredentials(String),
    /// It does not accept the credentials.
    #[error("unauthorized: registry {host} refused the credentials: {reason}")]
    Unauthorized {
        /// The registry, or the server that gives its tokens.
        host: String,
        /// What it says.
        reason: String,
    },
    /// The repository does not exist, or may not be seen.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {reason}"
    )]
    Denied {
        /// The repository's familiar name.
        name: String,
        /// What the registry says.
        reason: String,
    },
    /// The repository may not be written to.
    #[error("denied: requested access to the resource is denied: {name}: {reason}")]
    PushDenied {
        /// The repository's familiar name.
        name: String,
        /// What the registry says.
        reason: String,
    },
    /// The registry has no such manifest.
    #[error("manifest for {name} not found: {reason}")]
    ManifestUnknown {
        /// The image's familiar name.
        name: String,
        /// What the registry says.
        reason: String,
    },
    /// The registry has no such repository.
    #[error("repository {name} not found: {reason}")]
    NameUnknown {
        /// The repository's familiar name.
        name: String,
        /// What the registry says.
        reason: String,
    },
    /// Too many requests.
    #[error("toomanyrequests: registry {host} limits how often it may be asked: {reason}")]
    TooManyRequests {
        /// The registry.
        host: String,
        /// What it says.
        reason: String,
    },
    /// It answers with a status that is none of the above.
    #[error("registry {host} answered {status} to {what}: {reason}")]
    Status {
        /// The registry.
        host: String,
        /// HTTP status.
        status: u16,
        /// What was asked.
        what: String,
        /// What it says.
        reason: String,
    },
    /// What came is not what its digest promised.
    #[error("{what} failed verification: expected digest {expected}, got {actual}")]
    Digest {
        /// What was fetched.
        what: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// What came is longer or shorter than promised.
    #[error("{what} failed verification: expected {expected} bytes, got {actual}")]
    Size {
        /// What was fetched.
        what: String,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that came, or one more than are allowed.
        actual: u64,
    },
    /// What came makes no sense, or is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The user's Docker configuration or a credential helper failed.
    #[error("{0}")]
    Configuration(String),
}

impl RegistryError {
    /// Whether it may go better another time.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::TooManyRequests { .. } => {
                true
            }
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// The innermost cause of an HTTP client's error: what a user can act on.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    match cause
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind)
    {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::UnexpectedEof) => "unexpected EOF".to_owned(),
        _ if error.is_redirect() => format!("redirect refused: {text}"),
        _ => text,
    }
}
