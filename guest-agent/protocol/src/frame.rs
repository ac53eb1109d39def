//! Frames: a big-endian 32-bit length, then that many bytes of JSON.
//!
//! Both sides treat the peer as hostile: a length above [`MAX_FRAME`] is refused
//! before anything is allocated.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::AgentError;

/// The largest frame, in bytes. An image's configuration and manifest are the
/// biggest things that travel in one.
pub const MAX_FRAME: usize = 8 * 1024 * 1024;

/// The largest reply to a call, in bytes: lists of thousands of containers, each with its
/// whole configuration.
pub const MAX_REPLY: usize = 128 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended before a frame began.
    #[error("the connection was closed")]
    Closed,
    /// The stream failed or ended inside a frame.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The frame is longer than its kind may be.
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(usize),
    /// The frame is not the JSON that was expected.
    #[error("a frame was not understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Encodes `value` as one frame.
///
/// # Errors
/// [`FrameError::TooLong`] when its JSON is larger than [`MAX_FRAME`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, FrameError> {
    encode_within(value, MAX_FRAME)
}

fn encode_within<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len() - 4;
    if length > limit {
        return Err(FrameError::TooLong(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Decodes the JSON of one frame, its length already taken off.
///
/// # Errors
/// [`FrameError::Malformed`] when it is not a `T`.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(json)?)
}

/// Writes `value` as one frame and flushes.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Io`].
pub async fn write<W, T>(stream: &mut W, value: &T) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    T: Serialize + ?Sized,
{
    write_all(stream, &encode(value)?).await
}

/// Writes the reply to a call as one frame and flushes.
///
/// # Errors
/// [`FrameError::TooLong`] when its JSON is larger than [`MAX_REPLY`], and
/// [`FrameError::Io`].
pub async fn write_reply<W, T>(stream: &mut W, reply: &Reply<T>) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    write_all(stream, &encode_within(reply, MAX_REPLY)?).await
}

async fn write_all<W: AsyncWrite + Unpin>(stream: &mut W, frame: &[u8]) -> Result<(), FrameError> {
    stream.write_all(frame).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one frame.
///
/// Takes not one byte beyond the frame, so the stream can go on raw.
///
/// # Errors
/// Every [`FrameError`]; [`FrameError::Closed`] only when the stream ended
/// before the first byte.
pub async fn read<R, T>(stream: &mut R) -> Result<T, FrameError>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    read_within(stream, MAX_FRAME).await
}

/// Reads the reply to a call, as [`read`] does; it may be as long as [`MAX_REPLY`].
///
/// # Errors
/// As [`read`].
pub async fn read_reply<R, T>(stream: &mut R) -> Result<Reply<T>, FrameError>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    read_within(stream, MAX_REPLY).await
}

async fn read_within<R, T>(stream: &mut R, limit: usize) -> Result<T, FrameError>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match stream.read(&mut length[have..]).await? {
            0 if have == 0 => return Err(FrameError::Closed),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(FrameError::TooLong(length));
    }
    // Grown as bytes arrive: a peer that announces much and sends little costs little.
    let mut json = Vec::with_capacity(length.min(64 * 1024));
    let got = stream.take(length as u64).read_to_end(&mut json).await?;
    if got < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    decode(&json)
}

/// A reply as it travels: the value, or why there is none.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply<T> {
    /// The call did what it was asked.
    Ok(T),
    /// It did not.
    Error(AgentError),
}

impl<T> From<Result<T, AgentError>> for Reply<T> {
    fn from(result: Result<T, AgentError>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(error),
        }
    }
}

impl<T> From<Reply<T>> for Result<T, AgentError> {
    fn from(reply: Reply<T>) -> Self {
        match reply {
            Reply::Ok(value) => Ok(value),
            Reply::Error(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_the_trip_and_leaves_the_rest() {
        let mut wire = encode("hello").unwrap();
        wire.extend_from_slice(b"raw");
        let mut stream = wire.as_slice();
        assert_eq!(read::<_, String>(&mut stream).await.unwrap(), "hello");
        assert_eq!(stream, b"raw");
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused() {
        let mut stream: &[u8] = &[0xff; 8];
        let error = read::<_, String>(&mut stream).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong(_)), "{error}");
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error_and_before_one_is_closed() {
        let wire = encode("hello").unwrap();
        let error = read::<_, String>(&mut &wire[..6]).await.unwrap_err();
        assert!(matches!(error, FrameError::Io(_)), "{error}");
        let error = read::<_, String>(&mut &wire[..0]).await.unwrap_err();
        assert!(matches!(error, FrameError::Closed), "{error}");
    }
}
