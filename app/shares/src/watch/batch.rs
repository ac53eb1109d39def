//! Events that came together, made into changes.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use guest_protocol::replay::{Change, ChangeKind};
use rustix::fs::inotify::ReadFlags;

use super::tree::{Place, Tree};
use crate::host::{self, Name};
use crate::inodes::device;
use crate::server::Server;

/// Events that are counted one by one. So many at once are a checkout or an
/// installation, of which it is told that everything may have changed.
const MOST: usize = 8192;

/// One event of inotify.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) watch: i32,
    pub(super) flags: ReadFlags,
    pub(super) cookie: u32,
    /// In the watched directory; empty for what is watched itself.
    pub(super) name: Box<[u8]>,
}

/// Events in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<Event>,
    /// Whether there were more.
    overflowed: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.overflowed
    }

    pub(super) fn overflow(&mut self) {
        self.overflowed = true;
    }

    pub(super) fn add(&mut self, event: Event) {
        if self.events.len() < MOST {
            self.events.push(event);
        } else {
            self.overflowed = true;
        }
    }

    /// What has changed; keeps the tree of watches up to date.
    pub(super) fn changes(self, tree: &mut Tree, server: &Server) -> Vec<Change> {
        let mut changes = Vec::new();
        let overflowed = self.overflowed;
        // Where names went that were moved away.
        let targets: HashMap<u32, (i32, Box<[u8]>)> = self
            .events
            .iter()
            .filter(|event| event.flags.contains(ReadFlags::MOVED_TO))
            .map(|event| (event.cookie, (event.watch, event.name.clone())))
            .collect();
        let mut moved = HashSet::new();
        let mut contents = HashSet::new();
        for event in &self.events {
            if event.flags.contains(ReadFlags::IGNORED) {
                tree.ended(event.watch);
                continue;
            }
            for place in tree.places(event.watch) {
                let mut work = Work {
                    tree,
                    server,
                    place: &place,
                    event,
                    changes: &mut changes,
                };
                if event.flags.contains(ReadFlags::MOVED_FROM) {
                    work.moved(targets.get(&event.cookie), &mut moved);
                } else if event.flags.contains(ReadFlags::MOVED_TO) {
                    if !moved.contains(&(event.cookie, place.export.serial)) {
                        work.created();
                    }
                } else if event.flags.contains(ReadFlags::CREATE) {
                    work.created();
                } else if event.flags.contains(ReadFlags::DELETE) {
                    work.removed();
                } else if event
                    .flags
                    .intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB)
                {
                    let modified = event.flags.contains(ReadFlags::MODIFY);
                    let key = (event.watch, &event.name, modified, place.export.serial);
                    if contents.insert(key) {
                        work.changed(modified);
                    }
                }
            }
        }
        if overflowed {
            tree.rescan_all();
            for export in server.exports.all() {
                changes.push(Change {
                    export: export.name.clone(),
                    path: Vec::new(),
                    directory: true,
                    kind: ChangeKind::Everything,
                });
            }
        }
        changes
    }
}

/// One event at one place.
struct Work<'a> {
    tree: &'a mut Tree,
    server: &'a Server,
    place: &'a Place,
    event: &'a Event,
    changes: &'a mut Vec<Change>,
}

impl Work<'_> {
    fn is_directory(&self) -> bool {
        self.event.flags.contains(ReadFlags::ISDIR)
    }

    /// Whether the guest can be watching, and does not know yet.
    fn is_news(&self, place: &Place, name: &[u8]) -> bool {
        let key = &place.key;
        self.server.inodes.knows(key) && !self.server.recent.had_name(key.device, key.number, name)
    }

    fn report(&mut self, path: Option<Vec<u8>>, kind: ChangeKind) {
        let Some(path) = path else {
            return;
        };
        self.changes.push(Change {
            export: self.place.export.name.clone(),
            path,
            directory: self.is_directory(),
            kind,
        });
    }

    fn created(&mut self) {
        let (place, name) = (self.place, &self.event.name);
        if self.is_news(place, name) {
            let path = self.tree.path(place, name);
            self.report(path, ChangeKind::Created);
        }
        if !self.is_directory() {
            return;
        }
        // What was made in it before it was watched nobody has told.
        let mut found = Vec::new();
        let path = self.tree.path(place, name);
        let root = place.export.root();
        let open = path
            .zip(root.ok())
            .and_then(|(path, root)| host::below(root.as_fd(), &path).ok());
        if let Some(open) = open
            && let Ok(name) = Name::new(name)
        {
            let above = Some((self.event.watch, name));
            let mut each = |watch, name: &[u8], directory| {
                if found.len() < MOST {
                    found.push((watch, Box::<[u8]>::from(name), directory));
                }
            };
            self.tree.add(&place.export, above, open.as_fd(), &mut each);
        }
        for (watch, name, directory) in found {
            let places = self.tree.places(watch);
            let below = places
                .iter()
                .find(|below| below.export.serial == place.export.serial);
            let Some(below) = below.filter(|below| self.is_news(below, &name)) else {
                continue;
            };
            if let Some(path) = self.tree.path(below, &name) {
                self.changes.push(Change {
                    export: place.export.name.clone(),
                    path,
                    directory,
                    kind: ChangeKind::Created,
                });
            }
        }
    }

    fn removed(&mut self) {
        if self.is_news(self.place, &self.event.name) {
            let path = self.tree.path(self.place, &self.event.name);
            self.report(path, ChangeKind::Removed);
        }
    }

    fn moved(&mut self, target: Option<&(i32, Box<[u8]>)>, moved: &mut HashSet<(u32, u64)>) {
        let (place, name) = (self.place, &self.event.name);
        let serial = place.export.serial;
        let from = self.tree.path(place, name);
        let target = target.and_then(|(watch, name)| {
            let places = self.tree.places(*watch);
            let place = places
                .into_iter()
                .find(|place| place.export.serial == serial)?;
            Some((*watch, place, name))
        });
        let Some((watch, to_place, to_name)) = target else {
            self.removed();
            if self.is_directory() {
                self.tree.left(&place.export, self.event.watch, name);
            }
            return;
        };
        moved.insert((self.event.cookie, serial));
        if self.is_directory() {
            let from = (self.event.watch, &**name);
            self.tree.moved(&place.export, from, (watch, to_name));
        }
        let news = self.is_news(place, name) || self.is_news(&to_place, to_name);
        let to = self.tree.path(&to_place, to_name);
        if let Some(to) = to.filter(|_| news) {
            self.report(from, ChangeKind::Moved { to });
        }
    }

    fn changed(&mut self, modified: bool) {
        let (place, name) = (self.place, &self.event.name);
        if !self.server.inodes.knows(&place.key) {
            return;
        }
        let Some(path) = self.tree.path(place, name) else {
            return;
        };
        // What is gone again has not changed.
        let found = place.export.root();
        let found = found.and_then(|root| host::below(root.as_fd(), &path));
        let Ok(status) = found.and_then(host::status) else {
            return;
        };
        let own = self.server.recent.had_file(device(&status), status.stx_ino);
        if own {
            return;
        }
        let kind = if modified {
            ChangeKind::Modified
        } else {
            ChangeKind::Attributes
        };
        self.report(Some(path), kind);
    }
}
