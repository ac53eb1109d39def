//! Why ports were not published, as Docker says it.

use std::{io, net::SocketAddr};

use axum::http::StatusCode;
use guest_protocol::port::Transport;

use crate::{agent::CallError, api::ApiError};

/// Why a container's ports were not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Another container has it.
    #[error("{}Bind for {address} failed: port is already allocated", prefix(endpoint.as_ref()))]
    Allocated {
        /// The host's address and port.
        address: SocketAddr,
        /// The container that wanted it: name and id.
        endpoint: Option<(String, String)>,
    },
    /// The host does not give it.
    #[error("{}failed to bind host port {address}/{}: {}", prefix(endpoint.as_ref()), transport.as_str(), reason(*address, source))]
    Bind {
        /// The host's address and port.
        address: SocketAddr,
        /// Of which kind.
        transport: Transport,
        /// What the system said.
        source: io::Error,
        /// The container that wanted it: name and id.
        endpoint: Option<(String, String)>,
    },
    /// The agent did not answer, or says no.
    #[error(transparent)]
    Agent(#[from] CallError),
}

impl PortError {
    /// The same, with the container that wanted the port.
    pub(super) fn of(mut self, name: &str, id: &str) -> Self {
        if let Self::Allocated { endpoint, .. } | Self::Bind { endpoint, .. } = &mut self {
            *endpoint = Some((name.to_owned(), id.to_owned()));
        }
        self
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Agent(error) => error.into(),
            PortError::Invalid(message) => Self::bad_request(message),
            PortError::Allocated { .. } | PortError::Bind { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

fn prefix(endpoint: Option<&(String, String)>) -> String {
    endpoint.map_or_else(String::new, |(name, id)| {
        format!(
            "failed to set up container networking: driver failed programming external \
             connectivity on endpoint {name} ({id}): "
        )
    })
}

/// What the system said, in Docker's words, and what can be done about it.
fn reason(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            let program = std::env::current_exe().unwrap_or_else(|_| "dctl".into());
            format!(
                "permission denied: this system lets only root have ports below 1024. Publish \
                 a higher one, or allow it: `sudo sysctl net.ipv4.ip_unprivileged_port_start={}` \
                 for all programs, or `sudo setcap cap_net_bind_service=+ep {}` for dctl",
                address.port(),
                program.display()
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(port: u16, kind: io::ErrorKind) -> String {
        let error = PortError::Bind {
            address: SocketAddr::from(([0, 0, 0, 0], port)),
            transport: Transport::Tcp,
            source: kind.into(),
            endpoint: None,
        };
        error.of("web", "abc").to_string()
    }

    #[test]
    fn the_words_are_docker_s() {
        let prefix = "failed to set up container networking: driver failed programming external \
                      connectivity on endpoint web (abc): ";
        assert_eq!(
            bind(8080, io::ErrorKind::AddrInUse),
            format!("{prefix}failed to bind host port 0.0.0.0:8080/tcp: address already in use")
        );
        let allocated = PortError::Allocated {
            address: "[::]:80".parse().unwrap(),
            endpoint: None,
        };
        assert_eq!(
            allocated.of("web", "abc").to_string(),
            format!("{prefix}Bind for [::]:80 failed: port is already allocated")
        );
    }

    #[test]
    fn a_low_port_comes_with_advice() {
        let text = bind(80, io::ErrorKind::PermissionDenied);
        assert!(text.contains("ip_unprivileged_port_start=80"), "{text}");
        assert!(text.contains("setcap cap_net_bind_service=+ep /"), "{text}");
        let text = bind(8080, io::ErrorKind::PermissionDenied);
        assert!(!text.contains("sysctl"), "{text}");
    }
}
