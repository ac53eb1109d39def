//! Which directories are watched, and where they are.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::exports::Export;
use crate::host::{self, Name};
use crate::inodes::FileKey;

/// What is of interest in a directory.
const INTEREST: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::EXCL_UNLINK);

/// The longest path below an export's root that is told, in bytes.
const LONGEST: usize = 4096;

/// Where a watched directory, or an exported file, is in an export.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) export: Arc<Export>,
    /// The watch of the directory it is in, and its name there; none for the root.
    above: Option<(i32, Box<[u8]>)>,
    pub(super) key: FileKey,
}

/// All watches.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: Arc<OwnedFd>,
    /// The same directory can be in several exports, and has one watch.
    places: HashMap<i32, Vec<Place>>,
    /// Watches by where they are: the export, the watch above, and the name.
    below: HashMap<(u64, i32, Box<[u8]>), i32>,
    roots: HashMap<u64, Arc<Export>>,
    most: usize,
    told: bool,
}

impl Tree {
    pub(super) fn new(inotify: Arc<OwnedFd>, most: usize) -> Self {
        Self {
            inotify,
            places: HashMap::new(),
            below: HashMap::new(),
            roots: HashMap::new(),
            most,
            told: false,
        }
    }

    /// Watches these exports and no others.
    pub(super) fn follow(&mut self, exports: &[Arc<Export>]) {
        let gone: Vec<u64> = self
            .roots
            .values()
            .filter(|export| !export.is_live())
            .map(|export| export.serial)
            .collect();
        for serial in gone {
            self.roots.remove(&serial);
            self.drop_places(|place| place.export.serial == serial);
        }
        for export in exports {
            let before = self.roots.insert(export.serial, Arc::clone(export));
            if before.is_none() {
                self.rescan(export);
            }
        }
    }

    /// Watches all directories of an export that are not watched yet.
    fn rescan(&mut self, export: &Arc<Export>) {
        if let Ok(root) = export.root() {
            self.add(export, None, root.as_fd(), &mut |_, _, _| {});
        }
    }

    /// Events were lost: directories may have come that nobody told of.
    pub(super) fn rescan_all(&mut self) {
        let exports: Vec<_> = self.roots.values().cloned().collect();
        for export in exports {
            self.rescan(&export);
        }
    }

    /// Starts to watch a directory and all below it. Calls `found` for what is in them:
    /// the directory's watch, a name, and whether it is a directory.
    pub(super) fn add(
        &mut self,
        export: &Arc<Export>,
        above: Option<(i32, Name<'_>)>,
        directory: BorrowedFd<'_>,
        found: &mut dyn FnMut(i32, &[u8], bool),
    ) {
        let above = above.map(|(watch, name)| (watch, Box::from(name.bytes())));
        // Not by recursion: a tree may be deeper than the stack.
        let Some(first) = self.add_one(export, above, directory) else {
            return;
        };
        let mut todo = vec![first];
        while let Some(watch) = todo.pop() {
            let Ok(open) = self.open(watch, export) else {
                continue;
            };
            let mut directories = Vec::new();
            let listed = list(open.as_fd(), |name, is_directory| {
                found(watch, name, is_directory);
                if is_directory {
                    directories.push(Box::<[u8]>::from(name));
                }
            });
            if listed.is_err() {
                // It went away again, or may not be read.
                continue;
            }
            for name in directories {
                let child = Name::new(&name).and_then(|name| host::child(open.as_fd(), name));
                if let Ok(child) = child
                    && let Some(added) = self.add_one(export, Some((watch, name)), child.as_fd())
                {
                    todo.push(added);
                }
            }
        }
    }

    /// Watches one directory, or file that is exported; none if it is known already or
    /// can't be watched.
    fn add_one(
        &mut self,
        export: &Arc<Export>,
        above: Option<(i32, Box<[u8]>)>,
        file: BorrowedFd<'_>,
    ) -> Option<i32> {
        if self.places.len() >= self.most {
            if !self.told {
                self.told = true;
                tracing::warn!(
                    "share {}: more than {} directories: changes on the host in some of them \
                     will not be seen by programs that watch files",
                    export.name,
                    self.most
                );
            }
            return None;
        }
        let status = host::status(file).ok()?;
        let key = FileKey::new(export, &status);
        if above.is_some() {
            // Other file systems that are mounted in the export may be endless (`/proc`).
            let root = host::status(export.root().ok()?).ok()?;
            if key.mount != root.stx_mnt_id {
                return None;
            }
        }
        let watch = match inotify::add_watch(&*self.inotify, host::proc_path(file), INTEREST) {
            Ok(watch) => watch,
            Err(error) => {
                if error == Errno::NOSPC && !self.told {
                    self.told = true;
                    tracing::warn!(
                        "share {}: the host allows no more inotify watches \
                         (fs.inotify.max_user_watches): changes in some directories will not be \
                         seen by programs that watch files",
                        export.name
                    );
                }
                return None;
            }
        };
        let places = self.places.entry(watch).or_default();
        // It is where it was, or somebody moved it here.
        let new = !places.iter().any(|place| place.key == key);
        places.retain(|place| place.key != key);
        if let Some((parent, name)) = &above {
            self.below
                .insert((export.serial, *parent, name.clone()), watch);
        }
        let export = Arc::clone(export);
        places.push(Place { export, above, key });
        new.then_some(watch)
    }

    /// A directory is not watched any more.
    pub(super) fn ended(&mut self, watch: i32) {
        for place in self.places.remove(&watch).unwrap_or_default() {
            self.forget_below(&place, watch);
        }
    }

    fn forget_below(&mut self, place: &Place, watch: i32) {
        if let Some((parent, name)) = &place.above {
            let key = (place.export.serial, *parent, name.clone());
            if self.below.get(&key) == Some(&watch) {
                self.below.remove(&key);
            }
        }
    }

    /// The places of a watched directory.
    pub(super) fn places(&self, watch: i32) -> Vec<Place> {
        self.places.get(&watch).cloned().unwrap_or_default()
    }

    /// A directory has another name, in the same export.
    pub(super) fn moved(&mut self, export: &Export, from: (i32, &[u8]), to: (i32, &[u8])) {
        let key = (export.serial, from.0, from.1.into());
        let Some(watch) = self.below.remove(&key) else {
            return;
        };
        self.below.insert((export.serial, to.0, to.1.into()), watch);
        for place in self.places.get_mut(&watch).into_iter().flatten() {
            if place.export.serial == export.serial {
                place.above = Some((to.0, to.1.into()));
            }
        }
    }

    /// A directory has left the export, with all that is in it.
    pub(super) fn left(&mut self, export: &Export, parent: i32, name: &[u8]) {
        let key = (export.serial, parent, name.into());
        let Some(first) = self.below.remove(&key) else {
            return;
        };
        let mut gone = vec![first];
        while let Some(watch) = gone.pop() {
            let serial = export.serial;
            gone.extend(
                self.below
                    .iter()
                    .filter(|((of, above, _), _)| *of == serial && *above == watch)
                    .map(|(_, below)| *below),
            );
            self.drop_places_of(watch, |place| place.export.serial == serial);
        }
    }

    fn drop_places(&mut self, which: impl Fn(&Place) -> bool) {
        let watches: Vec<i32> = self.places.keys().copied().collect();
        for watch in watches {
            self.drop_places_of(watch, &which);
        }
    }

    fn drop_places_of(&mut self, watch: i32, which: impl Fn(&Place) -> bool) {
        let Some(places) = self.places.get_mut(&watch) else {
            return;
        };
        let (gone, kept): (Vec<_>, Vec<_>) = places.drain(..).partition(which);
        let unused = kept.is_empty();
        *places = kept;
        for place in gone {
            self.forget_below(&place, watch);
        }
        if unused {
            self.places.remove(&watch);
            // It may have ended with the directory.
            let _ = inotify::remove_watch(&*self.inotify, watch);
        }
    }

    /// The path of a name in a watched directory, below the export's root. None when the
    /// directory is not there any more.
    pub(super) fn path(&self, place: &Place, name: &[u8]) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut length = name.len();
        let mut above = place.above.as_ref();
        while let Some((watch, name)) = above {
            length += name.len() + 1;
            if length > LONGEST {
                return None;
            }
            names.push(name);
            let parents = self.places.get(watch)?;
            above = parents
                .iter()
                .find(|parent| parent.export.serial == place.export.serial)?
                .above
                .as_ref();
        }
        names.reverse();
        if !name.is_empty() {
            names.push(name);
        }
        Some(names.join(&b'/'))
    }

    /// Opens a watched directory, or an exported file, by where it is now.
    fn open(&self, watch: i32, export: &Arc<Export>) -> Result<OwnedFd, Errno> {
        let places = self.places.get(&watch).ok_or(Errno::NOENT)?;
        let place = places
            .iter()
            .find(|place| place.export.serial == export.serial)
            .ok_or(Errno::NOENT)?;
        let path = self.path(place, b"").ok_or(Errno::NOENT)?;
        host::below(export.root()?.as_fd(), &path)
    }
}

/// Calls `found` with each name in a directory and whether it is a directory.
fn list(directory: BorrowedFd<'_>, mut found: impl FnMut(&[u8], bool)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(&open, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let Ok(valid) = Name::new(name) else {
            continue;
        };
        let is_directory = match entry.file_type() {
            FileType::Unknown => host::child(directory, valid)
                .and_then(host::status)
                .is_ok_and(|status| host::file_type(&status) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        found(name, is_directory);
    }
    Ok(())
}
