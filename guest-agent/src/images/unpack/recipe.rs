//! What a layer's archive was beyond the files that were unpacked from it: its
//! recipe, from which [`rebuild`](mod@super::rebuild) gives the archive back byte for
//! byte.
//!
//! [`Recorder`] lies between the stream and the reader of the archive. What passes
//! it is kept verbatim (headers, padding, what follows the end), except a file's
//! content, for which a reference to the unpacked file is kept. Contents that could
//! not be found again under their names stay verbatim, too.
//!
//! On disk: eight bytes of [`MAGIC`], the archive's length as a little-endian
//! 64-bit number, then a zstd stream of records, each a tag and what the tag says:
//!
//! - [`VERBATIM`]: a 32-bit length, and as many bytes of the archive.
//! - [`CONTENT`]: the file's inode, the 32-bit length of its path, the path below
//!   the layer's root, the 32-bit number of segments, and of each its offset in the
//!   file and its length, 64 bits each.
//! - [`END`]: the last one.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use rustix::io::Errno;

use super::sparse::Segment;

/// What a recipe begins with.
pub(super) const MAGIC: [u8; 8] = *b"dctl-rc1";
/// Bytes before the compressed records.
pub(super) const HEAD: usize = 16;
/// Tag of the last record.
pub(super) const END: u8 = 0;
/// Tag of bytes of the archive.
pub(super) const VERBATIM: u8 = 1;
/// Tag of a reference to an unpacked file.
pub(super) const CONTENT: u8 = 2;

/// How many verbatim bytes wait in memory before they become a record.
const PENDING: usize = 64 * 1024;
/// Headers compress well however little is tried.
const LEVEL: i32 = 3;

/// A stream that remembers what was read of it.
pub(super) struct Recorder<R> {
    stream: R,
    recipe: zstd::stream::write::Encoder<'static, File>,
    pending: Vec<u8>,
    /// Bytes that were read.
    total: u64,
    /// What is read belongs to a file that will be referred to.
    content: bool,
    /// Why the recipe could not be written.
    failure: Option<Errno>,
}

impl<R: Read> Recorder<R> {
    /// Records what is read of `stream` in the empty file `recipe`.
    pub(super) fn new(stream: R, recipe: OwnedFd) -> io::Result<Self> {
        let mut recipe = File::from(recipe);
        recipe.write_all(&[0; HEAD])?;
        Ok(Self {
            stream,
            recipe: zstd::stream::write::Encoder::new(recipe, LEVEL)?,
            pending: Vec::with_capacity(PENDING),
            total: 0,
            content: false,
            failure: None,
        })
    }

    /// From now on what is read is a file's content, which is not kept.
    pub(super) fn begin_content(&mut self) {
        self.content = true;
    }

    /// Ends what [`begin_content`](Self::begin_content) began: it can be found in
    /// the `segments` of the file `path` with this inode.
    pub(super) fn end_content(
        &mut self,
        path: &[u8],
        inode: u64,
        segments: &[Segment],
    ) -> io::Result<()> {
        self.content = false;
        self.write_pending()?;
        let length = |length: usize| {
            u32::try_from(length)
                .map(u32::to_le_bytes)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        self.recipe.write_all(&[CONTENT])?;
        self.recipe.write_all(&inode.to_le_bytes())?;
        self.recipe.write_all(&length(path.len())?)?;
        self.recipe.write_all(path)?;
        self.recipe.write_all(&length(segments.len())?)?;
        for segment in segments {
            self.recipe.write_all(&segment.offset.to_le_bytes())?;
            self.recipe.write_all(&segment.length.to_le_bytes())?;
        }
        Ok(())
    }

    /// Why a read failed, if the stream was not the reason.
    pub(super) fn failure(&self) -> Option<Errno> {
        self.failure
    }

    /// Reads the stream to its end and completes the recipe.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        self.write_pending()?;
        self.recipe.write_all(&[END])?;
        let recipe = self.recipe.finish()?;
        let mut head = [0; HEAD];
        head[..MAGIC.len()].copy_from_slice(&MAGIC);
        head[MAGIC.len()..].copy_from_slice(&self.total.to_le_bytes());
        recipe.write_all_at(&head, 0)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // At most one read more than `PENDING`, which is far below 4 GiB.
        let length = self.pending.len() as u32;
        self.recipe.write_all(&[VERBATIM])?;
        self.recipe.write_all(&length.to_le_bytes())?;
        self.recipe.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = if self.content {
            buffer.len()
        } else {
            buffer.len().min(PENDING)
        };
        let length = self.stream.read(&mut buffer[..wanted])?;
        self.total += length as u64;
        if !self.content {
            self.pending.extend_from_slice(&buffer[..length]);
            if self.pending.len() >= PENDING
                && let Err(error) = self.write_pending()
            {
                self.failure = Some(errno(&error));
                return Err(error);
            }
        }
        Ok(length)
    }
}

/// What the kernel said.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
