//! Archives between a connection and code that blocks.
//!
//! Packing and unpacking block and run on a thread of their own; a channel of a few
//! pieces lies between them and the connection. On the connection an archive is
//! [`chunks`], followed by a reply.

use std::{
    io::{self, BufRead, Read, Write},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use guest_protocol::{
    AgentError,
    chunks::{self, ChunkReader},
    frame::FrameError,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
    time::timeout,
};

use crate::error::{Context, Result};

/// How large a piece is, in bytes.
const PIECE: usize = 256 * 1024;
/// How many pieces wait in the channel.
const PIECES: usize = 4;
/// How long a host may stand still while somebody waits for its archive's end.
const STALLED: Duration = Duration::from_secs(10);

/// The blocking end that an archive is written to.
#[derive(Debug)]
pub(crate) struct Sink {
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

/// The blocking end that an archive is read from.
#[derive(Debug)]
pub(crate) struct Source {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    /// Whether the end came: an empty piece.
    ended: bool,
}

/// What goes from a [`Sink`] to a connection.
#[derive(Debug)]
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
}

/// A sink and what comes out of it.
pub(crate) fn channel() -> (Sink, Pieces) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let sink = Sink {
        sender,
        piece: BytesMut::new(),
    };
    (sink, Pieces { receiver })
}

impl Pieces {
    /// Sends them as chunks, and the chunks' end when the sink is gone. A host that
    /// goes away, or stands still while the archive is `in_the_way`, breaks the sink's
    /// pipe.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) async fn send<W: AsyncWrite + Unpin>(
        mut self,
        stream: &mut W,
        in_the_way: impl Fn() -> bool,
    ) -> io::Result<()> {
        while let Some(piece) = self.receiver.recv().await {
            go_on(chunks::write(stream, &piece), &in_the_way).await?;
        }
        chunks::end(stream).await
    }
}

/// Waits for a step of a host, for ever unless the archive is `in_the_way` of somebody.
async fn go_on<T>(
    step: impl Future<Output = io::Result<T>>,
    in_the_way: impl Fn() -> bool,
) -> io::Result<T> {
    tokio::pin!(step);
    loop {
        match timeout(STALLED, &mut step).await {
            Ok(done) => return done,
            Err(_) if in_the_way() => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "it stood still for {} seconds, and others wait for its end",
                        STALLED.as_secs()
                    ),
                ));
            }
            Err(_) => {}
        }
    }
}

/// Sends what `write` writes as chunks, and their end; returns what it came to. It breaks
/// off when the host stands still while the archive is `in_the_way`.
///
/// # Errors
/// The connection's.
pub(crate) async fn send<W, F>(
    stream: &mut W,
    in_the_way: impl Fn() -> bool,
    write: impl FnOnce(Sink) -> F,
) -> std::result::Result<Result<()>, FrameError>
where
    W: AsyncWrite + Unpin,
    F: Future<Output = Result<()>>,
{
    let (sink, pieces) = channel();
    let (sent, written) = tokio::join!(pieces.send(stream, in_the_way), write(sink));
    sent?;
    Ok(written)
}

/// Gives the chunks that `stream` brings to `read`, and returns what it came to. It
/// may end before the chunks do. Chunks that break off are an error of reading, and so are
/// those of a host that stands still while the archive is `in_the_way`.
pub(crate) async fn receive<R, T, F>(
    stream: &mut R,
    in_the_way: impl Fn() -> bool,
    read: impl FnOnce(Source) -> F,
) -> Result<T>
where
    R: AsyncRead + Unpin,
    F: Future<Output = Result<T>>,
{
    let (sender, receiver) = mpsc::channel(PIECES);
    let reading = read(Source {
        receiver,
        piece: Bytes::new(),
        ended: false,
    });
    let pump = async move {
        let mut chunks = ChunkReader::new(stream);
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            let read = go_on(chunks.read_buf(&mut buffer), &in_the_way).await;
            let piece = read.map(|_| buffer.split().freeze());
            let last = !matches!(&piece, Ok(piece) if !piece.is_empty());
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    };
    tokio::pin!(pump, reading);
    tokio::select! {
        biased;
        read = &mut reading => read,
        () = &mut pump => reading.await,
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the archive's thread failed")?
}

impl Sink {
    fn hand_on(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(self.piece.split().freeze())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.piece.reserve(PIECE);
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.piece.len());
        let taken = &bytes[..bytes.len().min(room)];
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE {
            self.hand_on()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

impl Source {
    /// Reads on to the end of the chunks: what follows an archive is padding.
    ///
    /// # Errors
    /// When they break off: the archive may not be whole.
    pub(crate) fn finish(&mut self) -> Result<()> {
        io::copy(self, &mut io::sink())
            .map(drop)
            .map_err(|error| broken(&error))
    }
}

/// The error of an archive that did not come whole.
fn broken(error: &io::Error) -> AgentError {
    AgentError::new(
        guest_protocol::ErrorKind::Unavailable,
        format!("the archive did not come whole: {error}"),
    )
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            self.piece = match self.receiver.blocking_recv() {
                Some(piece) => piece?,
                // Nobody waits for the result any more.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.ended = self.piece.is_empty();
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
