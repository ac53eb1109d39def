//! Writes a tree of files as an archive.
//!
//! In the order of names, so that the same tree gives the same bytes. What vanishes
//! or changes while it is read does no harm: a file that shrinks is filled up with
//! zeros, and one that grows is cut.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use guest_protocol::{AgentError, ErrorKind};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

pub(crate) use super::contents::Contents;
use super::header::{BLOCK, Header, Kind};

/// How much of a file is read at a time.
const COPY: usize = 128 * 1024;
/// The most runs of data of one sparse file; what has more is written whole.
const MOST_SEGMENTS: usize = 64 * 1024;
/// The largest extended attribute that Linux has, and the longest list of names.
const XATTR_SIZE: usize = 64 * 1024;
/// Where OverlayFS keeps what it means for itself, and how it spells such an
/// attribute that belongs to the user.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";
const ESCAPED_OVERLAY_XATTRS: &[u8] = b"trusted.overlay.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Name and value of an extended attribute.
type Xattr = (Vec<u8>, Vec<u8>);

/// Why a tree was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Whoever takes the archive does not any more.
    #[error("the archive cannot be written: {0}")]
    Output(io::Error),
    /// Something in the tree cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Tree {
        /// What, as the archive names it.
        path: String,
        /// What the kernel said.
        source: Errno,
    },
}

impl From<WriteError> for AgentError {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Output(_) => ErrorKind::Unavailable,
            WriteError::Tree { .. } => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// Writes all that `directory` holds, and itself first, as the archive's `name`.
/// Without a name the entries' paths are relative, and `directory` is `./`.
///
/// # Errors
/// [`WriteError`].
pub(crate) fn write_tree(
    output: impl Write,
    directory: &OwnedFd,
    name: &[u8],
    contents: &Contents,
) -> Result<(), WriteError> {
    let mut writer = Writer::new(output, contents);
    let stat = rustix::fs::fstat(directory).map_err(|source| failed(name, source))?;
    // A layer says nothing of its root unless the container changed it.
    if !contents.upper || is_changed_root(&stat) {
        let path = match name {
            b"" => b"./".to_vec(),
            b"/" => b"/".to_vec(),
            name => [name, b"/"].concat(),
        };
        writer.directory(directory.as_fd(), &path, &stat)?;
    }
    let prefix = match name {
        b"" => Vec::new(),
        b"/" => b"/".to_vec(),
        name => [name, b"/"].concat(),
    };
    writer.walk(directory, prefix)?;
    writer.finish()
}

/// Writes the one thing `name` in `directory`, which is no directory, as the
/// archive's `path`.
///
/// # Errors
/// [`WriteError`].
pub(crate) fn write_one(
    output: impl Write,
    directory: &OwnedFd,
    name: &[u8],
    path: &[u8],
    contents: &Contents,
) -> Result<(), WriteError> {
    let mut writer = Writer::new(output, contents);
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|source| failed(path, source))?;
    writer.entry(directory.as_fd(), name, path, &stat)?;
    writer.finish()
}

/// The root of an upper directory is made with these.
fn is_changed_root(stat: &Stat) -> bool {
    (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0)
}

struct Writer<'a, W> {
    output: W,
    contents: &'a Contents,
    /// First names of files that have several, by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// A directory being walked.
struct Level {
    directory: OwnedFd,
    /// Names still to come.
    names: std::vec::IntoIter<Vec<u8>>,
    /// How long the path of the directory is, with its slash.
    prefix: usize,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(output: W, contents: &'a Contents) -> Self {
        Self {
            output,
            contents,
            names: HashMap::new(),
            buffer: vec![0; COPY],
        }
    }

    /// Writes what is below `root`; paths begin with `path`.
    fn walk(&mut self, root: &OwnedFd, mut path: Vec<u8>) -> Result<(), WriteError> {
        let base = path.len();
        let open = |source| failed(b"/", source);
        // What is only a place in the tree cannot be read.
        let directory = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(open)?;
        let top = rustix::fs::fstat(&directory).map_err(open)?.st_dev;
        let mut levels = vec![Level {
            names: names(&directory).map_err(open)?,
            directory,
            prefix: base,
        }];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.prefix);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            path.extend_from_slice(&name);
            let directory = level.directory.as_fd();
            let stat = match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone since its name was read.
                Err(Errno::NOENT) => continue,
                Err(source) => return Err(failed(&path, source)),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if !self.is_left_out(&path[base..], &stat) {
                    self.entry(directory, &name, &path, &stat)?;
                }
                continue;
            }
            let child = match rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(source) => return Err(failed(&path, source)),
            };
            // What a kernel makes up as it is read is no content, and ends in the middle.
            let below = if stat.st_dev != top && is_made_up(&child) {
                Vec::new().into_iter()
            } else {
                names(&child).map_err(|source| failed(&path, source))?
            };
            if below.len() == 0 && self.is_mount_point(&path[base..]) {
                continue;
            }
            path.push(b'/');
            self.directory(child.as_fd(), &path, &stat)?;
            levels.push(Level {
                directory: child,
                names: below,
                prefix: path.len(),
            });
        }
        Ok(())
    }

    fn is_mount_point(&self, path: &[u8]) -> bool {
        self.contents
            .mount_points
            .iter()
            .any(|mount_point| mount_point == path)
    }

    /// Whether a file is only there to be mounted on.
    fn is_left_out(&self, path: &[u8], stat: &Stat) -> bool {
        stat.st_size == 0
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && self.is_mount_point(path)
    }

    /// A directory, whose path ends in a slash.
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), WriteError> {
        let xattrs = self.xattrs(directory, b".", path)?;
        let opaque = self.contents.upper
            && xattrs
                .iter()
                .any(|(name, value)| name == OPAQUE && value == b"y");
        let mut header = self.header(path, Kind::Directory, stat);
        header.records = self.records(xattrs);
        self.write(&header.encode())?;
        if opaque {
            let path = [path, b".wh..wh..opq"].concat();
            self.whiteout(&path)?;
        }
        Ok(())
    }

    /// Something that is no directory.
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), WriteError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.contents.upper && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let at = path.len() - name.len();
            let path = [&path[..at], b".wh.", name].concat();
            return self.whiteout(&path);
        }
        if stat.st_nlink > 1 {
            let first = self.names.entry((stat.st_dev, stat.st_ino));
            match first {
                std::collections::hash_map::Entry::Occupied(first) => {
                    let target = first.get().clone();
                    let mut header = self.header(path, Kind::HardLink, stat);
                    header.link = &target;
                    return self.write(&header.encode());
                }
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(path.to_vec());
                }
            }
        }
        let node = match kind {
            FileType::RegularFile => return self.file(directory, name, path),
            FileType::Symlink => {
                let target = match rustix::fs::readlinkat(directory, name, Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    Err(source) => return Err(failed(path, source)),
                };
                let xattrs = self.xattrs(directory, name, path)?;
                let mut header = self.header(path, Kind::Symlink, stat);
                header.link = &target;
                header.records = self.records(xattrs);
                return self.write(&header.encode());
            }
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            // Sockets are nothing without their listener, and tar has no word for them.
            _ => return Ok(()),
        };
        let xattrs = self.xattrs(directory, name, path)?;
        let mut header = self.header(path, node, stat);
        header.device = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        header.records = self.records(xattrs);
        self.write(&header.encode())
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), WriteError> {
        let header = Header {
            path,
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            modified: (0, 0),
            link: b"",
            device: (0, 0),
            records: Vec::new(),
        };
        self.write(&header.encode())
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), WriteError> {
        // Not blocking: something else may have come in its place.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            Err(source) => return Err(failed(path, source)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|source| failed(path, source))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let xattrs = self.xattrs(directory, name, path)?;
        let mut header = self.header(path, Kind::File, &stat);
        header.size = size;
        header.records = self.records(xattrs);
        let segments = if self.contents.sparse && has_holes(&stat) {
            segments(&file, size)
        } else {
            None
        };
        let Some(segments) = segments else {
            self.write(&header.encode())?;
            self.content(&file, path, 0, size)?;
            return self.pad(size);
        };
        // GNU's format 1.0: the map before the content, in whole blocks.
        let mut map = format!("{}\n", segments.len());
        for (offset, length) in &segments {
            // Writing to a string cannot fail.
            let _ = writeln!(map, "{offset}\n{length}");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let stored: u64 = segments.iter().map(|(_, length)| length).sum();
        header.size = map.len() as u64 + stored;
        let record = |keyword: &[u8], value: &[u8]| (keyword.to_vec(), value.to_vec());
        header.records.extend([
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.name", path),
            record(b"GNU.sparse.realsize", size.to_string().as_bytes()),
        ]);
        self.write(&header.encode())?;
        self.write(&map)?;
        for (offset, length) in segments {
            self.content(&file, path, offset, length)?;
        }
        self.pad(stored)
    }

    /// Writes `length` bytes of a file; zeros for what is not there any more.
    fn content(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        mut offset: u64,
        mut length: u64,
    ) -> Result<(), WriteError> {
        let mut ended = false;
        while length > 0 {
            let want = COPY.min(usize::try_from(length).unwrap_or(COPY));
            let mut got = 0;
            if !ended {
                got = match rustix::io::pread(file, &mut self.buffer[..want], offset) {
                    Ok(got) => got,
                    Err(Errno::INTR) => continue,
                    Err(source) => return Err(failed(path, source)),
                };
                ended = got == 0;
            }
            if got == 0 {
                self.buffer[..want].fill(0);
                got = want;
            }
            self.output
                .write_all(&self.buffer[..got])
                .map_err(WriteError::Output)?;
            offset = offset.saturating_add(got as u64);
            length -= got as u64;
        }
        Ok(())
    }

    /// Fills the last block of `size` bytes of content.
    fn pad(&mut self, size: u64) -> Result<(), WriteError> {
        let used = (size % BLOCK as u64) as usize;
        if used == 0 {
            return Ok(());
        }
        self.write(&[0; BLOCK][used..])
    }

    fn finish(mut self) -> Result<(), WriteError> {
        self.write(&[0; 2 * BLOCK])?;
        self.output.flush().map_err(WriteError::Output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.output.write_all(bytes).map_err(WriteError::Output)
    }

    #[allow(
        clippy::unnecessary_cast,
        reason = "the fields' types differ by architecture"
    )]
    fn header<'b>(&self, path: &'b [u8], kind: Kind, stat: &Stat) -> Header<'b> {
        let nanoseconds = if self.contents.nanoseconds {
            stat.st_mtime_nsec as u32
        } else {
            0
        };
        Header {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: self.contents.id(stat.st_uid),
            gid: self.contents.id(stat.st_gid),
            size: 0,
            modified: (stat.st_mtime as i64, nanoseconds),
            link: b"",
            device: (0, 0),
            records: Vec::new(),
        }
    }

    /// Extended attributes of `name` in `directory`, as they are there.
    fn xattrs(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<Vec<Xattr>, WriteError> {
        // There is no call that takes a directory and a name before Linux 6.13.
        let mut at = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        at.extend_from_slice(name);
        let mut list = vec![0; XATTR_SIZE];
        let length = match rustix::fs::llistxattr(at.as_slice(), &mut list) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
            Err(source) => return Err(failed(path, source)),
        };
        let mut xattrs = Vec::new();
        for name in list[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty() && self.carries(name))
        {
            let mut value = vec![0; XATTR_SIZE];
            match rustix::fs::lgetxattr(at.as_slice(), name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    xattrs.push((name.to_vec(), value));
                }
                Err(Errno::NODATA | Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(source) => return Err(failed(path, source)),
            }
        }
        xattrs.sort();
        Ok(xattrs)
    }

    fn carries(&self, name: &[u8]) -> bool {
        name == b"security.capability"
            || name.starts_with(b"user.")
            || (self.contents.all_xattrs && name != b"security.selinux")
    }

    /// Records for extended attributes; OverlayFS's own are not the files'.
    fn records(&self, xattrs: Vec<Xattr>) -> Vec<(Vec<u8>, Vec<u8>)> {
        xattrs
            .into_iter()
            .filter_map(|(name, value)| {
                let name = match name.strip_prefix(ESCAPED_OVERLAY_XATTRS) {
                    Some(rest) if self.contents.upper => [OVERLAY_XATTRS, rest].concat(),
                    _ if self.contents.upper && name.starts_with(OVERLAY_XATTRS) => return None,
                    _ => name,
                };
                Some(([b"SCHILY.xattr.", name.as_slice()].concat(), value))
            })
            .collect()
    }
}

/// The names in a directory, in order.
fn names(directory: &OwnedFd) -> Result<std::vec::IntoIter<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names.into_iter())
}

/// Whether a file takes less of the disk than it is long.
/// Whether a directory is of procfs, sysfs or cgroupfs (`linux/magic.h`).
fn is_made_up(directory: &OwnedFd) -> bool {
    const MAGICS: [u64; 4] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x0027_e0eb];
    rustix::fs::fstatfs(directory).is_ok_and(|stat| MAGICS.contains(&(stat.f_type as u64)))
}

fn has_holes(stat: &Stat) -> bool {
    stat.st_blocks.saturating_mul(512) < stat.st_size
}

/// The runs of data in a file, offset and length; `None` when it is better written
/// whole. The last is empty and at the file's end, as GNU tar has it.
fn segments(file: &OwnedFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        if data >= size {
            break;
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).ok()?.min(size);
        if hole <= data || segments.len() == MOST_SEGMENTS {
            return None;
        }
        segments.push((data, hole - data));
        at = hole;
    }
    segments.push((size, 0));
    Some(segments)
}

fn failed(path: &[u8], source: Errno) -> WriteError {
    // Names come from outside: keep messages short enough to read.
    const SHOWN: usize = 200;
    WriteError::Tree {
        path: String::from_utf8_lossy(&path[..path.len().min(SHOWN)]).into_owned(),
        source,
    }
}
