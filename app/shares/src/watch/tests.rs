//! A watcher on real directories: what it tells, and what it does not.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guest_protocol::replay::ChangeKind;

use super::*;
use crate::host::{Name, child, status};
use crate::inodes::Found;
use crate::{ExportOptions, Limits, open_root};

struct Rig {
    server: Arc<Server>,
    folder: tempfile::TempDir,
    changes: Receiver<Change>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Rig {
    fn new(prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let server = Arc::new(Server::new(Limits::default()).unwrap());
        let root = open_root(folder.path()).unwrap();
        server
            .add_export("x", root, ExportOptions::default())
            .unwrap();
        let (sender, changes) = channel();
        let watcher = Watcher::new(Arc::clone(&server), 1000).unwrap();
        let thread = std::thread::spawn(move || {
            watcher.run(|change| match sender.send(change) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let rig = Self {
            server,
            folder,
            changes,
            thread: Some(thread),
        };
        rig.look("");
        // Until it watches.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            fs::write(rig.folder.path().join("probe"), "x").unwrap();
            if rig.next(Duration::from_millis(100)).is_some() {
                break;
            }
            assert!(Instant::now() < until, "it does not watch");
        }
        while rig.next(Duration::from_millis(100)).is_some() {}
        rig
    }

    /// Does what a guest does that looks at a directory and those above.
    fn look(&self, path: &str) {
        let export = self.server.exports.find(b"x").unwrap();
        let inodes = &self.server.inodes;
        let mut file = export.root().unwrap();
        let mut inode = inodes
            .know(
                &export,
                Arc::clone(&file),
                &status(&file).unwrap(),
                Found::Root,
            )
            .unwrap();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let name = Name::new(part.as_bytes()).unwrap();
            file = Arc::new(child(std::os::fd::AsFd::as_fd(&*file), name).unwrap());
            let found = Found::At(inode.node, name);
            inode = inodes
                .know(&export, Arc::clone(&file), &status(&file).unwrap(), found)
                .unwrap();
        }
    }

    fn next(&self, patience: Duration) -> Option<Change> {
        self.changes.recv_timeout(patience).ok()
    }

    /// The changes until it is quiet, as `kind path`.
    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        let mut patience = Duration::from_secs(5);
        while let Some(change) = self.next(patience) {
            patience = Duration::from_millis(150);
            let path = String::from_utf8_lossy(&change.path).into_owned();
            let directory = if change.directory { "/" } else { "" };
            told.push(match change.kind {
                ChangeKind::Moved { to } => {
                    format!("Moved {path}{directory} {}", String::from_utf8_lossy(&to))
                }
                kind => format!("{kind:?} {path}{directory}"),
            });
        }
        told
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.stop_watching();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

#[test]
fn changes_are_told_once_and_soon() {
    let rig = Rig::new(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/old"), "1").unwrap();
    });
    rig.look("a");
    let start = Instant::now();
    fs::write(rig.path("a/old"), "22").unwrap();
    let first = rig.next(Duration::from_secs(5)).unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(
        (first.path.as_slice(), first.kind),
        (&b"a/old"[..], ChangeKind::Modified)
    );
    for _ in 0..1000 {
        fs::write(rig.path("a/old"), "22").unwrap();
    }
    let told = rig.told().len();
    assert!((1..1000).contains(&told), "{told}");

    fs::write(rig.path("a/new"), "").unwrap();
    assert_eq!(rig.told()[0], "Created a/new");
    fs::rename(rig.path("a/new"), rig.path("newer")).unwrap();
    assert_eq!(rig.told(), ["Moved a/new newer"]);
    fs::remove_file(rig.path("newer")).unwrap();
    assert_eq!(rig.told(), ["Removed newer"]);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(rig.path("a/old"), private).unwrap();
    assert_eq!(rig.told(), ["Attributes a/old"]);
}

#[test]
fn directories_are_followed_wherever_they_go() {
    let rig = Rig::new(|root| fs::create_dir_all(root.join("a/b/c")).unwrap());
    fs::create_dir_all(rig.path("a/new/deep")).unwrap();
    rig.told();
    rig.look("a/new/deep");
    rig.look("a/b/c");
    fs::write(rig.path("a/new/deep/file"), "").unwrap();
    assert_eq!(rig.told(), ["Created a/new/deep/file"]);
    fs::rename(rig.path("a/b"), rig.path("b2")).unwrap();
    assert_eq!(rig.told(), ["Moved a/b/ b2"]);
    fs::write(rig.path("b2/c/file"), "").unwrap();
    assert_eq!(rig.told(), ["Created b2/c/file"]);
    // Out of the export: nothing of it is told any more.
    let outside = tempfile::tempdir_in(rig.folder.path().parent().unwrap()).unwrap();
    fs::rename(rig.path("b2"), outside.path().join("b")).unwrap();
    assert_eq!(rig.told(), ["Removed b2/"]);
    fs::write(outside.path().join("b/c/file2"), "").unwrap();
    fs::write(rig.path("last"), "").unwrap();
    assert_eq!(rig.told(), ["Created last"]);
}

#[test]
fn what_the_guest_does_not_know_or_did_itself_is_not_told() {
    let rig = Rig::new(|root| fs::create_dir(root.join("unknown")).unwrap());
    fs::write(rig.path("unknown/file"), "").unwrap();
    let root = status(open_root(rig.folder.path()).unwrap()).unwrap();
    let device = crate::inodes::device(&root);
    rig.server.recent.name(device, root.stx_ino, b"own");
    fs::write(rig.path("own"), "").unwrap();
    fs::write(rig.path("other"), "").unwrap();
    assert_eq!(rig.told(), ["Created other"]);
    let probe = status(open_root(&rig.path("probe")).unwrap()).unwrap();
    rig.server.recent.file(device, probe.stx_ino);
    fs::write(rig.path("probe"), "more").unwrap();
    fs::write(rig.path("other"), "more").unwrap();
    assert_eq!(rig.told(), ["Modified other"]);
}

#[test]
fn names_are_bytes() {
    let rig = Rig::new(|_| {});
    let name = std::ffi::OsStr::from_bytes(b"\xff\n\\");
    fs::write(rig.folder.path().join(name), "").unwrap();
    let change = rig.next(Duration::from_secs(5)).unwrap();
    assert_eq!(change.path, b"\xff\n\\");
}

#[test]
fn exports_come_and_go() {
    let rig = Rig::new(|_| {});
    rig.server.remove_export("x").unwrap();
    // The watcher drops its watches before it waits again; then nothing can be told.
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        fs::write(rig.path("file"), "").unwrap();
        if rig.next(Duration::from_millis(100)).is_none() {
            break;
        }
        assert!(Instant::now() < until);
    }
    let root = open_root(rig.folder.path()).unwrap();
    rig.server
        .add_export("x", root, ExportOptions::default())
        .unwrap();
    rig.look("");
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        fs::write(rig.path("file2"), "").unwrap();
        if rig.next(Duration::from_millis(100)).is_some() {
            break;
        }
        assert!(Instant::now() < until, "it is not watched");
    }
}
