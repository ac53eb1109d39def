//! Datagrams in a byte stream: a big-endian 16-bit length, then the payload. What of a
//! datagram is missing when the stream ends is dropped with it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest payload, in bytes: UDP's own limit.
pub const MAX_DATAGRAM: usize = 65_535;

/// Writes datagrams; keeps its buffer from one to the next.
#[derive(Debug)]
pub struct DatagramWriter<W> {
    stream: W,
    frame: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> DatagramWriter<W> {
    /// Datagrams into `stream`.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            frame: Vec::new(),
        }
    }

    /// Writes one. Not to be dropped half-way: the stream is of no use then.
    ///
    /// # Errors
    /// As the stream's; [`io::ErrorKind::InvalidInput`] when it is too long.
    pub async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(payload.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.frame.clear();
        self.frame.extend_from_slice(&length.to_be_bytes());
        self.frame.extend_from_slice(payload);
        self.stream.write_all(&self.frame).await
    }
}

/// Reads datagrams; keeps its buffer from one to the next.
#[derive(Debug)]
pub struct DatagramReader<R> {
    stream: R,
    payload: Vec<u8>,
}

impl<R: AsyncRead + Unpin> DatagramReader<R> {
    /// The datagrams in `stream`. It is read in small pieces: give it a buffer.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            payload: Vec::new(),
        }
    }

    /// The next one; none when the stream has ended, be it within a datagram. Not to
    /// be dropped half-way: the next call would begin in the middle.
    ///
    /// # Errors
    /// As the stream's.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let ended = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        let length = match self.stream.read_u16().await {
            Ok(length) => usize::from(length),
            Err(error) if ended(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.payload.resize(length, 0);
        match self.stream.read_exact(&mut self.payload).await {
            Ok(_) => Ok(Some(&self.payload)),
            Err(error) if ended(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_come_as_they_went(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            cut in 0_usize..100,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut bytes = Vec::new();
                let mut writer = DatagramWriter::new(&mut bytes);
                for payload in &sent {
                    writer.write(payload).await.unwrap();
                }
                let mut reader = DatagramReader::new(&bytes[..]);
                for payload in &sent {
                    assert_eq!(reader.next().await.unwrap(), Some(&payload[..]));
                }
                assert_eq!(reader.next().await.unwrap(), None);
                // One that is cut off is none.
                let whole = sent.len().saturating_sub(1);
                let length = bytes.len().saturating_sub(cut.max(1));
                let mut reader = DatagramReader::new(&bytes[..length]);
                let mut came = 0;
                while reader.next().await.unwrap().is_some() {
                    came += 1;
                }
                assert!(came <= whole);
            });
        }
    }

    #[tokio::test]
    async fn one_that_is_too_long_is_refused() {
        let mut bytes = Vec::new();
        let mut writer = DatagramWriter::new(&mut bytes);
        writer.write(&vec![1; MAX_DATAGRAM]).await.unwrap();
        assert!(writer.write(&vec![1; MAX_DATAGRAM + 1]).await.is_err());
        assert_eq!(bytes.len(), 2 + MAX_DATAGRAM);
    }
}
