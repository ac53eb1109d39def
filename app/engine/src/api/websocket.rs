//! `GET /containers/{id}/attach/ws`: a container's stdio over a websocket, for programs
//! in browsers. Output of both kinds comes as it is, in binary messages.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::{
        Path, State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use guest_protocol::methods::ContainerAttach;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{ApiError, Context, attach, parameters::Parameters};

/// Output in one message, in bytes.
const PIECE: usize = 32 * 1024;

/// `GET /containers/{id}/attach/ws`
pub(super) async fn attach(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let Ok(upgrade) = upgrade else {
        let body = Body::from("not websocket protocol");
        return Ok((StatusCode::BAD_REQUEST, body).into_response());
    };
    let request = ContainerAttach {
        // A websocket has both directions.
        stdin: true,
        ..attach::request(container, &parameters)
    };
    let (attached, guest) = context.agent.open(request).await?;
    Ok(upgrade.on_upgrade(move |client| async move {
        if let Err(error) = join(client, guest, attached.tty).await {
            tracing::info!(%error, "a websocket ended early");
        }
    }))
}

/// Passes bytes on in both directions until one of them ends.
async fn join(client: WebSocket, guest: UnixStream, tty: bool) -> io::Result<()> {
    let (mut to_client, mut from_client) = client.split();
    let (from_guest, mut to_guest) = guest.into_split();
    let inward = async {
        while let Some(message) = from_client.next().await {
            match message.map_err(io::Error::other)? {
                Message::Text(text) => to_guest.write_all(text.as_bytes()).await?,
                Message::Binary(bytes) => to_guest.write_all(&bytes).await?,
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
        io::Result::Ok(())
    };
    let outward = async {
        if tty {
            send(from_guest, &mut to_client).await?;
        } else {
            send_frames(from_guest, &mut to_client).await?;
        }
        let end = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        let close = to_client.send(Message::Close(Some(end)));
        close.await.map_err(io::Error::other)
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

type ToClient = SplitSink<WebSocket, Message>;

/// Sends all that comes.
async fn send(mut from: impl AsyncRead + Unpin, to: &mut ToClient) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(piece @ [_, ..]) = buffer.get(..length) else {
            return Ok(());
        };
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        to.send(message).await.map_err(io::Error::other)?;
    }
}

/// The same of what comes in frames, without their heads.
async fn send_frames(mut from: impl AsyncRead + Unpin, to: &mut ToClient) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let [_, _, _, _, length @ ..] = head;
        let content = (&mut from).take(u32::from_be_bytes(length).into());
        send(content, to).await?;
    }
}
