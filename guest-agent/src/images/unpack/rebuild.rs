//! Gives a layer's archive back, byte for byte, from its recipe and its files.
//!
//! Called by the layer store when an image is saved or pushed. The recipe is this
//! agent's own, but disks fail: lengths are checked, and that the whole has the
//! layer's digest is for the caller to see.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{FILES, KEPT, RECIPE, lossy, recipe};

/// The longest path in a recipe, in bytes.
const MAX_PATH: usize = 8192;
/// How much is copied at a time.
const COPY_SIZE: usize = 128 * 1024;

/// Why an archive could not be given back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    /// The layer was unpacked by an agent that kept no recipes.
    #[error("it was unpacked by an earlier version, which did not keep what its archive needs")]
    NoRecipe,
    /// The recipe cannot be read.
    #[error("the recipe of its archive cannot be read: {0}")]
    Recipe(io::Error),
    /// A file that the recipe refers to cannot be read.
    #[error("its file {path:?} cannot be read: {source}")]
    File {
        /// Below the layer's root.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody takes the archive.
    #[error("the archive could not be passed on: {0}")]
    Output(io::Error),
}

/// The length in bytes of the archive that the layer in the directory `layer` was
/// unpacked from.
///
/// # Errors
/// [`RebuildError::NoRecipe`] when nothing is known of it, or it cannot be read.
pub(crate) fn archive_size(layer: BorrowedFd<'_>) -> Result<u64, RebuildError> {
    Ok(open_recipe(layer)?.1)
}

/// Writes the archive that the layer in the directory `layer` was unpacked from.
///
/// # Errors
/// [`RebuildError`]; what was written until then is not all of it.
pub(crate) fn rebuild(layer: BorrowedFd<'_>, output: &mut impl Write) -> Result<(), RebuildError> {
    let (file, _) = open_recipe(layer)?;
    let records = zstd::stream::read::Decoder::new(file).map_err(RebuildError::Recipe)?;
    let mut rebuilding = Rebuilding {
        records: BufReader::new(records),
        files: open(layer, FILES, OFlags::DIRECTORY)
            .map_err(|error| RebuildError::Recipe(error.into()))?,
        kept: match open(layer, KEPT, OFlags::DIRECTORY) {
            Ok(kept) => Some(kept),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(RebuildError::Recipe(error.into())),
        },
        buffer: vec![0; COPY_SIZE],
    };
    loop {
        match rebuilding.read::<1>()?[0] {
            recipe::END => return Ok(()),
            recipe::VERBATIM => rebuilding.verbatim(output)?,
            recipe::CONTENT => rebuilding.content(output)?,
            _ => return Err(damaged("it has a record of unknown kind")),
        }
    }
}

fn open_recipe(layer: BorrowedFd<'_>) -> Result<(File, u64), RebuildError> {
    let mut file = match open(layer, RECIPE, OFlags::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(RebuildError::NoRecipe),
        Err(error) => return Err(RebuildError::Recipe(error.into())),
    };
    let mut head = [0; recipe::HEAD];
    file.read_exact(&mut head).map_err(RebuildError::Recipe)?;
    let (magic, size) = head.split_at(recipe::MAGIC.len());
    if magic != recipe::MAGIC {
        return Err(damaged("it does not begin as recipes do"));
    }
    let size = size.try_into().map_err(|_| damaged("it is too short"))?;
    Ok((file, u64::from_le_bytes(size)))
}

fn open(directory: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        directory,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )
}

fn damaged(reason: &'static str) -> RebuildError {
    RebuildError::Recipe(io::Error::new(io::ErrorKind::InvalidData, reason))
}

struct Rebuilding<R> {
    records: R,
    /// The layer's root.
    files: OwnedFd,
    /// Files that the archive itself replaced, named by their inode.
    kept: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl<R: Read> Rebuilding<R> {
    fn verbatim(&mut self, output: &mut impl Write) -> Result<(), RebuildError> {
        let mut left = u32::from_le_bytes(self.read()?) as usize;
        while left > 0 {
            let piece = left.min(self.buffer.len());
            let piece = &mut self.buffer[..piece];
            self.records
                .read_exact(piece)
                .map_err(RebuildError::Recipe)?;
            output.write_all(piece).map_err(RebuildError::Output)?;
            left -= piece.len();
        }
        Ok(())
    }

    fn content(&mut self, output: &mut impl Write) -> Result<(), RebuildError> {
        let inode = u64::from_le_bytes(self.read()?);
        let length = u32::from_le_bytes(self.read()?) as usize;
        if length > MAX_PATH {
            return Err(damaged("a path in it is too long"));
        }
        let mut path = vec![0; length];
        self.records
            .read_exact(&mut path)
            .map_err(RebuildError::Recipe)?;
        let failed = |source: io::Error| RebuildError::File {
            path: lossy(&path),
            source,
        };
        let file = self
            .find(&path, inode)
            .map_err(|error| failed(error.into()))?;
        let segments = u32::from_le_bytes(self.read()?);
        for _ in 0..segments {
            let mut offset = u64::from_le_bytes(self.read()?);
            let mut left = u64::from_le_bytes(self.read()?);
            while left > 0 {
                let piece = self
                    .buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let piece = &mut self.buffer[..piece];
                file.read_exact_at(piece, offset).map_err(failed)?;
                output.write_all(piece).map_err(RebuildError::Output)?;
                offset = offset.saturating_add(piece.len() as u64);
                left -= piece.len() as u64;
            }
        }
        Ok(())
    }

    /// The file that had `path` and `inode` when it was unpacked.
    fn find(&self, path: &[u8], inode: u64) -> Result<File, Errno> {
        if let Some(kept) = &self.kept {
            match open(
                std::os::fd::AsFd::as_fd(kept),
                &inode.to_string(),
                OFlags::empty(),
            ) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        rustix::fs::openat2(
            &self.files,
            path,
            // Not to wait on what is no file.
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
        .map(File::from)
    }

    fn read<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], RebuildError> {
        let mut bytes = [0; LENGTH];
        self.records
            .read_exact(&mut bytes)
            .map_err(RebuildError::Recipe)?;
        Ok(bytes)
    }
}
