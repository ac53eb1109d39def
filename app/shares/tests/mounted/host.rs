//! The host's side of a share: what it sees of the guest's doing, and how soon the guest
//! sees its own.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use shares::{ExportOptions, Limits, Owner};

use crate::mount::{Mounted, Road};
use crate::trial;

type Outcome = Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the session's root lists the exports", root),
        trial("what the guest makes belongs to the host's user", owner),
        trial("the host's user is never locked out", locked_out),
        trial("a mode that the host sets counts", host_mode),
        trial("the override is hidden", hidden),
        trial("files of others are nobody's", others),
        trial("a share's owner is who it is mounted for", mounted_for),
        trial("what the host writes is read at once", at_once),
        trial("what the host replaces is replaced", replaced),
        trial(
            "what the host makes and removes comes and goes",
            comes_and_goes,
        ),
        trial("an open file that grows on the host grows", grows),
        trial("a full host is a full share", full),
        trial("the host and the guest respect each other's locks", locks),
        trial("a share that is removed while it is used", removed),
        trial("nothing holds a share that was removed", unmounted),
        trial("a single file is shared", single_file),
        trial(
            "the guest's root has the user's rights and no more",
            users_rights,
        ),
    ]
}

#[allow(clippy::needless_pass_by_value)] // So that calls can be written into the call.
fn same<T: PartialEq + std::fmt::Debug>(left: T, right: T) -> Outcome {
    if left == right {
        return Ok(());
    }
    Err(format!("{left:?} is not {right:?}").into())
}

fn mode(path: impl AsRef<Path>) -> std::io::Result<u32> {
    Ok(fs::symlink_metadata(path)?.mode() & 0o7777)
}

/// Waits until something is so; longer than a busy machine takes.
fn soon(what: &str, mut so: impl FnMut() -> bool) -> Outcome {
    let start = Instant::now();
    while !so() {
        if start.elapsed() > Duration::from_secs(3) {
            return Err(format!("not after {:?}: {what}", start.elapsed()).into());
        }
    }
    Ok(())
}

fn root(share: &Mounted) -> Outcome {
    let names: Vec<_> = fs::read_dir(share.root())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    same(names, vec!["share".into()])?;
    same(File::create(share.root().join("new")).is_err(), true)?;
    same(fs::remove_dir(share.root().join("share")).is_err(), true)?;
    same(mode(share.root())?, 0o555)
}

fn owner(share: &Mounted) -> Outcome {
    let me = rustix::process::geteuid().as_raw();
    fs::write(share.path().join("f"), "")?;
    chown(share.path().join("f"), Some(999), Some(999))?;
    fs::set_permissions(share.path().join("f"), PermissionsExt::from_mode(0o4750))?;
    let host = fs::metadata(share.host().join("f"))?;
    same((host.uid(), host.mode() & 0o7777), (me, 0o750))?;
    same(fs::metadata(share.path().join("f"))?.uid(), 999)?;
    // It is not in a cache: another session sees the same.
    share.server.reset();
    let other = Mounted::new(Road::Device);
    other.server.add_export(
        "again",
        shares::open_root(&share.host())?,
        ExportOptions::default(),
    )?;
    let seen = fs::metadata(other.root().join("again/f"))?;
    same(
        (seen.uid(), seen.gid(), seen.mode() & 0o7777),
        (999, 999, 0o4750),
    )
}

fn locked_out(share: &Mounted) -> Outcome {
    fs::create_dir(share.path().join("d"))?;
    fs::write(share.path().join("d/f"), "")?;
    fs::set_permissions(share.path().join("d/f"), PermissionsExt::from_mode(0o040))?;
    fs::set_permissions(share.path().join("d"), PermissionsExt::from_mode(0o001))?;
    same(mode(share.host().join("d/f"))?, 0o640)?;
    same(mode(share.host().join("d"))?, 0o701)?;
    same(mode(share.path().join("d/f"))?, 0o040)?;
    same(mode(share.path().join("d"))?, 0o001)
}

fn host_mode(share: &Mounted) -> Outcome {
    fs::write(share.path().join("f"), "")?;
    fs::set_permissions(share.path().join("f"), PermissionsExt::from_mode(0o444))?;
    fs::set_permissions(share.host().join("f"), PermissionsExt::from_mode(0o755))?;
    soon("its mode", || {
        mode(share.path().join("f")).ok() == Some(0o755)
    })
}

fn hidden(share: &Mounted) -> Outcome {
    let (inside, host) = (share.path().join("f"), share.host().join("f"));
    fs::write(&inside, "")?;
    chown(&inside, Some(5), Some(6))?;
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(&host, "user.dctl.ownership", &mut value)?;
    same(&value[..length], b"5:6:-:-")?;
    let mut names = [0_u8; 1000];
    same(rustix::fs::listxattr(&inside, &mut names)?, 0)?;
    chown(&inside, Some(0), Some(0))?;
    let gone = rustix::fs::getxattr(&host, "user.dctl.ownership", &mut value);
    same(gone, Err(rustix::io::Errno::NODATA))
}

fn others(share: &Mounted) -> Outcome {
    fs::write(share.host().join("f"), "text")?;
    chown(share.host().join("f"), Some(12345), Some(12345))?;
    let path = share.path().join("f");
    let seen = fs::metadata(&path)?;
    same((seen.uid(), seen.gid()), (65534, 65534))?;
    same(chown(&path, Some(0), None).is_err(), true)?;
    let changed = fs::set_permissions(&path, PermissionsExt::from_mode(0o777));
    same(changed.is_err(), true)
}

fn mounted_for(_: &Mounted) -> Outcome {
    let options = ExportOptions {
        owner: Owner { uid: 1000, gid: 50 },
        ..ExportOptions::default()
    };
    let share = Mounted::with(Road::Device, Limits::default(), options);
    fs::write(share.host().join("f"), "")?;
    let seen = fs::metadata(share.path().join("f"))?;
    same((seen.uid(), seen.gid()), (1000, 50))?;
    fs::write(share.path().join("by-root"), "")?;
    let seen = fs::metadata(share.path().join("by-root"))?;
    same((seen.uid(), seen.gid()), (0, 0))
}

fn at_once(share: &Mounted) -> Outcome {
    let (inside, host) = (share.path().join("f"), share.host().join("f"));
    fs::write(&host, "0000")?;
    for turn in 0..100 {
        let text = format!("{turn:04}");
        // In place, and with the same size.
        OpenOptions::new()
            .write(true)
            .open(&host)?
            .write_all_at(text.as_bytes(), 0)?;
        same(fs::read_to_string(&inside)?, text)?;
    }
    Ok(())
}

fn replaced(share: &Mounted) -> Outcome {
    let inside = share.path().join("f");
    for turn in 0..20 {
        let text = "x".repeat(turn);
        fs::write(share.host().join("new"), &text)?;
        fs::rename(share.host().join("new"), share.host().join("f"))?;
        soon("the new text", || {
            fs::read_to_string(&inside).is_ok_and(|seen| seen == text)
        })?;
        same(fs::metadata(&inside)?.len(), turn as u64)?;
    }
    Ok(())
}

fn comes_and_goes(share: &Mounted) -> Outcome {
    for _ in 0..20 {
        same(share.path().join("f").exists(), false)?;
        fs::write(share.host().join("f"), "")?;
        // That something is missing is not remembered at all.
        same(share.path().join("f").exists(), true)?;
        fs::remove_file(share.host().join("f"))?;
        soon("it is gone", || !share.path().join("f").exists())?;
        soon("the listing is empty", || {
            fs::read_dir(share.path()).is_ok_and(|listing| listing.count() == 0)
        })?;
    }
    Ok(())
}

fn grows(share: &Mounted) -> Outcome {
    let mut log = File::create(share.host().join("log"))?;
    let open = File::open(share.path().join("log"))?;
    let mut expected = 0;
    for _ in 0..10 {
        log.write_all(b"line\n")?;
        expected += 5;
        let mut text = [0; 100];
        soon("the new line", || {
            open.read_at(&mut text, 0).ok() == Some(expected)
        })?;
    }
    Ok(())
}

fn full(share: &Mounted) -> Outcome {
    let small = share.host().join("small");
    fs::create_dir(&small)?;
    let options = c"size=1m";
    mount("small", &small, "tmpfs", MountFlags::empty(), Some(options))?;
    let result = (|| {
        let path = share.path().join("small/f");
        let mut file = File::create(&path)?;
        let written = file.write_all(&vec![7; 4 << 20]);
        let error = written.err().and_then(|error| error.raw_os_error());
        same(error, Some(libc::ENOSPC))?;
        // What was written is what is there.
        let text = fs::read(&path)?;
        same(text.iter().all(|byte| *byte == 7), true)?;
        fs::remove_file(&path)?;
        drop(file);
        soon("there is room again", || {
            fs::write(&path, vec![1; 65536]).is_ok()
        })
    })();
    unmount(&small, UnmountFlags::DETACH)?;
    result
}

fn locks(share: &Mounted) -> Outcome {
    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;
    let inside = File::create(share.path().join("f"))?;
    let host = File::open(share.host().join("f"))?;
    flock(&inside, FlockOperation::LockExclusive)?;
    same(
        flock(&host, FlockOperation::NonBlockingLockShared),
        Err(Errno::AGAIN),
    )?;
    flock(&inside, FlockOperation::Unlock)?;
    flock(&host, FlockOperation::NonBlockingLockExclusive)?;
    same(
        flock(&inside, FlockOperation::NonBlockingLockShared),
        Err(Errno::AGAIN),
    )
}

/// As the same export, and as another of its users sees it.
fn unmounted(share: &Mounted) -> Outcome {
    let usb = share.outside().join("usb");
    fs::create_dir(&usb)?;
    mount("usb", &usb, "tmpfs", MountFlags::empty(), None)?;
    fs::create_dir(usb.join("d"))?;
    fs::write(usb.join("d/f"), "text")?;
    let (root, options) = (shares::open_root(&usb)?, ExportOptions::default());
    share.server.add_export("usb", root, options)?;
    let mut open = Vec::new();
    for name in ["usb", "usb@1000:1001"] {
        open.push(File::open(share.root().join(name).join("d/f"))?);
    }
    let unmounted = || unmount(&usb, UnmountFlags::empty()).is_ok();
    same(unmounted(), false)?;
    share.server.remove_export("usb")?;
    soon("it can be unmounted", unmounted)?;
    drop(open);
    Ok(())
}

fn removed(share: &Mounted) -> Outcome {
    fs::write(share.path().join("f"), "text")?;
    let mut open = OpenOptions::new()
        .append(true)
        .open(share.path().join("f"))?;
    share.server.remove_export("share")?;
    same(open.write_all(b"more").is_err(), true)?;
    soon("it is gone", || !share.path().exists())?;
    drop(open);
    same(fs::read(share.host().join("f"))?, b"text".to_vec())
}

fn single_file(share: &Mounted) -> Outcome {
    let file = share.outside().join("config");
    fs::write(&file, "one")?;
    symlink("config", share.outside().join("link"))?;
    let root = shares::open_root(&share.outside().join("link"))?;
    share
        .server
        .add_export("file", root, ExportOptions::default())?;
    let inside = share.root().join("file");
    same(fs::read(&inside)?, b"one".to_vec())?;
    fs::write(&inside, "two")?;
    same(fs::read(&file)?, b"two".to_vec())?;
    chown(&inside, Some(7), None)?;
    same(fs::metadata(&inside)?.uid(), 7)
}

fn users_rights(_: &Mounted) -> Outcome {
    let share = Mounted::new(Road::User);
    let (host, inside) = (share.host(), share.path());
    let me = fs::metadata(&host)?.uid();
    fs::create_dir(inside.join("d"))?;
    chown(inside.join("d"), Some(999), Some(999))?;
    fs::write(inside.join("d/f"), "")?;
    for made in ["d", "d/f"] {
        let made = fs::metadata(host.join(made))?;
        same((made.uid(), made.gid()), (me, me))?;
    }
    // What root of the host keeps to itself, root of a container does not get.
    fs::write(host.join("secret"), "secret")?;
    fs::set_permissions(host.join("secret"), PermissionsExt::from_mode(0o600))?;
    fs::create_dir(host.join("private"))?;
    fs::set_permissions(host.join("private"), PermissionsExt::from_mode(0o700))?;
    let kind = |result: std::io::Result<()>| result.err().map(|error| error.kind());
    let denied = Some(std::io::ErrorKind::PermissionDenied);
    same(kind(fs::read(inside.join("secret")).map(drop)), denied)?;
    same(kind(fs::write(inside.join("secret"), "mine")), denied)?;
    same(kind(fs::read_dir(inside.join("private")).map(drop)), denied)?;
    same(
        kind(File::create(inside.join("private/new")).map(drop)),
        denied,
    )?;
    same(kind(chown(inside.join("secret"), Some(0), None)), denied)?;
    same(fs::read(host.join("secret"))?, b"secret".to_vec())?;
    // What the user only took from himself, it does: root may write anything.
    fs::create_dir(host.join("mine"))?;
    fs::write(host.join("mine/f"), "old")?;
    for mine in ["mine/f", "mine"] {
        chown(host.join(mine), Some(me), Some(me))?;
        fs::set_permissions(host.join(mine), PermissionsExt::from_mode(0o444))?;
    }
    fs::write(inside.join("mine/f"), "new")?;
    fs::write(inside.join("mine/g"), "")?;
    same(mode(inside.join("mine/f"))?, 0o444)?;
    same(mode(inside.join("mine"))?, 0o444)?;
    same(fs::read(host.join("mine/f"))?, b"new".to_vec())
}
