//! Trees of files as tar archives, both ways.
//!
//! Lives here: the writing of archives ([`header`], [`tree`]), the streams between
//! a connection and code that blocks ([`stream`]), and [`copy`], which is both ends
//! put together. What copies files out of and into containers, exports and commits
//! them, and backs volumes up comes here; unpacking is
//! [`images::unpack`](crate::images::unpack)'s, with rules for files rather than
//! layers.
//!
//! Trees are strangers': they are walked by open directories and never by path, no
//! link in them is followed, and however large they are, memory holds one directory's
//! names for each level and the files that have several names.

mod contents;
mod header;
pub(crate) mod stream;
pub(crate) mod tree;

use std::{io, os::fd::OwnedFd};

use guest_protocol::{AgentError, ErrorKind};

use self::tree::{Contents, WriteError, write_tree};
use crate::{
    error::{Context, Result},
    images::unpack::{ArchiveError, Rules, UnpackError, unpack_files},
};

/// Copies all that `source` holds into the empty folder `target`, with owners,
/// modes, times, extended attributes, links and holes; `target` itself becomes like
/// `source`.
///
/// # Errors
/// When something cannot be read or written; part of it may be copied then.
pub(crate) fn copy(source: &OwnedFd, target: OwnedFd) -> Result<()> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    std::thread::scope(|scope| {
        let written = scope.spawn(|| write_tree(writer, source, b"", &Contents::backup()));
        let unpacked = unpack_files(
            io::BufReader::with_capacity(64 * 1024, reader),
            target,
            &Rules::files(),
        );
        let written = written
            .join()
            .unwrap_or_else(|_| Err(WriteError::Output(io::Error::other("the copy panicked"))));
        match (written, unpacked) {
            // The reason is on the other side of the pipe.
            (Ok(()) | Err(WriteError::Output(_)), Err(error)) => Err(error.into()),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

impl From<UnpackError> for AgentError {
    fn from(error: UnpackError) -> Self {
        let kind = match &error {
            _ if error.is_no_space() => ErrorKind::NoSpace,
            _ if error.is_read_only() => {
                return Self::invalid("container rootfs is marked read-only");
            }
            UnpackError::Archive(ArchiveError::Stream(_)) => ErrorKind::Unavailable,
            UnpackError::Archive(_) | UnpackError::Refused { .. } | UnpackError::Kind { .. } => {
                ErrorKind::InvalidParameter
            }
            UnpackError::Disk { .. } => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests;
