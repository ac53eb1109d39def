//! Taking the compression off a stream, by streaming decoders whose memory is bounded
//! whatever the stream says.
//!
//! Layers ([`super::import`]) and archives of images ([`super::archive`]) come
//! through here. What a stream is compressed with is told by its first bytes, as in
//! Docker: media types of layers are often wrong, and for some formats there are none.

use std::io::{self, BufRead, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB,
/// what `zstd --ultra -22` writes and other decoders take.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What decoding xz may take, in KiB: `xz -9` writes for 65 MiB, and nothing that is
/// in use needs more than twice that.
const XZ_MEMORY_MAX: u32 = 128 * 1024;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// How many bytes tell which it is.
    const MAGIC: usize = 10;

    /// What something is compressed with that begins with `head`; if that has fewer
    /// than [`MAGIC`](Self::MAGIC) bytes, it is all there is.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            // A frame, or one that decoders skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // The name of a tar's first file can begin as its header does, so the
            // first block counts, too, or the end of an empty stream.
            [
                b'B',
                b'Z',
                b'h',
                b'1'..=b'9',
                0x31,
                0x41,
                0x59,
                0x26,
                0x53,
                0x59,
                ..,
            ]
            | [
                b'B',
                b'Z',
                b'h',
                b'1'..=b'9',
                0x17,
                0x72,
                0x45,
                0x38,
                0x50,
                0x90,
                ..,
            ] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// What is in `stream`, which may be compressed.
///
/// # Errors
/// When its first bytes cannot be read, or no decoder can be made. Damage shows when it
/// is read.
pub(super) fn decompressed(
    mut stream: impl BufRead + Send + 'static,
) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::with_capacity(Compression::MAGIC);
    (&mut stream)
        .take(Compression::MAGIC as u64)
        .read_to_end(&mut head)?;
    let compression = Compression::of(&head);
    let stream = Cursor::new(head).chain(stream);
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(MultiGzDecoder::new(stream)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Xz => Box::new(XzReader::new_mem_limit(stream, true, XZ_MEMORY_MAX)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(stream)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &'static [u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompressed(stream)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// "text\n", by `xz` and by `bzip2`.
    const XZ: &[u8] =
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\
        \x74\x2f\xe5\xa3\x01\x00\x04\x74\x65\x78\x74\x0a\x00\x00\x00\x00\x1d\x2b\xd2\x8a\
        \xaf\x19\x4c\xcd\x00\x01\x1d\x05\xb8\x2d\x80\xaf\x1f\xb6\xf3\x7d\x01\x00\x00\x00\
        \x00\x04\x59\x5a";
    const BZIP2: &[u8] =
        b"\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xc0\x6f\xe0\x65\x00\x00\x01\xc1\x80\x00\
        \x10\x02\x00\x04\x40\x20\x00\x21\x8c\x83\x34\xd0\x88\xf1\x77\x24\x53\x85\x09\x0c\
        \x06\xfe\x06\x50";

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        for (head, compression) in [
            (&[0x1f, 0x8b, 8][..], Compression::Gzip),
            (&[0x1f, 0x8b, 0], Compression::None),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0, 0], Compression::Zstd),
            (&[0x5e, 0x2a, 0x4d, 0x18, 0, 0], Compression::Zstd),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\xfd7zXZ", Compression::None),
            (b"BZh91AY&SY", Compression::Bzip2),
            (b"BZh9\x17\x72\x45\x38\x50\x90", Compression::Bzip2),
            (b"BZh9/file\0", Compression::None),
            (b"etc/pa", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::of(head), compression, "{head:?}");
        }
    }

    #[test]
    fn what_is_not_compressed_stays_as_it_is() {
        for stream in [&b""[..], b"BZ", b"a name\0and more"] {
            assert_eq!(read(stream).unwrap(), stream);
        }
    }

    #[test]
    fn xz_and_bzip2_are_taken_off() {
        for (stream, compression) in [(XZ, Compression::Xz), (BZIP2, Compression::Bzip2)] {
            assert_eq!(Compression::of(stream), compression);
            assert_eq!(read(stream).unwrap(), b"text\n");
            let twice: &'static [u8] = [stream, stream].concat().leak();
            assert_eq!(read(twice).unwrap(), b"text\ntext\n");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for (stream, compression) in [(XZ, Compression::Xz), (BZIP2, Compression::Bzip2)] {
            let cut: &'static [u8] = &stream[..stream.len() - 3];
            assert!(read(cut).is_err(), "{compression:?}");
            let mut changed = stream.to_vec();
            changed[stream.len() / 2] ^= 0x10;
            assert!(read(changed.leak()).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn an_xz_stream_that_wants_much_memory_is_refused() {
        // The dictionary's size is in the block's header, behind the filter's id.
        let mut stream = XZ.to_vec();
        let filter = stream.windows(2).position(|two| two == [0x21, 1]).unwrap();
        // 4 GiB, and the sum of a header of 12 bytes.
        stream[filter + 2] = 40;
        let mut sum = flate2::Crc::new();
        sum.update(&stream[12..20]);
        stream[20..24].copy_from_slice(&sum.sum().to_le_bytes());
        let error = read(stream.leak()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    }
}
