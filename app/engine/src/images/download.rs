//! Archives for imports, from the web.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use super::ImportError;

/// How long a server may take to answer, and between two pieces.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The bytes that are at `url`, a name without a scheme being http as in Docker.
///
/// # Errors
/// When there are none.
pub(crate) async fn download(
    url: &str,
) -> Result<impl Stream<Item = reqwest::Result<Bytes>>, ImportError> {
    let failed = |error: &dyn std::fmt::Display| {
        ImportError::Invalid(format!("cannot fetch {url}: {error}"))
    };
    // The first caller's choice stands; it is the same each time.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("dctl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(TIMEOUT)
        .read_timeout(TIMEOUT)
        .build()
        .map_err(|error| failed(&error))?;
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let response = client
        .get(full)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| failed(&error.without_url()))?;
    Ok(response.bytes_stream())
}
