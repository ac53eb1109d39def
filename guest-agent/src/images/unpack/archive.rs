//! Reads a tar stream: POSIX (ustar, pax), GNU's and the old format.
//!
//! Header blocks are laid out by the `tar` crate and read by [`header`](super::header); walking the stream is done here
//! because every length in it has to be bounded, sparse maps have to stay maps
//! (an 8 EiB hole is not to be read as zeros), and values of extended attributes
//! may hold any byte.
//!
//! Sources: POSIX.1-2024 `pax`, "ustar Interchange Format" and "pax Extended
//! Header"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".

use std::io::{self, Read};

use rustix::fs::{Dev, FileType, Timespec};
use tar::{EntryType, Header};

use super::{
    header::{BLOCK, c_string, check_sum, device, number, owner, signed_number},
    pax::Extensions,
    sparse::{self, Segment},
};

/// The largest extended header we read, in bytes; Go's and so Docker's limit.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// Why a stream is no tar archive that can be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// Reading the stream failed.
    #[error("the archive cannot be read: {0}")]
    Stream(io::Error),
    /// It ended inside an entry.
    #[error("the archive is truncated")]
    Truncated,
    /// It breaks the format.
    #[error("the archive is damaged: {0}")]
    Malformed(&'static str),
    /// An entry is of a kind that nobody unpacks.
    #[error("the archive has an entry of unknown type {0:#04x}")]
    UnknownType(u8),
}

/// What an entry is, and where, before anybody has looked whether that is allowed.
#[derive(Debug)]
pub(in crate::images) struct Entry {
    /// Its name, byte for byte.
    pub(in crate::images) path: Vec<u8>,
    /// What it is.
    pub(in crate::images) kind: Kind,
    /// What goes with it.
    pub(super) metadata: Metadata,
}

/// The kinds of entry.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::images) enum Kind {
    /// A file of `size` bytes. Its content is read with
    /// [`Archive::read_content`]: all of it, or only the `segments`' bytes when the
    /// rest is holes.
    File {
        size: u64,
        segments: Option<Vec<Segment>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink { target: Vec<u8> },
    /// One more name of a file of the same archive.
    HardLink { target: Vec<u8> },
    /// A character or block device or a FIFO.
    Node { kind: FileType, device: Dev },
}

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    pub(super) modified: Time,
    /// Names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A point in time: Unix seconds, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

impl From<Time> for Timespec {
    fn from(time: Time) -> Self {
        Self {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
        }
    }
}

/// A tar stream.
pub(in crate::images) struct Archive<R> {
    stream: R,
    /// Bytes of the current entry's content that were not read yet.
    content: u64,
    /// Bytes of padding after it.
    padding: u64,
    finished: bool,
    /// Whether the blocks came that mark its end.
    has_end: bool,
}

impl<R: Read> Archive<R> {
    /// The archive that `stream` carries from here on.
    pub(in crate::images) fn new(stream: R) -> Self {
        Self {
            stream,
            content: 0,
            padding: 0,
            finished: false,
            has_end: false,
        }
    }

    /// Whether its end is marked. Of one that is not, some may be missing.
    pub(super) fn has_end(&self) -> bool {
        self.has_end
    }

    /// What the archive is read from.
    pub(super) fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// What the archive was read from, for what follows its end.
    pub(in crate::images) fn into_stream(self) -> R {
        self.stream
    }

    /// The next entry; what the last one's content has left is skipped.
    pub(in crate::images) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip(self.content)?;
            self.skip_padding()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size)?;
            match header.entry_type() {
                EntryType::XHeader => {
                    extensions = Extensions::parse(&self.extension(size)?)?;
                }
                EntryType::XGlobalHeader => self.set_content(size),
                EntryType::GNULongName => long_name = Some(c_string(self.extension(size)?)),
                EntryType::GNULongLink => long_link = Some(c_string(self.extension(size)?)),
                _ => {
                    return self
                        .entry(&header, extensions, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    /// Reads some of the current entry's content, never more than is left of it;
    /// an end of the stream inside it is an error, so the result is not zero
    /// unless `buffer` is empty or nothing is left.
    pub(in crate::images) fn read_content(
        &mut self,
        buffer: &mut [u8],
    ) -> Result<usize, ArchiveError> {
        let want = buffer
            .len()
            .min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if want == 0 {
            return if buffer.is_empty() {
                Ok(0)
            } else {
                Err(ArchiveError::Malformed("a file is longer than its content"))
            };
        }
        let got = read_some(&mut self.stream, &mut buffer[..want])?;
        if got == 0 {
            return Err(ArchiveError::Truncated);
        }
        self.content -= got as u64;
        Ok(got)
    }

    fn entry(
        &mut self,
        header: &Header,
        extensions: Extensions,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, ArchiveError> {
        let old = header.as_old();
        let size = match extensions.size {
            Some(size) => size,
            None => number(&old.size)?,
        };
        let path = extensions
            .sparse
            .name
            .clone()
            .or(extensions.path)
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = || {
            extensions
                .link_path
                .or(long_link)
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .filter(|target| !target.is_empty())
                .ok_or(ArchiveError::Malformed("a link has no target"))
        };
        let metadata = Metadata {
            uid: owner(match extensions.uid {
                Some(uid) => uid,
                None => number(&old.uid)?,
            })?,
            gid: owner(match extensions.gid {
                Some(gid) => gid,
                None => number(&old.gid)?,
            })?,
            mode: (number(&old.mode)? & 0o7777) as u32,
            modified: match extensions.modified {
                Some(time) => time,
                None => Time {
                    seconds: signed_number(&old.mtime)?,
                    nanoseconds: 0,
                },
            },
            xattrs: extensions.xattrs,
        };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => {
                // How the old format spells a directory.
                self.set_content(size);
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous => {
                self.set_content(size);
                match extensions.sparse.map {
                    sparse::Map::None => Kind::File {
                        size,
                        segments: None,
                    },
                    map => self.sparse_file(map, extensions.sparse.real_size)?,
                }
            }
            EntryType::GNUSparse => self.gnu_sparse_file(header, size)?,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target: target()? },
            EntryType::Link => Kind::HardLink { target: target()? },
            EntryType::Fifo => Kind::Node {
                kind: FileType::Fifo,
                device: 0,
            },
            EntryType::Char => Kind::Node {
                kind: FileType::CharacterDevice,
                device: device(header)?,
            },
            EntryType::Block => Kind::Node {
                kind: FileType::BlockDevice,
                device: device(header)?,
            },
            other => return Err(ArchiveError::UnknownType(other.as_byte())),
        };
        Ok(Entry {
            path,
            kind,
            metadata,
        })
    }

    /// A sparse file in one of pax's ways; the content is set already.
    fn sparse_file(
        &mut self,
        map: sparse::Map,
        real_size: Option<u64>,
    ) -> Result<Kind, ArchiveError> {
        let segments = match map {
            sparse::Map::InContent => sparse::read_map(|block| {
                let mut have = 0;
                while have < block.len() {
                    have += self.read_content(&mut block[have..])?;
                }
                Ok(())
            })?,
            sparse::Map::InHeader(segments) => segments,
            sparse::Map::None => Vec::new(),
        };
        let size = real_size.ok_or(ArchiveError::Malformed("a sparse file has no size"))?;
        sparse::check(&segments, size, self.content)?;
        Ok(Kind::File {
            size,
            segments: Some(segments),
        })
    }

    /// A sparse file in GNU's old way: the map is in the header and in blocks
    /// between it and the content.
    fn gnu_sparse_file(&mut self, header: &Header, stored: u64) -> Result<Kind, ArchiveError> {
        let gnu = header.as_gnu().ok_or(ArchiveError::Malformed(
            "a sparse file in an archive that is not GNU's",
        ))?;
        let mut segments = Vec::new();
        for field in &gnu.sparse {
            sparse::push(&mut segments, field)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            read_whole(&mut self.stream, block.as_mut_bytes())?;
            for field in &block.sparse {
                sparse::push(&mut segments, field)?;
            }
            more = block.is_extended();
        }
        let size = number(&gnu.realsize)?;
        self.set_content(stored);
        sparse::check(&segments, size, stored)?;
        Ok(Kind::File {
            size,
            segments: Some(segments),
        })
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        if self.finished {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let first = read_some(&mut self.stream, block)?;
        if first == 0 {
            // No end-of-archive blocks; readers everywhere put up with it.
            self.finished = true;
            return Ok(None);
        }
        read_whole(&mut self.stream, &mut block[first..])?;
        if block.iter().all(|byte| *byte == 0) {
            self.finished = true;
            self.has_end = true;
            return Ok(None);
        }
        check_sum(block)?;
        Ok(Some(header))
    }

    /// The content of an extension header, whole.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::Malformed(
                "an extended header is larger than 1 MiB",
            ));
        }
        self.set_content(size);
        let mut bytes = Vec::new();
        (&mut self.stream)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(ArchiveError::Stream)?;
        if (bytes.len() as u64) < size {
            return Err(ArchiveError::Truncated);
        }
        self.content = 0;
        Ok(bytes)
    }

    fn set_content(&mut self, size: u64) {
        let block = BLOCK as u64;
        self.content = size;
        self.padding = (block - size % block) % block;
    }

    fn skip_padding(&mut self) -> Result<(), ArchiveError> {
        self.content = self.padding;
        self.padding = 0;
        self.skip(self.content)
    }

    fn skip(&mut self, length: u64) -> Result<(), ArchiveError> {
        let skipped = io::copy(&mut (&mut self.stream).take(length), &mut io::sink())
            .map_err(ArchiveError::Stream)?;
        self.content = 0;
        if skipped < length {
            return Err(ArchiveError::Truncated);
        }
        Ok(())
    }
}

fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
    loop {
        match stream.read(buffer) {
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Stream(error)),
        }
    }
}

fn read_whole(stream: &mut impl Read, buffer: &mut [u8]) -> Result<(), ArchiveError> {
    let mut have = 0;
    while have < buffer.len() {
        match read_some(stream, &mut buffer[have..])? {
            0 => return Err(ArchiveError::Truncated),
            got => have += got,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_may_end_without_its_last_blocks_but_not_inside_an_entry() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(600);
        header.set_cksum();
        builder
            .append_data(&mut header, "file", &[7_u8; 600][..])
            .unwrap();
        let whole = builder.into_inner().unwrap();
        let read = |bytes: &[u8]| -> Result<u64, ArchiveError> {
            let mut archive = Archive::new(bytes);
            let mut total = 0;
            while let Some(entry) = archive.next_entry()? {
                let Kind::File { size, .. } = entry.kind else {
                    unreachable!()
                };
                let mut left = size;
                while left > 0 {
                    let mut buffer = [0; 100];
                    let want = buffer.len().min(left as usize);
                    left -= archive.read_content(&mut buffer[..want])? as u64;
                }
                total += size;
            }
            Ok(total)
        };
        assert_eq!(read(&whole).unwrap(), 600);
        assert_eq!(read(&whole[..512 + 1024]).unwrap(), 600);
        for end in [1, 511, 513, 1111, 1500] {
            assert!(
                matches!(read(&whole[..end]), Err(ArchiveError::Truncated)),
                "{end}"
            );
        }
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(matches!(read(&damaged), Err(ArchiveError::Malformed(_))));
    }

    #[test]
    fn an_extended_header_over_the_limit_is_refused_unread() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 33);
        header.set_cksum();
        let stream = header.as_bytes().chain(io::repeat(b'x'));
        let error = Archive::new(stream).next_entry().unwrap_err();
        assert!(matches!(error, ArchiveError::Malformed(_)), "{error}");
    }
}
