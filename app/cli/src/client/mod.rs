//! A thin client of the Docker Engine API on a unix socket.
//!
//! One connection for each request: they cost microseconds on a unix socket, and
//! a hijacked or followed one is never in another's way. It knows HTTP and how
//! the engine reports errors, and nothing of what the calls mean; the commands
//! do.

mod call;
mod error;
mod hijack;
mod lines;

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::UnixStream,
};

pub(crate) use self::{
    call::Call,
    error::Error,
    hijack::{Hijacked, HijackedWriter},
    lines::JsonLines,
};

/// The newest version of the API that this client speaks.
pub(crate) const API_VERSION: (u32, u32) = (1, 51);

/// How much of an upload is read at a time, in bytes.
const PIECE: usize = 256 * 1024;
/// What uploads are.
const UPLOAD_TYPE: &str = "application/x-tar";

/// A request's body.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The largest reply that is read whole, in bytes.
const MAX_REPLY: usize = 256 * 1024 * 1024;

/// The largest error reply, in bytes.
const MAX_ERROR_REPLY: usize = 1024 * 1024;

/// The engine at the other end of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    version: (u32, u32),
}

impl Client {
    /// Asks the engine at `socket` whether it is there, and agrees on a version.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when nobody listens, [`Error::Lost`] when whoever
    /// does is not an engine or goes away.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Error> {
        let mut client = Self {
            socket: socket.to_owned(),
            version: API_VERSION,
        };
        let response = client
            .send_to("/_ping", &Call::head("/_ping"), None)
            .await?;
        let offered = response
            .headers()
            .get("Api-Version")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_version);
        if let Some(offered) = offered {
            client.version = offered.min(API_VERSION);
        }
        Ok(client)
    }

    /// The version agreed on, as `1.51`.
    pub(crate) fn api_version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Makes a call whose reply is JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let response = self.response(call).await?;
        let body = read_whole(response, MAX_REPLY).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Malformed {
            path: call.path().to_owned(),
            source,
        })
    }

    /// Makes a call whose reply does not matter.
    pub(crate) async fn done(&self, call: &Call) -> Result<(), Error> {
        let response = self.response(call).await?;
        read_whole(response, MAX_REPLY).await?;
        Ok(())
    }

    /// Makes a call whose reply is a stream of JSON values.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        call: &Call,
    ) -> Result<JsonLines<T>, Error> {
        Ok(JsonLines::new(
            self.response(call).await?.into_body(),
            call.path(),
        ))
    }

    /// Makes a call with all that `source` gives as its body, and whose reply is a
    /// stream of JSON values.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        call: &Call,
        source: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<JsonLines<T>, Error> {
        let response = self
            .send(call, Some((UPLOAD_TYPE, stream_of(source))))
            .await?;
        Ok(JsonLines::new(response.into_body(), call.path()))
    }

    /// Makes a call with all that `source` gives as its body, and whose reply does
    /// not matter.
    pub(crate) async fn send_archive(
        &self,
        call: &Call,
        source: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let response = self
            .send(call, Some((UPLOAD_TYPE, stream_of(source))))
            .await?;
        read_whole(response, MAX_REPLY).await?;
        Ok(())
    }

    /// Makes a call whose reply is read as it comes. Returns when its head is
    /// there.
    pub(crate) async fn response(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        self.send(call, None).await
    }

    async fn send(
        &self,
        call: &Call,
        body: Option<(&str, Body)>,
    ) -> Result<Response<Incoming>, Error> {
        let target = format!(
            "/v{}.{}{}",
            self.version.0,
            self.version.1,
            call.path_and_query()
        );
        let response = match self.send_to(&target, call, body).await {
            // It was there a moment ago.
            Err(Error::Unreachable { source, .. }) => return Err(Error::Lost(source.to_string())),
            result => result?,
        };
        succeeded(response).await
    }

    /// Makes a call after which the connection is no longer HTTP.
    pub(crate) async fn hijack(&self, call: &Call) -> Result<Hijacked, Error> {
        let response = self.response(call).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotHijacked {
                path: call.path().to_owned(),
                status: response.status().as_u16(),
            });
        }
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await?;
        Hijacked::new(upgraded, headers)
    }

    /// `body` is with its content type; without one the call's own is sent.
    async fn send_to(
        &self,
        target: &str,
        call: &Call,
        body: Option<(&str, Body)>,
    ) -> Result<Response<Incoming>, Error> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| Error::Unreachable {
                    socket: self.socket.clone(),
                    source,
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the engine ended");
            }
        });
        let mut request = Request::builder()
            .method(call.method().clone())
            .uri(target)
            .header(HOST, "dctl");
        let whole = |bytes: &[u8]| {
            Full::new(Bytes::copy_from_slice(bytes))
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        let body = match (body, call.body()) {
            (Some((content_type, body)), _) => {
                request = request.header(CONTENT_TYPE, content_type);
                body
            }
            (None, Some(body)) => {
                request = request.header(CONTENT_TYPE, "application/json");
                whole(body)
            }
            (None, None) => whole(&[]),
        };
        if call.is_upgrade() {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let request = request.body(body).map_err(|source| Error::Request {
            path: call.path().to_owned(),
            source,
        })?;
        tracing::debug!(method = %call.method(), target, "request");
        let response = sender.send_request(request).await?;
        tracing::debug!(status = %response.status(), target, "response");
        Ok(response)
    }
}

/// All that `source` gives, as a body.
fn stream_of(source: impl AsyncRead + Send + Unpin + 'static) -> Body {
    let pieces = stream::unfold(source, |mut source| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        match source.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Frame::data(piece.freeze())), source)),
            Err(error) => Some((Err(error), source)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// `1.51` as numbers.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Turns a reply that reports a failure into an [`Error`].
async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }

    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let body = read_whole(response, MAX_ERROR_REPLY).await?;
    let message = serde_json::from_slice::<Failure>(&body).map_or_else(
        |_| {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            if text.is_empty() {
                status.to_string()
            } else {
                text
            }
        },
        |failure| failure.message,
    );
    Err(Error::Refused {
        status: status.as_u16(),
        message,
    })
}

async fn read_whole(response: Response<Incoming>, limit: usize) -> Result<Bytes, Error> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err((*error).into()),
            Err(_) => Err(Error::TooLong { limit }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("1.51"), Some((1, 51)));
        assert!(parse_version("1.9") < parse_version("1.51"));
        assert_eq!(parse_version("1"), None);
        assert_eq!(parse_version("1.x"), None);
    }
}
