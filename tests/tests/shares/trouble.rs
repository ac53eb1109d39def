//! What goes wrong with a folder of this host: it moves, its file system goes or is
//! full, or it may not be read. Containers get the error that fits, and nothing waits.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::{
    fs::{Gid, Uid, chown},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::geteuid,
};
use tests::{command::LONG, installation::wait_until};

use crate::machine::{Container, Folder, Image, Machine, Transport};

/// A container that waits, with this path at `/x`.
fn waiting(transport: Transport, path: &Path, options: &[&str]) -> Container {
    let mount = format!("{}:/x", path.display());
    let options = [options, &["-v", &mount]].concat();
    Machine::with(transport).container(Image::Busybox, &options, &["sleep", "1000"])
}

/// Whether this can be tried at all: only root mounts file systems.
fn can_mount() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root mounts file systems");
    }
    is_root
}

/// A file system in memory, of so many MiB, for as long as it is in scope.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(path: &'a Path, size: u32) -> Self {
        let options = std::ffi::CString::new(format!("size={size}m,mode=755")).unwrap();
        let flags = MountFlags::empty();
        mount("test", path, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A test may have unmounted it.
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// As with a bind mount of Linux, a folder that is renamed stays the container's until
/// it is started again.
fn renamed(transport: Transport) {
    let folder = Folder::new();
    let share = folder.path().join("share");
    folder.write("share/file", "text");
    let container = waiting(transport, &share, &[]);
    container.exec("cat /x/file").success();
    fs::rename(&share, folder.path().join("moved")).unwrap();
    let said = container
        .exec("cat /x/file; echo inside > /x/new")
        .success();
    assert_eq!(said.text(), "text");
    assert_eq!(folder.read("moved/new"), "inside\n");
    folder.write("share/file", "another");
    assert_eq!(container.exec("cat /x/file").success().text(), "text");
    container.dctl(&["restart", "-t", "0"]).success();
    assert_eq!(container.exec("cat /x/file").success().text(), "another");
    assert!(!share.join("new").exists());
}

#[test]
fn a_folder_that_is_renamed_over_virtiofs() {
    renamed(Transport::Virtiofs);
}

#[test]
fn a_folder_that_is_renamed_over_vsock() {
    renamed(Transport::Vsock);
}

/// A file system that is taken away under a container that writes to it.
fn unmounted(transport: Transport) {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    let mounted = Mounted::new(&share, 16);
    folder.write("share/file", "first");
    let container = waiting(transport, &share, &[]);
    let write = "while echo more >> /x/log; do sleep 0.1; done";
    let writer = container.start(write);
    wait_until("it writes", LONG, || share.join("log").exists());
    // As `umount --lazy`: what is open stays open.
    unmount(&share, UnmountFlags::DETACH).unwrap();
    assert!(fs::read_dir(&share).unwrap().next().is_none());
    // Whatever it sees from here on, it is told so, and others are not held up.
    container.exec("ls -l /x; cat /x/file; touch /x/new");
    Machine::with(transport)
        .run(Image::Busybox, &[], "true")
        .success();
    assert!(fs::read_dir(&share).unwrap().next().is_none());
    drop(writer);

    let again = Mounted::new(&share, 16);
    folder.write("share/file", "second");
    container.dctl(&["restart", "-t", "0"]).success();
    assert_eq!(container.exec("cat /x/file").success().text(), "second");
    // Once no container has it, nothing holds it.
    container.dctl(&["rm", "--force"]).success();
    wait_until("it can be unmounted", Duration::from_secs(30), || {
        unmount(&share, UnmountFlags::empty()).is_ok()
    });
    drop((again, mounted));
}

#[test]
fn a_file_system_that_is_unmounted_over_virtiofs() {
    unmounted(Transport::Virtiofs);
}

#[test]
fn a_file_system_that_is_unmounted_over_vsock() {
    unmounted(Transport::Vsock);
}

/// Nothing of what is there is damaged, and there is room again when something goes.
fn full(transport: Transport) {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    let _mounted = Mounted::new(&share, 4);
    let container = waiting(transport, &share, &[]);
    container
        .exec("dd if=/dev/urandom of=/x/kept bs=1M count=2 2> /dev/null; sha256sum < /x/kept > /x/sum")
        .success();
    for attempt in [
        "dd if=/dev/zero of=/x/big bs=64k count=64",
        "cat /x/kept >> /x/kept2; cat /x/kept >> /x/kept2",
    ] {
        let said = container.exec(attempt);
        assert_ne!(said.code(), 0, "{said}");
        assert!(said.error().contains("No space left on device"), "{said}");
        container
            .exec("sha256sum < /x/kept | cmp - /x/sum")
            .success();
        // What was taken is what is there, to the last byte.
        let inside = container.exec("wc -c < /x/big; rm -f /x/kept2").text();
        let outside = fs::metadata(share.join("big")).unwrap().len();
        assert_eq!(inside, outside.to_string());
    }
    container
        .exec("rm /x/big; dd if=/dev/zero of=/x/big bs=64k count=16 2> /dev/null")
        .success();
    assert_eq!(fs::metadata(share.join("big")).unwrap().len(), 1 << 20);
}

#[test]
fn a_full_file_system_over_virtiofs() {
    full(Transport::Virtiofs);
}

#[test]
fn a_full_file_system_over_vsock() {
    full(Transport::Vsock);
}

/// What this host's user, or the container's, may not read or change is denied; what is
/// beside it is not.
fn denied(transport: Transport) {
    let folder = Folder::new();
    folder.write("secret", "secret");
    folder.write("open", "open");
    let (secret, options): (_, &[&str]) = if geteuid().is_root() {
        // Root may read everything here: so it is another user's inside.
        let path = folder.path().join("secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(Uid::from_raw(4321)), Some(Gid::from_raw(4321))).unwrap();
        (path, &["--user", "1000:1001"])
    } else {
        (Path::new("/etc/shadow").to_owned(), &[])
    };
    let mount = format!("{}:/secret", secret.display());
    let container = waiting(
        transport,
        folder.path(),
        &[options, &["-v", &mount]].concat(),
    );
    for attempt in ["cat /secret", "echo more >> /secret"] {
        let said = container.exec(attempt);
        assert_ne!(said.code(), 0, "{said}");
        assert!(said.error().contains("Permission denied"), "{said}");
    }
    let said = container.exec("cat /x/open; echo more >> /x/open");
    assert_eq!(said.success().text(), "open");
}

#[test]
fn what_may_not_be_read_over_virtiofs() {
    denied(Transport::Virtiofs);
}

#[test]
fn what_may_not_be_read_over_vsock() {
    denied(Transport::Vsock);
}
