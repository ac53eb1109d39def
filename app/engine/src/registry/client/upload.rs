//! Sending: blobs, by upload or by mounting what another repository has, and
//! manifests.
//!
//! Source: OCI distribution-spec 1.1, "Push".

use bytes::Bytes;
use reqwest::{
    Body, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};

use super::{Client, Patience};
use crate::registry::{RegistryError, error::innermost};

const BINARY: &str = "application/octet-stream";

/// What became of the wish to have a blob in a repository.
pub(crate) enum Upload {
    /// It is there: the registry took it from the other repository.
    Mounted,
    /// Its bytes are to be sent.
    Started(Location),
}

/// Where an upload goes on.
pub(crate) struct Location(Url);

impl Client {
    /// The length of a blob that is in the repository, in bytes; `None` when it is
    /// not.
    pub(crate) async fn has_blob(&self, digest: &str) -> Result<Option<u64>, RegistryError> {
        let what = format!("blob {digest}");
        let url = self.url(&format!("blobs/{digest}"))?;
        let request = || self.shared.http.head(url.clone());
        let response = self.send(&what, Patience::FirstContact, request).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(
                response
                    .headers()
                    .get(CONTENT_LENGTH)
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .unwrap_or(0),
            )),
            _ => Err(self.refusal(response, &what).await),
        }
    }

    /// Begins an upload. With `mount`, a digest and another repository of the same
    /// registry, the registry may take the blob from there.
    pub(crate) async fn begin_upload(
        &self,
        mount: Option<(&str, &str)>,
    ) -> Result<Upload, RegistryError> {
        let what = "the beginning of an upload";
        let mut url = self.url("blobs/uploads/")?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", digest)
                .append_pair("from", from);
        }
        let request = || self.shared.http.post(url.clone()).header(CONTENT_LENGTH, 0);
        let response = self.send(what, Patience::Known, request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Upload::Mounted),
            StatusCode::ACCEPTED => Ok(Upload::Started(self.location(&response)?)),
            _ => Err(self.refusal(response, what).await),
        }
    }

    /// Sends a blob's bytes as they come. What was sent counts only when the upload
    /// [is completed](Self::complete_upload).
    pub(crate) async fn upload(
        &self,
        location: Location,
        body: Body,
    ) -> Result<Location, RegistryError> {
        let request = self
            .shared
            .uploads
            .patch(location.0)
            .header(CONTENT_TYPE, BINARY)
            .body(body);
        let response = self.send_once(request, "an upload").await?;
        self.location(&response)
    }

    /// Ends an upload: what was sent has this digest.
    pub(crate) async fn complete_upload(
        &self,
        location: Location,
        digest: &str,
        rest: Bytes,
    ) -> Result<(), RegistryError> {
        let what = "the end of an upload";
        let mut url = location.0;
        url.query_pairs_mut().append_pair("digest", digest);
        let request = || {
            self.shared
                .uploads
                .put(url.clone())
                .header(CONTENT_TYPE, BINARY)
                .body(rest.clone())
        };
        if url.origin() != self.shared.base.origin() {
            return self.send_once(request(), what).await.map(drop);
        }
        // The token may have expired while the blob was on its way.
        let response = self.send(what, Patience::Known, request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refusal(response, what).await)
    }

    /// Sends a small blob, unless it is there.
    pub(crate) async fn put_blob(&self, digest: &str, bytes: Bytes) -> Result<(), RegistryError> {
        if self.has_blob(digest).await?.is_some() {
            return Ok(());
        }
        match self.begin_upload(None).await? {
            Upload::Mounted => Ok(()),
            Upload::Started(location) => self.complete_upload(location, digest, bytes).await,
        }
    }

    /// Puts a manifest under a tag.
    pub(crate) async fn put_manifest(
        &self,
        version: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let what = format!("manifest {version}");
        let url = self.url(&format!("manifests/{version}"))?;
        let request = || {
            self.shared
                .http
                .put(url.clone())
                .header(CONTENT_TYPE, media_type)
                .body(bytes.clone())
        };
        let response = self.send(&what, Patience::Known, request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refusal(response, &what).await)
    }

    /// Sends what cannot be sent twice, authenticated as the last request was.
    async fn send_once(
        &self,
        request: RequestBuilder,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let (client, request) = request.build_split();
        let mut request = request.map_err(|error| self.unreachable(&error))?;
        // Uploads may go on at another server, which our credentials do not concern.
        if request.url().origin() == self.shared.base.origin()
            && let Some(authorization) = self.authorization()
        {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let response =
            client
                .execute(request)
                .await
                .map_err(|error| RegistryError::Interrupted {
                    what: what.to_owned(),
                    host: self.host().to_owned(),
                    reason: innermost(&error),
                })?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, what).await)
    }

    fn location(&self, response: &Response) -> Result<Location, RegistryError> {
        let unsupported = |reason: String| {
            RegistryError::Unsupported(format!("registry {}: {reason}", self.host()))
        };
        let text = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| unsupported("it does not say where an upload goes".to_owned()))?;
        let url = response
            .url()
            .join(text)
            .map_err(|error| unsupported(format!("{text}: {error}")))?;
        let local = self.shared.base.scheme() == "http";
        if url.scheme() == "https" || (local && url.scheme() == "http") {
            Ok(Location(url))
        } else {
            Err(unsupported("uploads would not be encrypted".to_owned()))
        }
    }
}
