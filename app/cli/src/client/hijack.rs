//! A connection that stopped being HTTP: the stdio of a container or an exec.

use std::io;

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap,
    upgrade::{Parts, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::Error;

/// How much room is made for reading, and how much is enough, in bytes.
const READ_SIZE: usize = 128 * 1024;
const ENOUGH_ROOM: usize = 32 * 1024;

/// The connection, as two directions.
#[derive(Debug)]
pub(crate) struct Hijacked {
    /// From the engine.
    pub(crate) reader: HijackedReader,
    /// To the engine.
    pub(crate) writer: HijackedWriter,
    /// What the engine said before.
    pub(crate) headers: HeaderMap,
}

impl Hijacked {
    pub(super) fn new(upgraded: Upgraded, headers: HeaderMap) -> Result<Self, Error> {
        let Parts { io, read_buf, .. } = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| Error::Lost("the stream is of an unknown kind".into()))?;
        let (reader, writer) = io.into_inner().into_split();
        Ok(Self {
            reader: HijackedReader {
                stream: reader,
                early: read_buf,
                buffer: BytesMut::new(),
            },
            writer: HijackedWriter { stream: writer },
            headers,
        })
    }
}

/// What comes from the engine.
#[derive(Debug)]
pub(crate) struct HijackedReader {
    stream: OwnedReadHalf,
    /// What came together with the head of the reply.
    early: Bytes,
    buffer: BytesMut,
}

impl HijackedReader {
    /// What there is, as soon as there is something; `None` when the engine has
    /// closed its side.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        if self.buffer.capacity() < ENOUGH_ROOM {
            self.buffer.reserve(READ_SIZE);
        }
        let length = self.stream.read_buf(&mut self.buffer).await?;
        Ok((length > 0).then(|| self.buffer.split().freeze()))
    }
}

/// What goes to the engine.
#[derive(Debug)]
pub(crate) struct HijackedWriter {
    stream: OwnedWriteHalf,
}

impl HijackedWriter {
    /// Sends all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that no more comes, and leaves the other direction open.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
