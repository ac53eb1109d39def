//! From a change on the host to inotify in the guest, and not back.

use std::cell::RefCell;
use std::fs;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use guest_protocol::replay::{Change, ChangeKind, marker};
use libtest_mimic::{Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use shares::watch::Watcher;

use crate::mount::Mounted;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("watchers hear of the host's changes within 200 ms", heard),
        trial("what is repeated changes nothing", changes_nothing),
        trial("the guest's own changes are not told to it", own),
    ]
}

/// Watches a share from both sides, and repeats what the host does.
struct Rig<'a> {
    share: &'a Mounted,
    inotify: OwnedFd,
    told: Receiver<Change>,
    /// How long each change took to be heard.
    took: RefCell<Vec<Duration>>,
}

impl<'a> Rig<'a> {
    fn new(share: &'a Mounted) -> Result<Self, Failed> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)?;
        inotify::add_watch(&inotify, share.path(), WatchFlags::ALL_EVENTS)?;
        let (sender, told) = channel();
        let watcher = Watcher::new(Arc::clone(&share.server), 1000)?;
        std::thread::spawn(move || {
            watcher.run(|change| match sender.send(change) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let rig = Self {
            share,
            inotify,
            told,
            took: RefCell::default(),
        };
        // Until it watches.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            fs::write(share.host().join("probe"), "x")?;
            if rig.next(100).is_some() {
                break;
            }
            if Instant::now() > until {
                return Err("it does not watch".into());
            }
        }
        while rig.next(100).is_some() {}
        rig.events(0);
        Ok(rig)
    }

    fn next(&self, milliseconds: u64) -> Option<Change> {
        let patience = Duration::from_millis(milliseconds);
        self.told.recv_timeout(patience).ok()
    }

    /// Repeats changes as they come until the guest's watcher has heard what is wanted.
    fn hears(&self, wanted: &[(ReadFlags, &str)]) -> Result<(), Failed> {
        let start = Instant::now();
        let mut heard = Vec::new();
        loop {
            if let Some(change) = self.next(5) {
                // What has changed once more since can't be repeated.
                let _ = repeat(&self.share.path(), &change);
            }
            heard.extend(self.events(0));
            let all = wanted.iter().all(|(flags, name)| {
                heard
                    .iter()
                    .any(|(there, of)| there.contains(*flags) && of == name)
            });
            if all {
                self.took.borrow_mut().push(start.elapsed());
                break;
            }
            if start.elapsed() > Duration::from_secs(3) {
                return Err(format!("{wanted:?} was not heard, but {heard:?}").into());
            }
        }
        while let Some(change) = self.next(100) {
            let _ = repeat(&self.share.path(), &change);
        }
        self.events(0);
        Ok(())
    }

    fn events(&self, milliseconds: i64) -> Vec<(ReadFlags, String)> {
        let mut wanted = [PollFd::new(&self.inotify, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: milliseconds * 1_000_000,
        };
        poll(&mut wanted, Some(&patience)).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy());
            events.push((event.events(), name.unwrap_or_default().into_owned()));
        }
        events
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        self.share.server.stop_watching();
    }
}

/// What the guest's agent does.
fn repeat(root: &Path, change: &Change) -> Result<(), Failed> {
    let path = root.join(std::str::from_utf8(&change.path)?);
    let directory = rustix::fs::open(
        path.parent().unwrap_or(root),
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let name = path.file_name().unwrap_or_default();
    let mode = Mode::from_raw_mode(0o644);
    let user = |file, folder| if change.directory { folder } else { file };
    match &change.kind {
        ChangeKind::Created if change.directory => as_marked(marker::CREATED, || {
            rustix::fs::mkdirat(&directory, name, mode)
        }),
        ChangeKind::Created => as_marked(marker::CREATED, || {
            rustix::fs::mknodat(&directory, name, FileType::RegularFile, mode, 0)
        }),
        ChangeKind::Removed => {
            let user = user(marker::REMOVED_FILE, marker::REMOVED_DIRECTORY);
            let flags = if change.directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            as_marked(user, || rustix::fs::unlinkat(&directory, name, flags))
        }
        ChangeKind::Moved { to } => {
            let user = user(marker::MOVED_FILE, marker::MOVED_DIRECTORY);
            let to = root.join(std::str::from_utf8(to)?);
            let parent = to.parent().unwrap_or(root);
            let target = rustix::fs::open(parent, OFlags::PATH, Mode::empty())?;
            let new = to.file_name().unwrap_or_default();
            as_marked(user, || {
                rustix::fs::renameat(&directory, name, &target, new)
            })
        }
        ChangeKind::Modified => as_marked(marker::CHANGED, || {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
            rustix::fs::ftruncate(&file, rustix::fs::fstat(&file)?.st_size as u64)
        }),
        ChangeKind::Attributes | ChangeKind::Everything => as_marked(marker::CHANGED, || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
            let mode = rustix::fs::fstat(&file)?.st_mode & 0o7777;
            let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
        }),
    }
}

/// Does something as a marked user, with root's capabilities.
fn as_marked(
    user: u32,
    action: impl FnOnce() -> rustix::io::Result<()> + Send,
) -> Result<(), Failed> {
    let result = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let sets = rustix::thread::capabilities(None)?;
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(user));
                rustix::thread::set_capabilities(None, sets)?;
                action()
            })
            .join()
    });
    match result {
        Ok(result) => Ok(result?),
        Err(_) => Err("it panicked".into()),
    }
}

fn heard(share: &Mounted) -> Result<(), Failed> {
    let rig = Rig::new(share)?;
    let (host, inside) = (share.host(), share.path());
    fs::write(host.join("f"), "one")?;
    rig.hears(&[(ReadFlags::CREATE, "f"), (ReadFlags::MODIFY, "f")])?;
    assert_eq!(fs::read(inside.join("f"))?, b"one");
    fs::write(host.join("f"), "two and more")?;
    rig.hears(&[(ReadFlags::MODIFY, "f"), (ReadFlags::CLOSE_WRITE, "f")])?;
    assert_eq!(fs::read(inside.join("f"))?, b"two and more");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(host.join("f"), private)?;
    rig.hears(&[(ReadFlags::ATTRIB, "f")])?;
    fs::rename(host.join("f"), host.join("g"))?;
    rig.hears(&[(ReadFlags::MOVED_FROM, "f"), (ReadFlags::MOVED_TO, "g")])?;
    assert_eq!(fs::read(inside.join("g"))?, b"two and more");
    assert!(!inside.join("f").exists());
    // As editors save: a new file over the old one, with and without the guest knowing.
    fs::write(host.join(".g.new"), "three")?;
    fs::rename(host.join(".g.new"), host.join("g"))?;
    rig.hears(&[(ReadFlags::MOVED_TO, "g")])?;
    assert_eq!(fs::read(inside.join("g"))?, b"three");
    fs::create_dir(host.join("d"))?;
    rig.hears(&[(ReadFlags::CREATE | ReadFlags::ISDIR, "d")])?;
    fs::rename(host.join("d"), host.join("e"))?;
    rig.hears(&[(ReadFlags::MOVED_TO | ReadFlags::ISDIR, "e")])?;
    fs::remove_dir(host.join("e"))?;
    rig.hears(&[(ReadFlags::DELETE | ReadFlags::ISDIR, "e")])?;
    fs::remove_file(host.join("g"))?;
    rig.hears(&[(ReadFlags::DELETE, "g")])?;
    std::os::unix::fs::symlink("nowhere", host.join("l"))?;
    rig.hears(&[(ReadFlags::CREATE, "l")])?;
    assert_eq!(fs::read_link(inside.join("l"))?, Path::new("nowhere"));
    assert!(!inside.join("g").exists() && !inside.join("e").exists());
    // Most of them: the machine may be busy with something else for once.
    let mut took = rig.took.take();
    took.sort();
    assert!(
        took[took.len() / 2] < Duration::from_millis(200),
        "{took:?}"
    );
    Ok(())
}

fn changes_nothing(share: &Mounted) -> Result<(), Failed> {
    fs::create_dir(share.host().join("d"))?;
    fs::write(share.host().join("d/f"), "text")?;
    fs::metadata(share.path().join("d/f"))?;
    let before = fs::metadata(share.host().join("d/f"))?.modified()?;
    let change = |path: &str, directory, kind| Change {
        export: "share".to_owned(),
        path: path.into(),
        directory,
        kind,
    };
    let moved = ChangeKind::Moved { to: b"g".to_vec() };
    for change in [
        change("d/f", false, ChangeKind::Removed),
        change("d", true, ChangeKind::Removed),
        change("d/f", false, ChangeKind::Created),
        change("d/new", false, ChangeKind::Created),
        change("d/f", false, ChangeKind::Modified),
        change("d/f", false, ChangeKind::Attributes),
        change("d/f", false, moved),
        change("gone", false, ChangeKind::Removed),
        change("gone", true, ChangeKind::Removed),
    ] {
        // Some of it did not happen, and is refused.
        let _ = repeat(&share.path(), &change);
    }
    assert_eq!(fs::read(share.host().join("d/f"))?, b"text");
    assert_eq!(fs::metadata(share.host().join("d/f"))?.modified()?, before);
    assert_eq!(fs::read_dir(share.host())?.count(), 1);
    assert_eq!(fs::read_dir(share.host().join("d"))?.count(), 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fs::read(share.path().join("d/f"))?, b"text");
    Ok(())
}

fn own(share: &Mounted) -> Result<(), Failed> {
    let rig = Rig::new(share)?;
    let inside = share.path();
    fs::write(inside.join("f"), "text")?;
    fs::write(inside.join("f"), "more text")?;
    fs::create_dir(inside.join("d"))?;
    fs::rename(inside.join("f"), inside.join("d/g"))?;
    std::os::unix::fs::chown(inside.join("d/g"), Some(5), None)?;
    fs::remove_file(inside.join("d/g"))?;
    fs::remove_dir(inside.join("d"))?;
    match rig.next(300) {
        None => Ok(()),
        Some(change) => Err(format!("{change:?} came back").into()),
    }
}
