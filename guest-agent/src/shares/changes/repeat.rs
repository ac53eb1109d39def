//! One change, repeated: the system call that the host's user made, in the name of a
//! user that the file server knows ([`marker`]).
//!
//! Symbolic links are never followed: paths come from the host, but containers can put
//! a link where a directory was.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use caps::CapSet;
use guest_protocol::replay::{Change, ChangeKind, marker};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmod, fstat, ftruncate, mkdirat, mknodat,
    openat, openat2, renameat, unlinkat,
};

/// Repeats `change` in the file system at `root`.
pub(super) fn repeat(root: &Path, change: &Change) -> io::Result<()> {
    if change.export.is_empty() || change.export.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (folder, name) = place(root, &change.export, &change.path)?;
    match &change.kind {
        ChangeKind::Created => as_user(marker::CREATED, || {
            if change.directory {
                mkdirat(&folder, &name, Mode::from_raw_mode(0o755))
            } else {
                let mode = Mode::from_raw_mode(0o644);
                mknodat(&folder, &name, FileType::RegularFile, mode, 0)
            }
        }),
        ChangeKind::Removed if change.directory => as_user(marker::REMOVED_DIRECTORY, || {
            unlinkat(&folder, &name, AtFlags::REMOVEDIR)
        }),
        ChangeKind::Removed => as_user(marker::REMOVED_FILE, || {
            unlinkat(&folder, &name, AtFlags::empty())
        }),
        ChangeKind::Moved { to } => {
            let (new_folder, new_name) = place(root, &change.export, to)?;
            let user = if change.directory {
                marker::MOVED_DIRECTORY
            } else {
                marker::MOVED_FILE
            };
            as_user(user, || renameat(&folder, &name, &new_folder, &new_name))
        }
        ChangeKind::Modified => as_user(marker::CHANGED, || {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&folder, &name, flags, Mode::empty())?;
            // Its size now: what IN_MODIFY is told for; the close tells IN_CLOSE_WRITE.
            ftruncate(&file, fstat(&file)?.st_size.unsigned_abs())
        }),
        ChangeKind::Attributes | ChangeKind::Everything => as_user(marker::CHANGED, || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&folder, &name, flags, Mode::empty())?;
            let mode = Mode::from_raw_mode(fstat(&file)?.st_mode & 0o7777);
            chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
        }),
    }
}

/// The directory that a change is in, and the name there.
fn place(root: &Path, export: &str, path: &[u8]) -> io::Result<(OwnedFd, PathBuf)> {
    let path = Path::new(OsStr::from_bytes(path));
    // `..` would lead into the other exports.
    if path
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let whole = Path::new(export).join(path);
    let name = whole
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let parent = match whole.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty())?;
    let folder = openat2(
        root,
        parent,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    Ok((folder, PathBuf::from(name)))
}

/// Does `action` as a file system user of the calling thread's own, with all of the
/// agent's capabilities: who may do what was decided on the host.
fn as_user(user: u32, action: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
    // SAFETY: it concerns the calling thread alone.
    unsafe { libc::setfsuid(user) };
    // Those about files went with the user.
    let result = caps::read(None, CapSet::Permitted)
        .and_then(|all| caps::set(None, CapSet::Effective, &all))
        .map_err(io::Error::other)
        .and_then(|()| Ok(action()?));
    // SAFETY: as before.
    unsafe { libc::setfsuid(0) };
    result
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn change(path: &str, kind: ChangeKind) -> Change {
        Change {
            export: "share".to_owned(),
            path: path.into(),
            directory: false,
            kind,
        }
    }

    /// On an ordinary file system what is repeated happens.
    #[test]
    fn changes_are_made_in_the_name_of_their_user() {
        let root = tempfile::tempdir().unwrap();
        let share = root.path().join("share");
        fs::create_dir_all(share.join("a")).unwrap();
        let repeat = |change| repeat(root.path(), &change);
        repeat(change("a/new", ChangeKind::Created)).unwrap();
        let made = fs::metadata(share.join("a/new")).unwrap();
        assert_eq!(made.uid(), marker::CREATED);
        fs::write(share.join("a/new"), "text").unwrap();
        repeat(change("a/new", ChangeKind::Modified)).unwrap();
        repeat(change("a/new", ChangeKind::Attributes)).unwrap();
        assert_eq!(fs::read(share.join("a/new")).unwrap(), b"text");
        let to = b"moved".to_vec();
        repeat(change("a/new", ChangeKind::Moved { to })).unwrap();
        repeat(change("moved", ChangeKind::Removed)).unwrap();
        assert!(!share.join("moved").exists());
        repeat(Change {
            directory: true,
            ..change("folder", ChangeKind::Created)
        })
        .unwrap();
        assert!(share.join("folder").is_dir());
        repeat(change("", ChangeKind::Everything)).unwrap();
    }

    #[test]
    fn links_and_parents_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("share")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("share/link")).unwrap();
        for path in ["link/x", "../x", "..", "../../x"] {
            repeat(root.path(), &change(path, ChangeKind::Created)).unwrap_err();
        }
        let link = change("link", ChangeKind::Modified);
        repeat(root.path(), &link).unwrap_err();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
