//! What differs between a container's root file system and its image, as `docker
//! diff` tells it.
//!
//! Found by walking the container's upper directory and looking each name up in the
//! image's layers, as OverlayFS would: whiteouts and opaque directories hide what
//! is below. Source: `Documentation/filesystems/overlayfs.rst`.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use guest_protocol::docker::{ChangeType, FilesystemChange};
use rustix::io::Errno;

use super::{
    Containers,
    mount_points::{is_made, is_parent},
};
use crate::{
    error::{Context, Result},
    images::overlay,
};

impl Containers {
    /// What differs, sorted by path.
    ///
    /// # Errors
    /// When there is no such container, or its files cannot be read.
    pub(crate) fn changes(&self, reference: &str) -> Result<Vec<FilesystemChange>> {
        let entry = self.find(reference)?;
        let image = entry.record().container.image_id.clone();
        let layers = self.shared.images.layers(&image)?;
        let upper = self.shared.paths.container(&entry.id).join("upper");
        let mut walk = Walk::default();
        match walk.root(upper, layers) {
            // Never started: there is nothing of its own yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.context("cannot compare the container with its image")?,
        }
        walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.changes)
    }
}

#[derive(Debug, Default)]
struct Walk {
    changes: Vec<FilesystemChange>,
}

/// A directory being compared. Nothing of it is open: they may be nested deeper than
/// there are descriptors or stack.
struct Level {
    upper: PathBuf,
    /// The same directory in the layers that have it, topmost first.
    lower: Vec<PathBuf>,
    /// What the container calls it.
    path: PathBuf,
    /// Names in `upper` that are still to come.
    names: std::vec::IntoIter<OsString>,
    /// Names in `lower` that it hides, unless they come.
    hidden: BTreeSet<OsString>,
    /// How many changes there were before it.
    before: usize,
    /// What it is, and what the layers have in its place; of the root nothing is told.
    itself: Option<(Metadata, Option<Metadata>)>,
}

impl Level {
    fn open(
        upper: PathBuf,
        lower: Vec<PathBuf>,
        path: PathBuf,
        before: usize,
        itself: Option<(Metadata, Option<Metadata>)>,
    ) -> io::Result<Self> {
        let hidden = if overlay::is_opaque(&upper) {
            names(&lower)?
        } else {
            BTreeSet::new()
        };
        let names = fs::read_dir(&upper)?
            .map(|item| item.map(|item| item.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            upper,
            lower,
            path,
            names: names.into_iter(),
            hidden,
            before,
            itself,
        })
    }
}

impl Walk {
    /// Compares the directory `upper` with what `lower`, the same directory in the
    /// layers that have it, topmost first, show together.
    fn root(&mut self, upper: PathBuf, lower: Vec<PathBuf>) -> io::Result<()> {
        let root = Level::open(upper, lower, PathBuf::from("/"), 0, None)?;
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.next() {
                let below = self.item(level, &name)?;
                levels.extend(below);
            } else if let Some(level) = levels.pop() {
                self.leave(level);
            }
        }
        Ok(())
    }

    /// Compares one thing in a directory. A directory is to be walked first.
    fn item(&mut self, level: &mut Level, name: &OsStr) -> io::Result<Option<Level>> {
        let (item, inside) = (level.upper.join(name), level.path.join(name));
        level.hidden.remove(name);
        let metadata = match item.symlink_metadata() {
            // Removed meanwhile, or too deep for any program to open by its path.
            Err(error) if is_out_of_reach(&error) => return Ok(None),
            metadata => metadata?,
        };
        let below = find(&level.lower, Path::new(name))?;
        if is_whiteout(&metadata) {
            if below.metadata.is_some() {
                self.note(&inside, ChangeType::_2);
            }
            return Ok(None);
        }
        if metadata.is_dir() {
            let itself = Some((metadata, below.metadata));
            let before = self.changes.len();
            return match Level::open(item, below.folders, inside, before, itself) {
                Err(error) if is_out_of_reach(&error) => Ok(None),
                level => level.map(Some),
            };
        }
        match &below.metadata {
            _ if is_made(&inside) => {}
            None => self.note(&inside, ChangeType::_1),
            Some(old) if differs(old, &metadata) => self.note(&inside, ChangeType::_0),
            Some(_) => {}
        }
        Ok(None)
    }

    /// Tells what became of a directory that was walked.
    fn leave(&mut self, level: Level) {
        for name in level.hidden {
            self.note(&level.path.join(name), ChangeType::_2);
        }
        let changed = self.changes.len() > level.before;
        let path = &level.path;
        match level.itself {
            Some((_, None)) if is_made(path) || (!changed && is_parent(path)) => {}
            Some((_, None)) => self.note(path, ChangeType::_1),
            Some((new, Some(old))) if changed || differs(&old, &new) => {
                self.note(path, ChangeType::_0);
            }
            None | Some((_, Some(_))) => {}
        }
    }

    fn note(&mut self, path: &Path, kind: ChangeType) {
        self.changes.push(FilesystemChange {
            path: path.to_string_lossy().into_owned(),
            kind,
        });
    }
}

fn is_out_of_reach(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error())
}

/// What the layers show under one name.
#[derive(Debug, Default)]
struct Found {
    metadata: Option<Metadata>,
    /// For a directory: the layers' directories of that name that are merged.
    folders: Vec<PathBuf>,
}

/// Looks `name` up in a merged directory: `layers`, topmost first.
fn find(layers: &[PathBuf], name: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for layer in layers {
        let path = layer.join(name);
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if is_whiteout(&metadata) || (!metadata.is_dir() && found.metadata.is_some()) {
            break;
        }
        let folder = metadata.is_dir();
        found.metadata.get_or_insert(metadata);
        if !folder {
            break;
        }
        let last = overlay::is_opaque(&path);
        found.folders.push(path);
        if last {
            break;
        }
    }
    Ok(found)
}

/// All names in a merged directory.
fn names(layers: &[PathBuf]) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for layer in layers {
        for item in fs::read_dir(layer)? {
            let name = item?.file_name();
            if find(layers, Path::new(&name))?.metadata.is_some() {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a file was changed, by what Docker compares. A directory's size and time
/// tell nothing of itself.
fn differs(old: &Metadata, new: &Metadata) -> bool {
    let identity = |data: &Metadata| (data.mode(), data.uid(), data.gid(), data.rdev());
    let content = |data: &Metadata| (data.size(), data.mtime(), data.mtime_nsec());
    identity(old) != identity(new) || (!new.is_dir() && content(old) != content(new))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

    use super::*;
    use crate::images::trash::Trash;

    struct Trees {
        folder: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for tree in ["top", "bottom", "upper"] {
                fs::create_dir(folder.path().join(tree)).unwrap();
            }
            Self { folder }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn file(&self, path: &str, text: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), text).unwrap();
        }

        fn whiteout(&self, path: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            let path = self.at(path);
            mknodat(
                CWD,
                path,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(0, 0),
            )
            .unwrap();
        }

        fn opaque(&self, path: &str) {
            fs::create_dir_all(self.at(path)).unwrap();
            let name = "trusted.overlay.opaque";
            setxattr(self.at(path), name, b"y", XattrFlags::empty()).unwrap();
        }

        fn changes(&self) -> Vec<String> {
            let mut walk = Walk::default();
            let lower = vec![self.at("top"), self.at("bottom")];
            walk.root(self.at("upper"), lower).unwrap();
            let mut lines: Vec<_> = walk
                .changes
                .iter()
                .map(|change| {
                    let letter = ["C", "A", "D"][change.kind as usize];
                    format!("{letter} {}", change.path)
                })
                .collect();
            lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
            lines
        }
    }

    #[test]
    fn additions_changes_and_deletions_are_told_apart() {
        let trees = Trees::new();
        trees.file("bottom/etc/passwd", "root");
        trees.file("bottom/etc/group", "root");
        trees.file("bottom/usr/bin/tool", "x");
        trees.file("upper/etc/passwd", "root and more");
        trees.whiteout("upper/etc/group");
        trees.file("upper/new/deep/file", "x");
        // Copied up without a change, with the same time.
        trees.file("upper/usr/bin/tool", "x");
        let time = fs::metadata(trees.at("bottom/usr/bin/tool"))
            .unwrap()
            .modified()
            .unwrap();
        let file = fs::File::options()
            .write(true)
            .open(trees.at("upper/usr/bin/tool"))
            .unwrap();
        file.set_modified(time).unwrap();
        // Made for what is mounted there.
        trees.file("upper/etc/resolv.conf", "");
        fs::create_dir_all(trees.at("upper/proc")).unwrap();
        fs::create_dir_all(trees.at("upper/dev/pts")).unwrap();
        assert_eq!(
            trees.changes(),
            [
                "C /etc",
                "D /etc/group",
                "C /etc/passwd",
                "A /new",
                "A /new/deep",
                "A /new/deep/file",
            ]
        );
    }

    #[test]
    fn what_the_layers_hide_is_not_there() {
        let trees = Trees::new();
        trees.file("bottom/a/hidden", "x");
        trees.file("bottom/b/hidden", "x");
        trees.opaque("top/a");
        trees.file("top/a/shown", "x");
        trees.whiteout("top/b");
        // Of the image there is `/a/shown` only.
        trees.file("upper/a/hidden", "x");
        trees.file("upper/b/hidden", "x");
        trees.whiteout("upper/c");
        assert_eq!(
            trees.changes(),
            ["C /a", "A /a/hidden", "A /b", "A /b/hidden"]
        );
    }

    #[test]
    fn a_directory_made_anew_hides_what_was_in_it() {
        let trees = Trees::new();
        trees.file("top/data/one", "x");
        trees.file("bottom/data/two", "x");
        trees.file("bottom/data/three", "old");
        trees.opaque("upper/data");
        trees.file("upper/data/three", "new one");
        assert_eq!(
            trees.changes(),
            ["C /data", "D /data/one", "C /data/three", "D /data/two"]
        );
    }

    #[test]
    fn directories_deeper_than_a_path_can_say_do_no_harm() {
        let trees = Trees::new();
        // Made from the innermost on, since no path leads there.
        let mut inner = trees.at("inner");
        fs::create_dir(&inner).unwrap();
        for depth in 0..3000 {
            let outer = trees.at(&depth.to_string());
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("d")).unwrap();
            inner = outer;
        }
        fs::rename(&inner, trees.at("upper/deep")).unwrap();
        trees.file("upper/file", "x");
        let changes = trees.changes();
        assert!(changes.len() > 1000, "{}", changes.len());
        assert!(changes.contains(&"A /deep/d/d".to_owned()));
        assert!(changes.contains(&"A /file".to_owned()));
        // Which is more than removing a temporary directory can do.
        let trash = Trash::open(&trees.at("trash")).unwrap();
        let upper = fs::File::open(trees.at("upper")).unwrap();
        trash.put(upper.as_fd(), b"deep").unwrap();
        trash.empty().unwrap();
    }
}
