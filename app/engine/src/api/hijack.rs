//! Streams that outlive HTTP: after `101 UPGRADED` a connection carries a
//! process's stdio, and the engine only passes bytes on.
//!
//! Both ends close their directions one by one. A client that has no stdin closes
//! its own at once and still wants output; the guest's end is the end of all.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::FromRequestParts,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, UPGRADE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use guest_protocol::AGENT_PORT;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
};
use tokio_util::io::ReaderStream;

use super::version::{ApiVersion, MULTIPLEXED_TYPE};
use crate::{agent::Agent, hangup::Hangup};

/// Bytes on their way in one direction.
const BUFFER: usize = 64 * 1024;
/// How long a client may take to close its end after the guest has closed its own.
const LINGER: Duration = Duration::from_secs(5);

/// The content type of a process's stdio.
pub(super) fn stdio_type(tty: bool, version: ApiVersion) -> HeaderValue {
    HeaderValue::from_static(if tty || version < MULTIPLEXED_TYPE {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    })
}

/// What Docker calls every stream on a connection that was not asked for.
pub(super) fn raw_stream() -> HeaderValue {
    HeaderValue::from_static("application/vnd.docker.raw-stream")
}

/// The client's connection, if it asks to have it for itself.
pub(super) struct Hijack {
    upgrade: Option<OnUpgrade>,
}

impl<S: Sync> FromRequestParts<S> for Hijack {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        Ok(Self {
            upgrade: upgrade.filter(|_| parts.headers.contains_key(UPGRADE)),
        })
    }
}

impl Hijack {
    /// Joins client and guest: by an upgrade if the client asked for one, else
    /// with the request's body as input and the response's as output.
    pub(super) fn join(
        self,
        input: Body,
        guest: UnixStream,
        content_type: HeaderValue,
    ) -> Response {
        let Some(upgrade) = self.upgrade else {
            let (output, guest) = guest.into_split();
            tokio::spawn(forward_body(input, guest));
            return ([(CONTENT_TYPE, raw_stream())], stream_body(output)).into_response();
        };
        tokio::spawn(async move {
            if let Err(error) = take_over(upgrade, guest).await {
                tracing::info!(%error, "a stream ended early");
            }
        });
        upgraded(content_type)
    }
}

/// A guest's stream as a response's body: each piece as it comes.
pub(super) fn stream_body(guest: impl AsyncRead + Send + 'static) -> Body {
    Body::from_stream(ReaderStream::with_capacity(guest, BUFFER))
}

/// The same for a container's output. Where it ends because the machine did, the
/// response is cut off: the client must not take what it has for all there is.
pub(super) fn output_body(agent: Arc<Agent>, guest: impl AsyncRead + Send + 'static) -> Body {
    let end = stream::once(async move {
        let answers = agent.guest().connect(AGENT_PORT).await;
        answers.map(|_| Bytes::new()).map_err(io::Error::other)
    });
    Body::from_stream(ReaderStream::with_capacity(guest, BUFFER).chain(end))
}

fn upgraded(content_type: HeaderValue) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("tcp")),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The client's socket, and what was read of it already.
async fn client_of(upgrade: OnUpgrade) -> io::Result<(UnixStream, Bytes)> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("the connection is no unix socket"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

async fn take_over(upgrade: OnUpgrade, guest: UnixStream) -> io::Result<()> {
    let (client, early) = client_of(upgrade).await?;
    splice(client, early, guest).await
}

/// Passes bytes on in both directions until the guest has closed, or the client
/// is gone altogether.
async fn splice(client: UnixStream, early: Bytes, guest: UnixStream) -> io::Result<()> {
    let hung_up = Hangup::of(&client)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_guest, mut to_guest) = guest.into_split();
    let mut inward = pin!(async {
        let passed = async {
            to_guest.write_all(&early).await?;
            copy(&mut from_client, &mut to_guest).await?;
            to_guest.shutdown().await
        };
        if passed.await.is_err() {
            // The guest takes no more input; the client need not know.
            drain(&mut from_client).await;
        }
    });
    let mut outward = pin!(async {
        copy(&mut from_guest, &mut to_client).await?;
        to_client.shutdown().await
    });
    let mut input_open = true;
    let result = loop {
        tokio::select! {
            () = &mut inward, if input_open => input_open = false,
            result = &mut outward => break result,
            () = hung_up.wait() => break Ok(()),
        }
    };
    if input_open {
        // What the client sent before it went still counts; and a socket closed
        // with unread bytes in it would be an error to a client that is there.
        let _ = tokio::time::timeout(LINGER, inward).await;
    }
    result
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<u64> {
    tokio::io::copy_buf(&mut BufReader::with_capacity(BUFFER, from), to).await
}

/// Reads to the end, for a bounded time.
async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut nowhere = tokio::io::sink();
    let _ = tokio::io::copy(from, &mut nowhere).await;
}

/// A request's body as a process's input.
async fn forward_body(input: Body, mut guest: impl AsyncWrite + Unpin) {
    let mut pieces = input.into_data_stream();
    while let Some(Ok(piece)) = futures_util::StreamExt::next(&mut pieces).await {
        if guest.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = guest.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    struct Ends {
        client: UnixStream,
        guest: UnixStream,
        splice: tokio::task::JoinHandle<io::Result<()>>,
    }

    fn ends(early: &'static [u8]) -> Ends {
        let (client, near_client) = UnixStream::pair().unwrap();
        let (guest, near_guest) = UnixStream::pair().unwrap();
        let early = Bytes::from_static(early);
        Ends {
            client,
            guest,
            splice: tokio::spawn(splice(near_client, early, near_guest)),
        }
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future)
            .await
            .expect("in time")
    }

    #[tokio::test]
    async fn a_half_close_passes_and_output_goes_on() {
        let Ends {
            mut client,
            mut guest,
            splice,
        } = ends(b"early ");
        client.write_all(b"input").await.unwrap();
        client.shutdown().await.unwrap();
        let mut input = String::new();
        within(guest.read_to_string(&mut input)).await.unwrap();
        assert_eq!(input, "early input");
        guest.write_all(b"output").await.unwrap();
        drop(guest);
        let mut output = String::new();
        within(client.read_to_string(&mut output)).await.unwrap();
        assert_eq!(output, "output");
        drop(client);
        within(splice).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn megabytes_pass_whole_in_both_directions() {
        const SIZE: usize = 5_000_000;
        let Ends {
            client,
            guest,
            splice,
        } = ends(b"");
        let pump = |stream: UnixStream, byte: u8| async move {
            let (mut read, mut write) = stream.into_split();
            let send = async move {
                write.write_all(&vec![byte; SIZE]).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let ((), result) = tokio::join!(send, read.read_to_end(&mut received));
            result.unwrap();
            received
        };
        let (at_client, at_guest) =
            within(async { tokio::join!(pump(client, b'c'), pump(guest, b'g')) }).await;
        assert_eq!(at_client, vec![b'g'; SIZE]);
        assert_eq!(at_guest, vec![b'c'; SIZE]);
        within(splice).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_guest_s_end_ends_a_client_that_still_writes() {
        let Ends {
            mut client,
            guest,
            splice,
        } = ends(b"");
        client.write_all(b"unread input").await.unwrap();
        drop(guest);
        let mut output = String::new();
        within(client.read_to_string(&mut output)).await.unwrap();
        assert_eq!(output, "");
        drop(client);
        within(splice).await.unwrap().ok();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_noticed_though_nothing_moves() {
        let Ends {
            mut client,
            mut guest,
            splice,
        } = ends(b"");
        client.shutdown().await.unwrap();
        let mut input = Vec::new();
        within(guest.read_to_end(&mut input)).await.unwrap();
        assert!(!splice.is_finished());
        drop(client);
        within(splice).await.unwrap().unwrap();
    }
}
