//! Bytes between a connection, which is asynchronous, and code that blocks: archives
//! are written and read by the latter.
//!
//! A few pieces wait in between; who is slower holds the other up.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use guest_protocol::chunks;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
};

/// The size of a piece, in bytes.
const PIECE: usize = 256 * 1024;
/// How many wait.
const PIECES: usize = 4;

/// The end that blocking code writes to.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

/// What [`PipeWriter`] writes.
#[derive(Debug)]
pub(crate) struct Written {
    receiver: mpsc::Receiver<Bytes>,
}

/// A pipe that blocking code writes to.
pub(crate) fn writer() -> (PipeWriter, Written) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let writer = PipeWriter {
        sender,
        piece: BytesMut::with_capacity(PIECE),
    };
    (writer, Written { receiver })
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE));
        self.sender
            .blocking_send(piece.freeze())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Written {
    /// Passes all of it on as chunks, without their end.
    ///
    /// # Errors
    /// As the stream's; the writer then gets errors, too.
    pub(crate) async fn copy<W: AsyncWrite + Unpin>(mut self, stream: &mut W) -> io::Result<()> {
        while let Some(piece) = self.receiver.recv().await {
            chunks::write(stream, &piece).await?;
        }
        Ok(())
    }
}

/// The end that blocking code reads from.
#[derive(Debug)]
pub(crate) struct PipeReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

/// What feeds a [`PipeReader`].
#[derive(Debug)]
pub(crate) struct Feed {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

/// A pipe that blocking code reads from.
pub(crate) fn reader() -> (Feed, PipeReader) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let reader = PipeReader {
        receiver,
        piece: Bytes::new(),
    };
    (Feed { sender }, reader)
}

impl Feed {
    /// Passes on what `stream` gives until its end, or until nobody reads any more.
    /// The reader learns of a stream that fails.
    pub(crate) async fn copy<R: AsyncRead + Unpin>(self, stream: &mut R) {
        let mut piece = BytesMut::new();
        loop {
            piece.reserve(PIECE);
            let read = match stream.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => Ok(piece.split().freeze()),
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if self.sender.send(read).await.is_err() || failed {
                return;
            }
        }
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
