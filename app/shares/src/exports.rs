//! Exports: what a server gives to the guest, each under a name in the session's root.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::inodes::lock;

/// The longest name of an export, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// The most users that one export is seen by at the same time.
const MAX_VIEWS: usize = 16;

/// The export and the owner that the name of a view stands for.
fn view_of(name: &str) -> Option<(&str, Owner)> {
    let (base, owner) = name.rsplit_once('@')?;
    let (uid, gid) = owner.split_once(':')?;
    let number = |text: &str| {
        // One way to write each.
        let number = text.parse::<u32>().ok()?;
        (number.to_string() == text && number != u32::MAX).then_some(number)
    };
    let owner = Owner {
        uid: number(uid)?,
        gid: number(gid)?,
    };
    Some((base, owner))
}

/// A user and a group, as containers see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// How a folder or file is exported.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// Every change fails with EROFS.
    pub read_only: bool,
    /// Who stands for the user that runs the server: what this user owns on the host, and
    /// no container has given to somebody else, is this user's and group's inside. Set it
    /// to the user of the container that mounts the export; 0:0 by default.
    pub owner: Owner,
}

/// An export was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The name can't be that of a directory entry.
    #[error("{0:?} can't be the name of a share")]
    Name(String),
    /// There is one of this name.
    #[error("there is a share named {0:?} already")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no share named {0:?}")]
    Missing(String),
    /// Only directories and regular files can be shared.
    #[error("share {name:?}: {kind} can't be shared, only directories and regular files")]
    Kind {
        /// The export's name.
        name: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// The host refused.
    #[error("share {name:?}: {source}")]
    Host {
        /// The export's name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Opens what is to be exported. The path is the host user's: symbolic links in it are
/// followed, as Docker does for the source of a bind mount.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    // `open` would be a system call of its own on x86_64, for the sandbox to know.
    Ok(rustix::fs::openat(
        rustix::fs::CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// One exported directory or file.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) options: ExportOptions,
    /// Tells this export from others that had its name before.
    pub(crate) serial: u64,
    /// None from when it is removed: what the client still knows of it must not keep the
    /// host from unmounting it.
    root: Mutex<Option<Arc<OwnedFd>>>,
    removed: AtomicBool,
}

impl Export {
    /// The directory or file itself (`O_PATH`); ESTALE when it is removed.
    pub(crate) fn root(&self) -> Result<Arc<OwnedFd>, Errno> {
        lock(&self.root).clone().ok_or(Errno::STALE)
    }

    /// Whether it is still exported.
    pub(crate) fn is_live(&self) -> bool {
        !self.removed.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.removed.store(true, Ordering::Release);
        *lock(&self.root) = None;
    }
}

/// All exports, by name.
#[derive(Debug)]
pub(crate) struct Exports {
    by_name: RwLock<BTreeMap<String, Arc<Export>>>,
    serials: AtomicU64,
    /// Readable when exports came or went, for the watcher (an eventfd).
    changed: OwnedFd,
    unwatched: AtomicBool,
}

impl Exports {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            by_name: RwLock::default(),
            serials: AtomicU64::default(),
            changed: eventfd(0, flags)?,
            unwatched: AtomicBool::new(false),
        })
    }

    pub(crate) fn changed(&self) -> &OwnedFd {
        &self.changed
    }

    /// Whether nobody wants to hear of changes any more.
    pub(crate) fn watching_ended(&self) -> bool {
        self.unwatched.load(Ordering::Acquire)
    }

    pub(crate) fn end_watching(&self) {
        self.unwatched.store(true, Ordering::Release);
        self.tell_watcher();
    }

    fn tell_watcher(&self) {
        // It fails only when the watcher has been told more often than can be counted.
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes());
    }

    pub(crate) fn add(
        &self,
        name: &str,
        root: OwnedFd,
        options: ExportOptions,
    ) -> Result<(), ExportError> {
        let unusable = name.is_empty()
            || name.len() > NAME_MAX
            || name == "."
            || name == ".."
            || name.contains(['/', '\0', '@']);
        if unusable {
            return Err(ExportError::Name(name.to_owned()));
        }
        let stat = rustix::fs::fstat(&root).map_err(|error| ExportError::Host {
            name: name.to_owned(),
            source: error.into(),
        })?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::RegularFile => None,
            FileType::Symlink => Some("a symbolic link"),
            FileType::Fifo => Some("a FIFO"),
            FileType::Socket => Some("a socket"),
            _ => Some("a device"),
        };
        if let Some(kind) = kind {
            let name = name.to_owned();
            return Err(ExportError::Kind { name, kind });
        }
        let mut exports = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if exports.contains_key(name) {
            return Err(ExportError::Exists(name.to_owned()));
        }
        let export = Export {
            name: name.to_owned(),
            options,
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            root: Mutex::new(Some(Arc::new(root))),
            removed: AtomicBool::new(false),
        };
        exports.insert(name.to_owned(), Arc::new(export));
        drop(exports);
        self.tell_watcher();
        Ok(())
    }

    /// Takes an export out, and all that its users see of it; what the guest still knows
    /// of them is of no use from here on. Returns them.
    pub(crate) fn remove(&self, name: &str) -> Result<Vec<Arc<Export>>, ExportError> {
        let mut exports = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let export = exports
            .remove(name)
            .ok_or_else(|| ExportError::Missing(name.to_owned()))?;
        let mut removed = vec![export];
        exports.retain(|other, view| {
            let goes = view_of(other).is_some_and(|(base, _)| base == name);
            if goes {
                removed.push(Arc::clone(view));
            }
            !goes
        });
        for export in &removed {
            export.end();
        }
        drop(exports);
        self.tell_watcher();
        Ok(removed)
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<Arc<Export>> {
        let name = std::str::from_utf8(name).ok()?;
        let exports = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let found = exports.get(name).cloned();
        drop(exports);
        found.or_else(|| self.view(name))
    }

    /// An export as another user sees it who stands for the user that runs the server:
    /// `name@uid:gid`. Who that is makes no difference on the host, so the guest may say
    /// it, for the users that its containers have.
    fn view(&self, name: &str) -> Option<Arc<Export>> {
        let (base_name, owner) = view_of(name)?;
        let mut exports = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = exports.get(name) {
            return Some(Arc::clone(known));
        }
        let base = Arc::clone(exports.get(base_name)?);
        let views = exports
            .keys()
            .filter(|other| view_of(other).is_some_and(|(of, _)| of == base_name));
        if views.count() >= MAX_VIEWS {
            return None;
        }
        let view = Arc::new(Export {
            name: name.to_owned(),
            options: ExportOptions {
                owner,
                ..base.options.clone()
            },
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            root: Mutex::new(base.root().ok()),
            removed: AtomicBool::new(false),
        });
        exports.insert(name.to_owned(), Arc::clone(&view));
        drop(exports);
        self.tell_watcher();
        Some(view)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Export>> {
        let exports = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        exports.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_seen_by_several_users_and_goes_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let exports = Exports::new().unwrap();
        let root = open_root(folder.path()).unwrap();
        let options = ExportOptions {
            read_only: true,
            ..ExportOptions::default()
        };
        exports.add("x", root, options).unwrap();
        let view = exports.find(b"x@1000:50").unwrap();
        assert_eq!(view.options.owner, Owner { uid: 1000, gid: 50 });
        assert!(view.options.read_only);
        assert_eq!(exports.find(b"x@1000:50").unwrap().serial, view.serial);
        for name in [
            "y@1:1",
            "x@01:1",
            "x@1",
            "x@:",
            "x@-1:0",
            "x@4294967295:0",
            "x@1:1@2:2",
        ] {
            assert!(exports.find(name.as_bytes()).is_none(), "{name}");
        }
        let found = (0..100).filter(|uid| {
            let name = format!("x@{uid}:0");
            exports.find(name.as_bytes()).is_some()
        });
        assert_eq!(found.count(), MAX_VIEWS - 1);
        exports.remove("x").unwrap();
        assert!(!view.is_live() && view.root().is_err());
        assert!(exports.find(b"x@1000:50").is_none() && exports.all().is_empty());
    }
}
