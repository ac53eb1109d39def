//! A layer's bytes on their way from the host to the unpacker.
//!
//! The host's stream is asynchronous, unpacking blocks: a channel of a few chunks
//! lies between them ([`channel`]). On the blocking side [`LayerStream`] takes the
//! compression off and computes the digest of what comes out.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::compression::decompressed;

/// The largest chunk in the channel, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many chunks wait in it.
const CHUNKS: usize = 4;
/// How much is decompressed at a time.
const BUFFER: usize = 128 * 1024;

/// Why a layer's stream ended before its layer did.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// Nobody wants it any more.
    #[error("the import was aborted")]
    Aborted,
    /// The bytes ended too early.
    #[error("its data ended after {got} of {expected} bytes")]
    Truncated { got: u64, expected: u64 },
    /// The compression is broken.
    #[error("its compressed data is damaged: {0}")]
    Compression(String),
}

impl StreamError {
    /// The error that a read through [`LayerStream`] ended with.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Self::Aborted) => Self::Aborted,
            Some(Self::Truncated { got, expected }) => Self::Truncated {
                got: *got,
                expected: *expected,
            },
            Some(Self::Compression(message)) => Self::Compression(message.clone()),
            None => Self::Compression(error.to_string()),
        }
    }
}

/// The asynchronous end: takes the host's bytes in. Dropping it aborts the import.
pub(super) struct Outgoing {
    sender: mpsc::Sender<Bytes>,
    expected: u64,
    aborted: Arc<AtomicBool>,
}

/// The blocking end of the channel.
pub(super) struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    got: u64,
    expected: u64,
    aborted: Arc<AtomicBool>,
}

/// A channel for `expected` bytes.
pub(super) fn channel(expected: u64) -> (Outgoing, Incoming) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let aborted = Arc::new(AtomicBool::new(false));
    let outgoing = Outgoing {
        sender,
        expected,
        aborted: Arc::clone(&aborted),
    };
    let incoming = Incoming {
        receiver,
        chunk: Bytes::new(),
        got: 0,
        expected,
        aborted,
    };
    (outgoing, incoming)
}

impl Outgoing {
    /// Passes on as many bytes of `stream` as are expected, fewer when it ends
    /// early or nobody takes them. Tells whether all were taken.
    pub(super) async fn feed<R>(mut self, stream: &mut R) -> io::Result<bool>
    where
        R: AsyncRead + Unpin + Send,
    {
        let result = self.pump(stream).await;
        // From here on an end is an end, and the other side judges it.
        self.aborted = Arc::default();
        result
    }

    async fn pump<R>(&self, stream: &mut R) -> io::Result<bool>
    where
        R: AsyncRead + Unpin + Send,
    {
        let mut stream = stream.take(self.expected);
        let mut buffer = BytesMut::new();
        while stream.limit() > 0 {
            buffer.reserve(CHUNK);
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(false);
            }
            if self.sender.send(buffer.split().freeze()).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => {
                    self.got += chunk.len() as u64;
                    self.chunk = chunk;
                }
                None if self.got == self.expected => break,
                None => {
                    return Err(io::Error::other(StreamError::Truncated {
                        got: self.got,
                        expected: self.expected,
                    }));
                }
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// A layer's tar: what comes out of the compression, hashed as it passes.
pub(super) struct LayerStream {
    stream: BufReader<Hashing<Box<dyn Read + Send>>>,
}

impl LayerStream {
    /// The tar in `incoming`, compressed or not.
    pub(super) fn new(incoming: Incoming) -> Result<Self, StreamError> {
        let aborted = Arc::clone(&incoming.aborted);
        let tar = decompressed(incoming).map_err(|error| StreamError::of(&error))?;
        Ok(Self::open(tar, aborted))
    }

    /// The tar in `blob`, which is here already, compressed or not.
    pub(super) fn local(blob: impl BufRead + Send + 'static) -> Result<Self, StreamError> {
        let tar = decompressed(blob).map_err(|error| StreamError::of(&error))?;
        Ok(Self::open(tar, Arc::default()))
    }

    /// A tar that was made here: not compressed, whatever it begins with.
    pub(super) fn plain(tar: impl Read + Send + 'static) -> Self {
        Self::open(Box::new(tar), Arc::default())
    }

    fn open(inner: Box<dyn Read + Send>, aborted: Arc<AtomicBool>) -> Self {
        let hashing = Hashing {
            inner,
            hasher: Sha256::new(),
            length: 0,
            aborted,
        };
        Self {
            stream: BufReader::with_capacity(BUFFER, hashing),
        }
    }

    /// Reads what follows the archive, to the end, and returns digest and length of it
    /// all.
    pub(super) fn finish(mut self) -> Result<(String, u64), StreamError> {
        io::copy(&mut self.stream, &mut io::sink()).map_err(|error| StreamError::of(&error))?;
        let Hashing { hasher, length, .. } = self.stream.into_inner();
        let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
        Ok((digest, length))
    }
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    /// Bytes that passed.
    length: u64,
    aborted: Arc<AtomicBool>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Here, because a stream can expand for long without taking a byte in.
        if self.aborted.load(Ordering::Relaxed) {
            return Err(io::Error::other(StreamError::Aborted));
        }
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}
