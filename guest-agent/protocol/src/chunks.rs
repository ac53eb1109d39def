//! Byte streams whose end is told apart from a break: archives, mostly.
//!
//! A chunk is a big-endian 32-bit length, then that many bytes. A length of zero
//! ends the stream; what follows it on the connection, a
//! [`Reply`](crate::frame::Reply) as a rule, is the method's affair. A connection
//! that closes before that means that the sender failed: what came is not whole.
//!
//! The peer is hostile here, too: a length above [`MAX_CHUNK`] is refused, and
//! nothing is allocated for one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 1024 * 1024;

/// How much [`copy`] puts into one chunk.
const COPY: usize = 256 * 1024;

/// Writes `bytes`, in as many chunks as it takes. Nothing for none: that would
/// be the end.
///
/// # Errors
/// As the stream's.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(MAX_CHUNK) {
        stream
            .write_all(&(chunk.len() as u32).to_be_bytes())
            .await?;
        stream.write_all(chunk).await?;
    }
    Ok(())
}

/// Ends the chunks, and flushes.
///
/// # Errors
/// As the stream's.
pub async fn end<W: AsyncWrite + Unpin>(stream: &mut W) -> io::Result<()> {
    stream.write_all(&[0; 4]).await?;
    stream.flush().await
}

/// Writes all that `source` gives as chunks, without their [`end`]: whether there
/// is one depends on how the source ended. Returns how many bytes there were.
///
/// # Errors
/// As the source's and the stream's.
pub async fn copy<R, W>(source: &mut R, stream: &mut W) -> io::Result<u64>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // Room for the length before the bytes: one write for both.
    let mut buffer = vec![0; 4 + COPY];
    let mut total = 0;
    loop {
        let length = source.read(&mut buffer[4..]).await?;
        if length == 0 {
            return Ok(total);
        }
        buffer[..4].copy_from_slice(&(length as u32).to_be_bytes());
        stream.write_all(&buffer[..4 + length]).await?;
        total += length as u64;
    }
}

/// Reads the bytes in a stream of chunks, up to their end.
///
/// Takes not one byte beyond, so the stream can go on with something else. A
/// stream that closes before the end is an [`io::ErrorKind::UnexpectedEof`], a
/// chunk over the limit [`io::ErrorKind::InvalidData`].
#[derive(Debug)]
pub struct ChunkReader<R> {
    stream: R,
    header: [u8; 4],
    /// Bytes of the header that came.
    have: usize,
    /// Bytes of the chunk still to come.
    left: usize,
    ended: bool,
}

impl<R> ChunkReader<R> {
    /// The bytes of the chunks that `stream` is about to give.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            header: [0; 4],
            have: 0,
            left: 0,
            ended: false,
        }
    }

    /// Whether the end was read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The stream, for what comes after the end.
    pub fn into_inner(self) -> R {
        self.stream
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ChunkReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        while this.left == 0 {
            let mut header = ReadBuf::new(&mut this.header[this.have..]);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut header))?;
            let length = header.filled().len();
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.have += length;
            if this.have < this.header.len() {
                continue;
            }
            this.have = 0;
            this.left = u32::from_be_bytes(this.header) as usize;
            if this.left == 0 {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            if this.left > MAX_CHUNK {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a chunk of {} bytes is over the limit", this.left),
                )));
            }
        }
        let most = this.left.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let length = part.filled().len();
        if length == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.advance(length);
        this.left -= length;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #[test]
        fn bytes_survive_the_trip_and_leave_the_rest(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8)) {
            block(async {
                let mut wire = Vec::new();
                for part in &parts {
                    write(&mut wire, part).await.unwrap();
                }
                copy(&mut &b"tail"[..], &mut wire).await.unwrap();
                end(&mut wire).await.unwrap();
                wire.extend_from_slice(b"reply");
                let mut reader = ChunkReader::new(wire.as_slice());
                let mut got = Vec::new();
                reader.read_to_end(&mut got).await.unwrap();
                assert!(reader.ended());
                assert_eq!(got, [parts.concat(), b"tail".to_vec()].concat());
                assert_eq!(reader.into_inner(), b"reply");
            });
        }
    }

    #[test]
    fn a_break_is_no_end() {
        for wire in [&b"\0\0\0\x05hel"[..], b"\0\0\0", b"\0\0\0\x01a", b""] {
            let error = block(ChunkReader::new(wire).read_to_end(&mut Vec::new())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{wire:?}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused() {
        let error =
            block(ChunkReader::new(&[0xff; 8][..]).read_to_end(&mut Vec::new())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
