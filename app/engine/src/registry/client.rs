//! The HTTP client: authentication, retries, manifests.
//!
//! Plain HTTP is spoken to this host only. Proxies come from the environment,
//! root certificates from the system.

mod authentication;
mod search;
mod upload;

pub(crate) use search::{Found, search};
pub(crate) use upload::{Location, Upload};

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use guest_protocol::reference::{Reference, is_digest};
use reqwest::{
    StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Blob, Credentials, RegistryError,
    error::innermost,
    retry::{Backoff, retry_after},
};

/// The largest manifest that is read, in bytes; registries allow 4 MiB.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// The largest error or token that is read, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a registry may send nothing.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// Where Docker Hub serves its API.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Manifests that are understood, best first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A manifest or index, byte for byte.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// What it says it is; may carry parameters.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Their digest.
    pub(crate) digest: String,
}

/// A registry, seen from one repository.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    http: reqwest::Client,
    /// For uploads, during which the registry says nothing for long.
    uploads: reqwest::Client,
    base: Url,
    /// The host as users know it.
    host: String,
    reference: Reference,
    credentials: Credentials,
    /// What is asked of a token server beside what the registry names.
    scopes: Vec<String>,
    /// The `Authorization` header that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Whether a failure to connect is worth another attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// No: the user should know at once that nothing answers there.
    FirstContact,
    /// Yes: it answered a moment ago.
    Known,
}

impl Client {
    /// A client for the repository that `reference` names.
    pub(crate) fn new(
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Self, RegistryError> {
        Self::with_scopes(reference, credentials, Vec::new())
    }

    /// A client that may write to the repository, and read `sources`, other
    /// repositories of the same registry.
    pub(crate) fn for_push(
        reference: &Reference,
        credentials: Credentials,
        sources: &[String],
    ) -> Result<Self, RegistryError> {
        let own = format!("repository:{}:pull,push", reference.path());
        let others = sources
            .iter()
            .map(|source| format!("repository:{source}:pull"));
        let scopes = std::iter::once(own).chain(others).collect();
        Self::with_scopes(reference, credentials, scopes)
    }

    fn with_scopes(
        reference: &Reference,
        credentials: Credentials,
        scopes: Vec<String>,
    ) -> Result<Self, RegistryError> {
        let domain = reference.domain();
        let local = is_this_host(domain);
        let host = if domain == "docker.io" {
            DOCKER_HUB_HOST
        } else {
            domain
        };
        let scheme = if local { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| RegistryError::Unsupported(format!("registry {host}: {error}")))?;
        let client = |timeout| {
            http_client(local, timeout).map_err(|error| {
                RegistryError::Configuration(format!("HTTP client: {}", innermost(&error)))
            })
        };
        let http = client(Some(READ_TIMEOUT))?;
        let uploads = if scopes.is_empty() {
            http.clone()
        } else {
            client(None)?
        };
        Ok(Self {
            shared: Arc::new(Shared {
                http,
                uploads,
                base,
                host: domain.to_owned(),
                reference: reference.clone(),
                credentials,
                scopes,
                authorization: Mutex::new(None),
            }),
        })
    }

    /// The registry's host as users know it.
    pub(super) fn host(&self) -> &str {
        &self.shared.host
    }

    /// Whether the registry accepts the credentials (`GET /v2/`).
    pub(crate) async fn check(&self) -> Result<(), RegistryError> {
        let request = || self.shared.http.get(self.shared.base.clone());
        let response = self.send("/v2/", Patience::FirstContact, request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refusal(response, "/v2/").await)
    }

    /// A manifest or index by tag or digest, verified when it is the latter.
    pub(crate) async fn manifest(&self, version: &str) -> Result<Manifest, RegistryError> {
        let what = format!(
            "manifest {version} of {}",
            self.shared.reference.familiar_name()
        );
        let url = self.url(&format!("manifests/{version}"))?;
        let request = || {
            self.shared
                .http
                .get(url.clone())
                .header(ACCEPT, MANIFEST_TYPES)
        };
        let response = self.send(&what, Patience::FirstContact, request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &what).await);
        }
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = self.read(response, MAX_MANIFEST, &what).await?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if is_digest(version) && digest != version {
            return Err(RegistryError::Digest {
                what,
                expected: version.to_owned(),
                actual: digest,
            });
        }
        Ok(Manifest {
            media_type,
            bytes,
            digest,
        })
    }

    /// The repository's tags, of which there may be many; bounded.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let what = format!("tags of {}", self.shared.reference.familiar_name());
        let url = self.url("tags/list")?;
        let request = || self.shared.http.get(url.clone());
        let response = self.send(&what, Patience::FirstContact, request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &what).await);
        }
        let bytes = self.read(response, MAX_MANIFEST, &what).await?;
        let list: Tags = serde_json::from_slice(&bytes)
            .map_err(|error| RegistryError::Unsupported(format!("{what}: {error}")))?;
        Ok(list.tags.unwrap_or_default())
    }

    /// The same client with errors that name `reference`, of the same repository.
    pub(crate) fn for_reference(&self, reference: &Reference) -> Self {
        let shared = &self.shared;
        Self {
            shared: Arc::new(Shared {
                http: shared.http.clone(),
                uploads: shared.uploads.clone(),
                scopes: shared.scopes.clone(),
                base: shared.base.clone(),
                host: shared.host.clone(),
                reference: reference.clone(),
                credentials: shared.credentials.clone(),
                authorization: Mutex::new(self.authorization()),
            }),
        }
    }

    /// A blob that will be verified while it is read.
    pub(crate) fn blob(&self, digest: &str, size: u64) -> Result<Blob, RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::Unsupported(format!(
                "digest {digest:?} is not supported: only sha256 is"
            )));
        }
        Ok(Blob::new(self.clone(), digest.to_owned(), size))
    }

    /// Asks for a blob from `offset` on.
    pub(super) async fn get_blob(
        &self,
        digest: &str,
        offset: u64,
        patience: Patience,
    ) -> Result<reqwest::Response, RegistryError> {
        let what = format!("blob {digest}");
        let url = self.url(&format!("blobs/{digest}"))?;
        let request = || {
            let request = self.shared.http.get(url.clone());
            if offset > 0 {
                request.header(RANGE, format!("bytes={offset}-"))
            } else {
                request
            }
        };
        let response = self.send(&what, patience, request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &what).await);
        }
        Ok(response)
    }

    fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let path = format!("{}/{rest}", self.shared.reference.path());
        self.shared
            .base
            .join(&path)
            .map_err(|error| RegistryError::Unsupported(format!("{path}: {error}")))
    }

    /// Sends a request, authenticated as the registry asks, again while that may
    /// help. Any status that neither means "who are you" nor "try again" is the
    /// caller's.
    async fn send(
        &self,
        what: &str,
        patience: Patience,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, RegistryError> {
        let mut backoff = Backoff::default();
        let mut challenged = false;
        loop {
            let mut attempt = request();
            let authorization = self.authorization();
            if let Some(authorization) = &authorization {
                attempt = attempt.header(AUTHORIZATION, authorization);
            }
            let (wait, error) = match attempt.send().await {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    // Another layer's download may have renewed the token meanwhile.
                    if self.authorization() == authorization {
                        self.authenticate(response).await?;
                    }
                    continue;
                }
                Ok(response) if is_temporary(response.status()) => {
                    let wait = backoff.after_failure(retry_after(&response));
                    (wait, self.refusal(response, what).await)
                }
                Ok(response) => return Ok(response),
                Err(error) => {
                    let hopeless = error.is_redirect()
                        || error.is_builder()
                        || (error.is_connect() && patience == Patience::FirstContact);
                    let wait = if hopeless {
                        None
                    } else {
                        backoff.after_failure(None)
                    };
                    (wait, self.unreachable(&error))
                }
            };
            let Some(wait) = wait else { return Err(error) };
            tracing::info!(%what, %error, ?wait, "asking the registry again");
            tokio::time::sleep(wait).await;
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.shared
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads a whole body of at most `limit` bytes.
    async fn read(
        &self,
        mut response: reqwest::Response,
        limit: u64,
        what: &str,
    ) -> Result<Bytes, RegistryError> {
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    if bytes.len() as u64 + chunk.len() as u64 > limit {
                        return Err(RegistryError::Size {
                            what: what.to_owned(),
                            expected: limit,
                            actual: limit + 1,
                        });
                    }
                    bytes.extend_from_slice(&chunk);
                }
                Ok(None) => return Ok(bytes.into()),
                Err(error) => {
                    return Err(RegistryError::Interrupted {
                        what: what.to_owned(),
                        host: self.host().to_owned(),
                        reason: innermost(&error),
                    });
                }
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable {
            host: self.host().to_owned(),
            reason: innermost(error),
        }
    }

    /// What a status that is no success means.
    async fn refusal(&self, response: reqwest::Response, what: &str) -> RegistryError {
        let status = response.status();
        let (code, reason) = error_text(response).await;
        let reference = &self.shared.reference;
        let host = self.host().to_owned();
        match (code.as_str(), status) {
            ("NAME_UNKNOWN", _) => RegistryError::NameUnknown {
                name: reference.familiar_name(),
                reason,
            },
            ("MANIFEST_UNKNOWN", _) => RegistryError::ManifestUnknown {
                name: reference.to_string(),
                reason,
            },
            ("DENIED", _) | (_, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
                if !self.shared.scopes.is_empty() =>
            {
                RegistryError::PushDenied {
                    name: reference.familiar_name(),
                    reason,
                }
            }
            ("DENIED", _) | (_, StatusCode::FORBIDDEN) => RegistryError::Denied {
                name: reference.familiar_name(),
                reason,
            },
            // Docker Hub answers so for repositories that do not exist.
            (_, StatusCode::UNAUTHORIZED) if self.shared.credentials == Credentials::Anonymous => {
                RegistryError::Denied {
                    name: reference.familiar_name(),
                    reason,
                }
            }
            (_, StatusCode::UNAUTHORIZED) => RegistryError::Unauthorized { host, reason },
            (_, StatusCode::TOO_MANY_REQUESTS) => RegistryError::TooManyRequests { host, reason },
            (_, StatusCode::NOT_FOUND) if what.starts_with("manifest ") => {
                RegistryError::ManifestUnknown {
                    name: reference.to_string(),
                    reason,
                }
            }
            _ => RegistryError::Status {
                host,
                status: status.as_u16(),
                what: what.to_owned(),
                reason,
            },
        }
    }
}

/// A client with the system's root certificates and the environment's proxies.
/// A registry that says nothing for `read_timeout` has gone.
fn http_client(local: bool, read_timeout: Option<Duration>) -> reqwest::Result<reqwest::Client> {
    // The first caller's choice stands; it is the same each time.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() >= MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if !local && attempt.url().scheme() != "https" {
            attempt.error("it leads from https to a connection that is not encrypted")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("dctl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirects);
    if let Some(timeout) = read_timeout {
        builder = builder.read_timeout(timeout);
    }
    if local {
        builder.no_proxy().build()
    } else {
        builder.build()
    }
}

/// The first error of a registry's error document: its code, and both in
/// Docker's way of printing them.
async fn error_text(mut response: reqwest::Response) -> (String, String) {
    #[derive(Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if bytes.len() as u64 + chunk.len() as u64 > MAX_MESSAGE {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    let first = serde_json::from_slice::<Document>(&bytes)
        .ok()
        .and_then(|document| document.errors.into_iter().next());
    match first {
        Some(entry) => {
            let words = entry.code.to_lowercase().replace('_', " ");
            (
                entry.code,
                format!("{words}: {}", printable(&entry.message)),
            )
        }
        None => (
            String::new(),
            status
                .canonical_reason()
                .unwrap_or("unknown status")
                .to_lowercase(),
        ),
    }
}

/// A registry's text on one line, without control characters, not too long.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn is_temporary(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Whether a registry's host is this one, so that plain HTTP is safe.
fn is_this_host(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_host_only() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_this_host(host), "{host}");
        }
        for host in [
            "docker.io",
            "localhost.example",
            "10.0.0.1:5000",
            "[fe80::1]",
            "0.0.0.0",
        ] {
            assert!(!is_this_host(host), "{host}");
        }
    }

    #[test]
    fn a_registrys_text_stays_on_one_line() {
        assert_eq!(printable("a\nb\x1b[31mc"), "ab[31mc");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 500);
    }
}
