//! Nothing outside an export is read or written.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use shares::ExportOptions;

use crate::client::{
    CREATE, FORGET, Fields, GETXATTR, Guest, LINK, LOOKUP, MKDIR, MKNOD, OPENDIR, READLINK,
    REMOVEXATTR, RENAME, RENAME2, RMDIR, ROOT, SETATTR, SETXATTR, SYMLINK, TMPFILE, UNLINK, fields,
    snapshot,
};

fn guest() -> Guest {
    Guest::new(ExportOptions::default())
}

fn is_one_of(result: Result<impl std::fmt::Debug, i32>, errors: &[i32]) {
    match result {
        Err(error) if errors.contains(&error) => {}
        other => panic!("{other:?} instead of one of {errors:?}"),
    }
}

/// Requests that take a name, with their fields up to it.
fn named() -> Vec<(u32, Fields)> {
    vec![
        (LOOKUP, fields()),
        (SYMLINK, fields()),
        (MKNOD, fields().u32(0o100_644).u32(0).u32(0).u32(0)),
        (MKDIR, fields().u32(0o755).u32(0)),
        (UNLINK, fields()),
        (RMDIR, fields()),
        (CREATE, fields().u32(2).u32(0o100_644).u32(0).u32(0)),
    ]
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let guest = guest();
    fs::create_dir(guest.inside().join("d")).unwrap();
    fs::write(guest.outside.path().join("secret"), "secret").unwrap();
    let share = guest.share();
    let directory = guest.lookup(share, "d").unwrap();
    let before = snapshot(guest.outside.path());
    let names: [&[u8]; 7] = [b"..", b".", b"", b"../secret", b"/etc", b"d/..", b"/"];
    for name in names {
        for node in [share, directory] {
            for (opcode, before_name) in named() {
                let body = before_name.text(name).text(b"x");
                is_one_of(guest.send(opcode, node, &body.0), &[libc::EINVAL]);
            }
            let link = fields().u64(directory).text(name);
            is_one_of(guest.send(LINK, node, &link.0), &[libc::EINVAL]);
            for (from, to) in [(name, &b"y"[..]), (b"d", name)] {
                let rename = fields().u64(share).text(from).text(to);
                is_one_of(guest.send(RENAME, node, &rename.0), &[libc::EINVAL]);
                let rename = fields().u64(share).u64(0).text(from).text(to);
                is_one_of(guest.send(RENAME2, node, &rename.0), &[libc::EINVAL]);
            }
        }
    }
    assert_eq!(snapshot(guest.outside.path()), before);
    // The session's root has exports and nothing else, and takes nothing.
    is_one_of(guest.lookup(ROOT, ".."), &[libc::ENOENT]);
    for (opcode, before_name) in named().split_off(1) {
        let body = before_name.text(b"new").text(b"x");
        is_one_of(guest.send(opcode, ROOT, &body.0), &[libc::EROFS]);
    }
}

#[test]
fn symbolic_links_are_not_followed_on_the_host() {
    let guest = guest();
    fs::write(guest.outside.path().join("secret"), "secret").unwrap();
    symlink("..", guest.inside().join("up")).unwrap();
    symlink("/", guest.inside().join("root")).unwrap();
    symlink("../secret", guest.inside().join("file")).unwrap();
    let share = guest.share();
    let before = snapshot(guest.outside.path());
    for (name, target) in [("up", ".."), ("root", "/"), ("file", "../secret")] {
        let link = guest.lookup(share, name).unwrap();
        assert_eq!(guest.send(READLINK, link, &[]), Ok(target.into()));
        is_one_of(guest.lookup(link, "secret"), &[libc::ENOTDIR]);
        is_one_of(guest.lookup(link, "etc"), &[libc::ENOTDIR]);
        is_one_of(guest.open(link, libc::O_RDONLY), &[libc::ELOOP]);
        is_one_of(
            guest.open(link, libc::O_RDWR | libc::O_TRUNC),
            &[libc::ELOOP],
        );
        is_one_of(guest.create(link, "new"), &[libc::ENOTDIR]);
        is_one_of(guest.create(share, name), &[libc::ESTALE]);
        is_one_of(
            guest.send(OPENDIR, link, &fields().u64(0).0),
            &[libc::ENOTDIR],
        );
        // Size, then mode: what a kernel would follow the link for.
        let size = fields().u32(1 << 3).u32(0).u64(0).u64(0);
        let mut body = size.0;
        body.resize(88, 0);
        is_one_of(guest.send(SETATTR, link, &body), &[libc::EINVAL]);
        let mode = fields().u32(1).u32(0);
        let mut body = mode.0;
        body.resize(88, 0);
        let _ = guest.send(SETATTR, link, &body);
    }
    assert_eq!(snapshot(guest.outside.path()), before);
}

#[test]
fn a_directory_that_turns_into_a_link_leads_nowhere() {
    let guest = guest();
    let private = guest.outside.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("file"), "secret").unwrap();
    let inside = guest.inside();
    fs::create_dir(inside.join("d")).unwrap();
    fs::write(inside.join("d/file"), "shared").unwrap();
    symlink("../private", inside.join("l")).unwrap();
    let share = guest.share();
    let done = AtomicBool::new(false);
    let mut read = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, inside.join("d"), CWD, inside.join("l"), flags).unwrap();
            }
        });
        for turn in 0..5000 {
            let Ok(directory) = guest.lookup(share, "d") else {
                continue;
            };
            if let Ok(file) = guest.lookup(directory, "file")
                && let Ok(handle) = guest.open(file, libc::O_RDWR)
            {
                assert_eq!(guest.read(file, handle).unwrap(), b"shared");
                read += 1;
            }
            let _ = guest.create(directory, &format!("new{turn}"));
            let rename = fields().u64(directory).text(b"d").text(b"moved");
            let _ = guest.send(RENAME, directory, &rename.0);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(read > 0, "the race was never won");
    let left: Vec<_> = fs::read_dir(&private).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(fs::read(private.join("file")).unwrap(), b"secret");
}

#[test]
fn magic_links_are_only_links() {
    let guest = guest();
    let process = shares::open_root("/proc/self".as_ref()).unwrap();
    guest
        .server
        .add_export("process", process, ExportOptions::default())
        .unwrap();
    let process = guest.lookup(ROOT, "process").unwrap();
    for name in ["root", "cwd", "exe"] {
        let link = guest.lookup(process, name).unwrap();
        is_one_of(guest.lookup(link, "etc"), &[libc::ENOTDIR]);
        is_one_of(guest.open(link, libc::O_RDONLY), &[libc::ELOOP]);
        is_one_of(
            guest.send(OPENDIR, link, &fields().u64(0).0),
            &[libc::ENOTDIR],
        );
    }
}

#[test]
fn what_the_host_moves_away_is_out_of_reach() {
    let guest = guest();
    let inside = guest.inside();
    fs::create_dir_all(inside.join("a/b/c")).unwrap();
    fs::write(inside.join("a/b/file"), "shared").unwrap();
    let share = guest.share();
    let a = guest.lookup(share, "a").unwrap();
    let b = guest.lookup(a, "b").unwrap();
    let c = guest.lookup(b, "c").unwrap();
    let file = guest.lookup(b, "file").unwrap();
    fs::rename(inside.join("a/b"), guest.outside.path().join("b")).unwrap();
    fs::write(guest.outside.path().join("b/c/secret"), "secret").unwrap();
    fs::write(guest.outside.path().join("b/file"), "secret").unwrap();
    let before = snapshot(guest.outside.path());
    for directory in [b, c] {
        is_one_of(guest.lookup(directory, "secret"), &[libc::ESTALE]);
        is_one_of(guest.create(directory, "new"), &[libc::ESTALE]);
        for (opcode, before_name) in named() {
            let body = before_name.text(b"new").text(b"x");
            is_one_of(guest.send(opcode, directory, &body.0), &[libc::ESTALE]);
        }
        is_one_of(
            guest.send(OPENDIR, directory, &fields().u64(0).0),
            &[libc::ESTALE],
        );
        let rename = fields().u64(directory).text(b"a").text(b"stolen");
        is_one_of(guest.send(RENAME, share, &rename.0), &[libc::ESTALE]);
        let tmpfile = fields().u32(2).u32(0o100_600).u32(0).u32(0).text(b"t");
        is_one_of(guest.send(TMPFILE, directory, &tmpfile.0), &[libc::ESTALE]);
    }
    is_one_of(guest.open(file, libc::O_RDONLY), &[libc::ESTALE]);
    is_one_of(
        guest.open(file, libc::O_RDWR | libc::O_TRUNC),
        &[libc::ESTALE],
    );
    let link = fields().u64(file).text(b"stolen");
    is_one_of(guest.send(LINK, share, &link.0), &[libc::ESTALE]);
    let attribute = fields().u32(1).u32(0).text(b"user.x").text(b"1");
    is_one_of(guest.send(SETXATTR, file, &attribute.0), &[libc::ESTALE]);
    assert_eq!(snapshot(guest.outside.path()), before);
    // And back again.
    fs::rename(guest.outside.path().join("b"), inside.join("a/b")).unwrap();
    guest.lookup(b, "c").unwrap();
}

#[test]
fn an_export_that_is_renamed_stays_an_export() {
    let guest = guest();
    fs::create_dir(guest.inside().join("d")).unwrap();
    let share = guest.share();
    let directory = guest.lookup(share, "d").unwrap();
    fs::rename(guest.inside(), guest.outside.path().join("y")).unwrap();
    guest.create(directory, "new").unwrap();
    assert!(guest.outside.path().join("y/d/new").exists());
}

#[test]
fn exports_do_not_reach_each_other() {
    let guest = guest();
    fs::create_dir(guest.outside.path().join("y")).unwrap();
    fs::write(guest.outside.path().join("y/file"), "y").unwrap();
    guest.export("y", ExportOptions::default());
    let (x, y) = (guest.share(), guest.lookup(ROOT, "y").unwrap());
    let file = guest.lookup(y, "file").unwrap();
    let link = fields().u64(file).text(b"stolen");
    is_one_of(guest.send(LINK, x, &link.0), &[libc::EXDEV]);
    let rename = fields().u64(x).text(b"file").text(b"stolen");
    is_one_of(guest.send(RENAME, y, &rename.0), &[libc::EXDEV]);
    let rename = fields().u64(ROOT).text(b"file").text(b"stolen");
    is_one_of(guest.send(RENAME, y, &rename.0), &[libc::EXDEV]);
}

#[test]
fn special_files_are_not_opened() {
    let guest = guest();
    let make = |name: &str, kind, device| {
        let path = guest.inside().join(name);
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
    make("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    let share = guest.share();
    for name in ["fifo", "socket", "zero"] {
        let node = guest.lookup(share, name).unwrap();
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            is_one_of(guest.open(node, flags), &[libc::EACCES]);
        }
        is_one_of(guest.create(share, name), &[libc::ESTALE]);
        let mut size = fields().u32(1 << 3).u32(0).u64(0).u64(0).0;
        size.resize(88, 0);
        is_one_of(guest.send(SETATTR, node, &size), &[libc::EINVAL]);
    }
    for mode in [0o020_666_u32, 0o060_666, 0o120_777, 0o040_755] {
        let device = fields().u32(mode).u32(0x105).u32(0).u32(0).text(b"new");
        is_one_of(guest.send(MKNOD, share, &device.0), &[libc::EPERM]);
    }
    assert!(!guest.inside().join("new").exists());
}

#[test]
fn no_privileges_get_to_the_host() {
    let guest = guest();
    let share = guest.share();
    guest.create(share, "program").unwrap();
    let node = guest.lookup(share, "program").unwrap();
    let mut body = fields().u32(1).u32(0).0;
    body.resize(68, 0);
    body.extend(0o106_777_u32.to_ne_bytes());
    body.resize(88, 0);
    let answer = guest.send(SETATTR, node, &body).unwrap();
    let mode = u32::from_ne_bytes(answer[16 + 60..16 + 64].try_into().unwrap());
    assert_eq!(mode, 0o106_777);
    let host = fs::metadata(guest.inside().join("program")).unwrap();
    assert_eq!(host.mode() & 0o7777, 0o777);
    for name in [
        "security.capability",
        "trusted.x",
        "system.posix_acl_access",
        "user.dctl.ownership",
    ] {
        let body = fields().u32(1).u32(0).text(name.as_bytes()).text(b"1");
        is_one_of(guest.send(SETXATTR, node, &body.0), &[libc::EOPNOTSUPP]);
        let body = fields().u32(100).u32(0).text(name.as_bytes());
        is_one_of(guest.send(GETXATTR, node, &body.0), &[libc::EOPNOTSUPP]);
        let body = fields().text(name.as_bytes());
        is_one_of(guest.send(REMOVEXATTR, node, &body.0), &[libc::EOPNOTSUPP]);
    }
}

#[test]
fn a_read_only_export_is_read_only() {
    let guest = Guest::new(ExportOptions {
        read_only: true,
        ..ExportOptions::default()
    });
    fs::create_dir(guest.inside().join("d")).unwrap();
    fs::write(guest.inside().join("file"), "text").unwrap();
    let share = guest.share();
    let file = guest.lookup(share, "file").unwrap();
    let before = snapshot(guest.outside.path());
    let refused = &[libc::EROFS];
    for (opcode, before_name) in named().split_off(1) {
        let body = before_name.text(b"file").text(b"x");
        is_one_of(guest.send(opcode, share, &body.0), refused);
    }
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        is_one_of(guest.open(file, flags), refused);
    }
    for valid in [1_u32, 2, 4, 8, 16, 32] {
        let mut body = fields().u32(valid).u32(0).0;
        body.resize(88, 0);
        is_one_of(guest.send(SETATTR, file, &body), refused);
    }
    let link = fields().u64(file).text(b"new");
    is_one_of(guest.send(LINK, share, &link.0), refused);
    let rename = fields().u64(share).text(b"file").text(b"new");
    is_one_of(guest.send(RENAME, share, &rename.0), refused);
    let attribute = fields().u32(1).u32(0).text(b"user.x").text(b"1");
    is_one_of(guest.send(SETXATTR, file, &attribute.0), refused);
    let tmpfile = fields().u32(2).u32(0o100_600).u32(0).u32(0).text(b"t");
    is_one_of(guest.send(TMPFILE, share, &tmpfile.0), refused);
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, handle).unwrap(), b"text");
    is_one_of(guest.write(file, handle, b"x"), &[libc::EBADF]);
    assert_eq!(snapshot(guest.outside.path()), before);
}

#[test]
fn a_removed_export_is_gone_with_all_that_was_open() {
    let guest = guest();
    fs::write(guest.inside().join("file"), "text").unwrap();
    let share = guest.share();
    let file = guest.lookup(share, "file").unwrap();
    let handle = guest.open(file, libc::O_RDWR).unwrap();
    guest.server.remove_export("x").unwrap();
    is_one_of(guest.lookup(ROOT, "x"), &[libc::ENOENT]);
    is_one_of(guest.lookup(share, "file"), &[libc::ESTALE]);
    is_one_of(guest.open(file, libc::O_RDONLY), &[libc::ESTALE]);
    is_one_of(guest.read(file, handle), &[libc::EBADF]);
    is_one_of(guest.write(file, handle, b"x"), &[libc::EBADF]);
    let counts = guest.server.counts();
    assert_eq!((counts.descriptors, counts.handles), (0, 0));
    assert_eq!(fs::read(guest.inside().join("file")).unwrap(), b"text");
    // One of the same name is another.
    guest.export("x", ExportOptions::default());
    let again = guest.share();
    assert_ne!(again, share);
    guest.lookup(again, "file").unwrap();
    is_one_of(guest.lookup(share, "file"), &[libc::ESTALE]);
    for node in [share, file] {
        guest.send(FORGET, node, &fields().u64(1).0).unwrap();
    }
}
