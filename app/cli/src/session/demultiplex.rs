//! Stdio without a TTY comes in frames: eight bytes of header
//! (`[stream, 0, 0, 0, length as big-endian 32]`), then the payload.

use bytes::{Buf, Bytes};

/// Which of our streams something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes frames apart as they come, however they were cut. Payload is passed on
/// without being copied, and before all of its frame is there.
#[derive(Debug, Default)]
pub(crate) struct Demultiplexer {
    header: [u8; 8],
    header_length: usize,
    stream: Option<Stream>,
    remaining: usize,
}

impl Demultiplexer {
    /// The next piece of payload in `chunk`, which shrinks; `None` when there is
    /// no more in it.
    ///
    /// # Errors
    /// When it is not in frames.
    pub(crate) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<(Stream, Bytes)>, String> {
        loop {
            if chunk.is_empty() {
                return Ok(None);
            }
            if let Some(stream) = self.stream {
                if self.remaining == 0 {
                    self.stream = None;
                    continue;
                }
                let length = self.remaining.min(chunk.len());
                self.remaining -= length;
                return Ok(Some((stream, chunk.split_to(length))));
            }
            let length = (self.header.len() - self.header_length).min(chunk.len());
            self.header[self.header_length..][..length].copy_from_slice(&chunk[..length]);
            self.header_length += length;
            chunk.advance(length);
            if self.header_length == self.header.len() {
                let [kind, _, _, _, length @ ..] = self.header;
                self.header_length = 0;
                self.stream = Some(match kind {
                    0 | 1 => Stream::Stdout,
                    // 3 is an error of the engine's own, in words.
                    2 | 3 => Stream::Stderr,
                    _ => return Err(format!("a frame is for the unknown stream {kind}")),
                });
                self.remaining = u32::from_be_bytes(length) as usize;
            }
        }
    }

    /// Whether it is between two frames: the only place where a stream may end.
    pub(crate) fn is_complete(&self) -> bool {
        self.header_length == 0 && self.remaining == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn unknown_streams_are_refused() {
        let mut demultiplexer = Demultiplexer::default();
        let mut chunk = Bytes::from_static(b"text, not frames");
        assert!(demultiplexer.next(&mut chunk).is_err());
    }

    #[test]
    fn payload_is_not_copied() {
        let mut chunk = Bytes::from(frame(1, b"hello"));
        let address = chunk[8..].as_ptr();
        let (stream, payload) = Demultiplexer::default().next(&mut chunk).unwrap().unwrap();
        assert_eq!((stream, &payload[..]), (Stream::Stdout, &b"hello"[..]));
        assert_eq!(payload.as_ptr(), address);
    }

    #[test]
    fn an_end_inside_a_frame_is_noticed() {
        let whole = frame(2, b"x");
        for length in 0..=whole.len() {
            let mut demultiplexer = Demultiplexer::default();
            let mut chunk = Bytes::copy_from_slice(&whole[..length]);
            while demultiplexer.next(&mut chunk).unwrap().is_some() {}
            assert_eq!(
                demultiplexer.is_complete(),
                length == 0 || length == whole.len()
            );
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            frames in proptest::collection::vec(
                (1_u8..3, proptest::collection::vec(any::<u8>(), 0..50)),
                0..10,
            ),
            size in 1_usize..40,
        ) {
            let mut expected = [Vec::new(), Vec::new()];
            let mut bytes = Vec::new();
            for (kind, payload) in &frames {
                bytes.extend(frame(*kind, payload));
                expected[usize::from(*kind) - 1].extend_from_slice(payload);
            }
            let mut seen = [Vec::new(), Vec::new()];
            let mut demultiplexer = Demultiplexer::default();
            for chunk in bytes.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some((stream, payload)) = demultiplexer.next(&mut chunk).unwrap() {
                    seen[usize::from(stream == Stream::Stderr)].extend_from_slice(&payload);
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert!(demultiplexer.is_complete());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in any::<Vec<u8>>()) {
            let mut demultiplexer = Demultiplexer::default();
            let mut chunk = Bytes::from(bytes);
            while let Ok(Some(_)) = demultiplexer.next(&mut chunk) {}
        }
    }
}
