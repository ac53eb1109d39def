//! The near side of `cp` from a container: unpacking a stranger's archive without being
//! led anywhere by it.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use bytes::{Buf, Bytes};
use rustix::{fs::XattrFlags, io::Errno};
use tar::EntryType;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// The extended attribute that a file's capabilities are, and what an archive calls it.
pub(super) const CAPABILITY: &str = "security.capability";
pub(super) const CAPABILITY_RECORD: &str = "SCHILY.xattr.security.capability";

/// An archive as it comes.
pub(super) struct Received {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Received {
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Where the source `name` goes that is to be copied to `path`, written as `text`.
pub(super) fn target(
    path: &Path,
    text: &str,
    name: &str,
    is_folder: bool,
) -> Result<PathBuf, Failure> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Ok(match name {
            "." | "/" | "" => path.to_owned(),
            name => path.join(name),
        }),
        Ok(_) if is_folder => Err(Failure::new("cannot copy directory")),
        Ok(_) => Ok(path.to_owned()),
        Err(_) if !is_folder && text.ends_with('/') => Err(Failure::new("no such directory")),
        Err(_) => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
                return Err(Failure::new(format!(
                    "invalid output path: directory {:?} does not exist",
                    parent.display().to_string()
                )));
            }
            Ok(path.to_owned())
        }
    }
}

/// Unpacks an archive of one thing, called `name` in it, as `target`.
pub(super) fn extract(archive: impl Read, name: &str, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let mut folders = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = place(&entry.path()?, name, target)?;
        let xattrs = xattrs(&mut entry)?;
        let kind = entry.header().entry_type();
        let there = path.symlink_metadata().ok();
        let is_there_folder = there.as_ref().is_some_and(fs::Metadata::is_dir);
        let conflict = |there: &str, new: &str| {
            io::Error::other(format!(
                "cannot overwrite {there} {:?} with {new}",
                path.display().to_string()
            ))
        };
        if kind == EntryType::Directory {
            if there.is_some() && !path.is_dir() {
                return Err(conflict("non-directory", "directory"));
            }
            if there.is_none() {
                fs::create_dir(&path)?;
            }
            folders.push((path, entry.header().mode()?));
            continue;
        }
        if is_there_folder {
            return Err(conflict("directory", "non-directory"));
        }
        if there.is_some() {
            fs::remove_file(&path)?;
        }
        let link: Option<PathBuf> = entry.link_name()?.map(std::borrow::Cow::into_owned);
        match (kind, link) {
            (EntryType::Symlink, Some(link)) => symlink(link, &path)?,
            (EntryType::Link, Some(link)) => fs::hard_link(place(&link, name, target)?, &path)?,
            (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                let mut file = fs::File::create_new(&path)?;
                io::copy(&mut entry, &mut file)?;
                let mode = entry.header().mode()? & 0o7777;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                let seconds = std::time::Duration::from_secs(entry.header().mtime()?);
                if let Some(time) = std::time::UNIX_EPOCH.checked_add(seconds) {
                    file.set_modified(time)?;
                }
                for (name, value) in xattrs {
                    match rustix::fs::fsetxattr(&file, &name, &value, XattrFlags::empty()) {
                        // As Docker does without the right to, or the place for it.
                        Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            (EntryType::Fifo, _) => make_pipe(&path, entry.header().mode()?)?,
            // Devices are the container's.
            _ => {}
        }
    }
    // Last: what could not be written could not be filled.
    for (folder, mode) in folders.into_iter().rev() {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

/// The extended attributes of an entry that mean something here.
fn xattrs(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut xattrs = Vec::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let name = record.key().unwrap_or_default();
        if let Some(name) = name.strip_prefix("SCHILY.xattr.")
            && (name == CAPABILITY || name.starts_with("user."))
        {
            xattrs.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(xattrs)
}

fn make_pipe(path: &Path, mode: u32) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}

/// Where an entry goes. No link is on the way below `target`, whatever was unpacked.
fn place(entry: &Path, name: &str, target: &Path) -> io::Result<PathBuf> {
    let refused = || {
        io::Error::other(format!(
            "the archive has an entry that leads out of it: {:?}",
            entry.display().to_string()
        ))
    };
    let mut parts = Vec::new();
    for part in entry.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refused()),
        }
    }
    let named = !matches!(name, "." | "/" | "");
    if named && parts.first().is_some_and(|first| *first == name) {
        parts.remove(0);
    } else if named {
        return Err(refused());
    }
    let mut path = target.to_owned();
    if let Some((last, folders)) = parts.split_last() {
        for folder in folders {
            path.push(folder);
            if path.symlink_metadata()?.is_symlink() {
                return Err(refused());
            }
        }
        path.push(last);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            let content = if link { "" } else { content };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn no_archive_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        for entries in [
            &[
                ("x/", EntryType::Directory, ""),
                ("x/../../evil", EntryType::Regular, "e"),
            ][..],
            &[
                ("x/", EntryType::Directory, ""),
                ("x/up", EntryType::Symlink, "../.."),
                ("x/up/evil", EntryType::Regular, "e"),
            ],
            &[
                ("x/", EntryType::Directory, ""),
                ("x/evil", EntryType::Link, "../../secret"),
            ],
            &[("other", EntryType::Regular, "e")],
        ] {
            let _ = fs::remove_dir_all(&target);
            assert!(extract(archive(entries).as_slice(), "x", &target).is_err());
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                usize::from(target.exists())
            );
        }
    }

    #[test]
    fn a_tree_is_unpacked_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("renamed");
        let bytes = archive(&[
            ("x/", EntryType::Directory, ""),
            ("x/file", EntryType::Regular, "content"),
            ("x/again", EntryType::Link, "x/file"),
            ("x/link", EntryType::Symlink, "/nowhere"),
        ]);
        extract(bytes.as_slice(), "x", &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("again")).unwrap(), "content");
        assert_eq!(
            fs::read_link(target.join("link")).unwrap(),
            Path::new("/nowhere")
        );
        // And again, over what is there.
        extract(bytes.as_slice(), "x", &target).unwrap();
    }
}
