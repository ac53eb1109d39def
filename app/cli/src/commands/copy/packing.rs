//! Packing files here for a container.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::local::{CAPABILITY, CAPABILITY_RECORD};
use crate::failure::Failure;

/// Whether a source is a folder.
pub(super) fn is_folder(path: &str, follow: bool) -> Result<bool, Failure> {
    let found = if follow || path.ends_with('/') || path.ends_with("/.") {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    match found {
        Ok(found) if path.ends_with('/') && !found.is_dir() => Err(Failure::new("not a directory")),
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(format!(
            "lstat {path}: no such file or directory"
        ))),
        Err(error) => Err(Failure::new(format!("lstat {path}: {error}"))),
    }
}

/// The name of a source, which may be the one of the folder that we are in.
pub(super) fn name(path: &str) -> String {
    let path = Path::new(path);
    let absolute = path.file_name().is_none().then(|| path.canonicalize().ok());
    absolute
        .flatten()
        .as_deref()
        .unwrap_or(path)
        .file_name()
        .map_or_else(
            || ".".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

/// Files here as an archive, made while it is read.
pub(super) struct Packed {
    stream: tokio::net::UnixStream,
    failure: Arc<Mutex<Option<io::Error>>>,
    count: Arc<AtomicU64>,
}

impl Packed {
    /// Packs `path` as `name`; of a folder called `.` only what is in it.
    pub(super) fn start(path: String, name: String, follow: bool) -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        std::thread::Builder::new().spawn(move || {
            if let Err(error) = pack(&writer, Path::new(&path), &name, follow) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            // Only now the reader sees the end.
            drop(writer);
        })?;
        Ok(Self {
            stream: tokio::net::UnixStream::from_std(reader)?,
            failure,
            count: Arc::default(),
        })
    }

    /// How many bytes were read.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }
}

impl AsyncRead for Packed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        let failure = match read {
            0 => self
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
            _ => None,
        };
        Poll::Ready(failure.map_or(Ok(()), Err))
    }
}

fn pack(output: &UnixStream, path: &Path, name: &str, follow: bool) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(64 * 1024, output));
    builder.follow_symlinks(false);
    let source = if follow {
        path.canonicalize()?
    } else {
        path.to_owned()
    };
    if source.is_dir() && !source.symlink_metadata()?.is_symlink()
        || path.as_os_str().as_encoded_bytes().ends_with(b"/")
    {
        pack_folder(&mut builder, &source, name)?;
    } else {
        pack_one(&mut builder, &source, Path::new(name))?;
    }
    let mut output = builder.into_inner()?;
    io::Write::flush(&mut output)
}

/// Packs a folder as `name`, and what is in it, in the order of names.
fn pack_folder<W: io::Write>(
    builder: &mut tar::Builder<W>,
    folder: &Path,
    name: &str,
) -> io::Result<()> {
    let name = PathBuf::from(name);
    builder.append_dir(&name, folder)?;
    let mut folders = vec![(folder.to_owned(), name)];
    while let Some((folder, name)) = folders.pop() {
        let mut items = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
        items.sort_by_key(fs::DirEntry::file_name);
        for item in items {
            let (path, name) = (item.path(), name.join(item.file_name()));
            let kind = item.file_type()?;
            if kind.is_dir() {
                builder.append_dir(&name, &path)?;
                folders.push((path, name));
            } else if !kind.is_socket() {
                pack_one(builder, &path, &name)?;
            }
        }
    }
    Ok(())
}

/// Packs something that is no folder, with its capabilities: the one extended
/// attribute that Docker's `cp` carries.
fn pack_one<W: io::Write>(
    builder: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    // A capability's value has 24 bytes at most.
    let mut value = [0; 64];
    if let Ok(length) = rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]) {
        let record = (CAPABILITY_RECORD, &value[..length]);
        builder.append_pax_extensions([record])?;
    }
    builder.append_path_with_name(path, name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::XattrFlags;

    use super::*;

    fn packed(path: &Path, name: &str) -> Vec<(String, usize)> {
        let (writer, mut reader) = UnixStream::pair().unwrap();
        let path = path.to_owned();
        let name = name.to_owned();
        let packing = std::thread::spawn(move || pack(&writer, &path, &name, false));
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        packing.join().unwrap().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let records = entry.pax_extensions().unwrap();
                let records = records.map_or(0, |all| {
                    all.filter(|one| one.as_ref().unwrap().key() == Ok(CAPABILITY_RECORD))
                        .count()
                });
                (entry.path().unwrap().display().to_string(), records)
            })
            .collect()
    }

    #[test]
    fn a_tree_is_packed_with_capabilities_and_without_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::write(at("b/deep/file"), "x").unwrap();
        fs::write(at("a"), "x").unwrap();
        symlink("a", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        // Version 2, cap_net_raw permitted. Only root may set it.
        let mut value = [0; 20];
        value[3] = 2;
        value[5] = 0x20;
        let set = rustix::fs::setxattr(at("a"), CAPABILITY, &value, XattrFlags::empty()).is_ok();
        let entry = |name: &str, records| (name.to_owned(), usize::from(records));
        assert_eq!(
            packed(folder.path(), "x"),
            [
                entry("x", false),
                entry("x/a", set),
                entry("x/b", false),
                entry("x/link", false),
                entry("x/b/deep", false),
                entry("x/b/deep/file", false),
            ]
        );
        assert_eq!(packed(&at("a"), "y"), [entry("y", set)]);
    }
}
