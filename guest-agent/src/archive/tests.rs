use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use rustix::fs::XattrFlags;

use super::*;

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// A tree with something of everything.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/file"), "content").unwrap();
    fs::write(root.join("first"), "linked").unwrap();
    fs::hard_link(root.join("first"), root.join("second")).unwrap();
    symlink("/somewhere/else", root.join("link")).unwrap();
    let long = "long-".repeat(45);
    fs::write(root.join(&long), "l").unwrap();
    symlink(&long, root.join("to-long")).unwrap();
    fs::write(root.join(".wh.no-whiteout"), "").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"beginning", 0).unwrap();
    sparse.write_all_at(b"end", 10 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    fs::set_permissions(root.join("first"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(root.join("deep"), Some(1234), Some(3_000_000)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o622),
        0,
    )
    .unwrap();
    rustix::fs::setxattr(
        root.join("deep/er/file"),
        "trusted.test",
        b"\0binary\n",
        XattrFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
}

/// What can be said of a tree, a line for each thing in it.
fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            if data.is_dir() {
                folders.push(path.clone());
            }
            let content = if data.is_file() {
                format!("{:x}", md5(&fs::read(&path).unwrap()))
            } else if data.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            lines.push(format!(
                "{} {:o} {}:{} {} {}.{:09} {content}",
                path.strip_prefix(root).unwrap().display(),
                data.mode(),
                data.uid(),
                data.gid(),
                data.nlink(),
                data.mtime(),
                data.mtime_nsec(),
            ));
        }
    }
    lines.sort();
    lines
}

/// A sum that tells contents apart.
fn md5(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn archive(root: &Path, name: &[u8], contents: &Contents) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_tree(&mut bytes, &open(root), name, contents).unwrap();
    bytes
}

#[test]
fn a_copy_has_all_that_the_original_has() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    make_tree(&from);
    copy(&open(&from), open(&to)).unwrap();
    assert_eq!(describe(&from), describe(&to));
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o750);
    let ino = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(ino("first"), ino("second"));
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 1 << 20);
    let mut value = [0; 32];
    let length = rustix::fs::getxattr(to.join("deep/er/file"), "trusted.test", &mut value).unwrap();
    assert_eq!(&value[..length], b"\0binary\n");
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_gnu_tar_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    make_tree(&from);
    let bytes = archive(&from, b"", &Contents::backup());
    assert_eq!(bytes, archive(&from, b"", &Contents::backup()));
    let mut tar = std::process::Command::new("tar")
        .args([
            "--extract",
            "--same-owner",
            "--same-permissions",
            "--delay-directory-restore",
        ])
        .arg("--directory")
        .arg(&to)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(describe(&from), describe(&to));
}

#[test]
fn names_in_an_archive_are_dockers() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("a"), "").unwrap();
    for (name, expected) in [
        (&b""[..], ["./", "a", "b/"]),
        (b"dir", ["dir/", "dir/a", "dir/b/"]),
        (b"/", ["/", "/a", "/b/"]),
    ] {
        let bytes = archive(folder.path(), name, &Contents::portable(0));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
            .collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn an_upper_directory_becomes_a_layer() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let nothing = archive(folder.path(), b"", &Contents::layer(Vec::new()));
    assert_eq!(nothing, [0; 1024]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("gone"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    for name in ["opaque", "proc", "etc", "data"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("data/kept"), "").unwrap();
    fs::write(at("etc/hosts"), "").unwrap();
    fs::write(at("etc/own"), "").unwrap();
    rustix::fs::setxattr(
        at("opaque"),
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    let mount_points = ["proc", "etc/hosts", "data"].map(|path| path.as_bytes().to_vec());
    let bytes = archive(folder.path(), b"", &Contents::layer(mount_points.into()));
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let keys: Vec<_> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| record.unwrap().key().unwrap().to_owned())
            .collect();
        assert!(keys.is_empty(), "{keys:?}");
        names.push(String::from_utf8(entry.path_bytes().into_owned()).unwrap());
    }
    assert_eq!(
        names,
        [
            "data/",
            "data/kept",
            "etc/",
            "etc/own",
            ".wh.gone",
            "opaque/",
            "opaque/.wh..wh..opq",
        ]
    );
}

#[test]
fn an_archive_without_its_end_is_not_taken_for_whole() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("empty")).unwrap();
    let mut archive = Vec::new();
    let root = open(source.path());
    write_tree(&mut archive, &root, b"", &Contents::backup()).unwrap();
    let end = archive.len() - 1024;
    let unpacked = |bytes: &[u8]| {
        let target = tempfile::tempdir().unwrap();
        unpack_files(bytes, open(target.path()), &Rules::files())
    };
    unpacked(&archive).unwrap();
    for length in [0, 512, end] {
        let error = unpacked(&archive[..length]).unwrap_err();
        assert!(matches!(
            error,
            UnpackError::Archive(ArchiveError::Truncated)
        ));
    }
}
