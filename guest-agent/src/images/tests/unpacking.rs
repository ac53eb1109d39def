//! What archives hold comes out as it went in.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use super::*;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn metadata_is_that_of_the_archive() {
    let fixture = Fixture::new();
    let mut writer = tar();
    let mut header = TarWriter::header(b'5', b"./", 0);
    header.set_mode(0o711);
    header.set_mtime(77);
    writer.raw(header, b"");
    let mut header = TarWriter::header(b'5', b"home", 0);
    header.set_mode(0o1777);
    header.set_mtime(99);
    writer.raw(header, b"");
    let mut header = TarWriter::header(b'0', b"home/sudo", 3);
    header.set_mode(0o6755);
    header.set_uid(1000);
    header.set_gid(50);
    writer.raw(header, b"abc");
    writer.symlink("home/link", "/nowhere");
    // Comes back to a directory that was left, and uses one without an entry.
    writer.file("other/file", b"x").file("home/late", b"y");
    let files = fixture.import(&writer.end()).unwrap();

    let sudo = fs::metadata(files.join("home/sudo")).unwrap();
    assert_eq!((sudo.uid(), sudo.gid()), (1000, 50));
    assert_eq!(sudo.mode() & 0o7777, 0o6755);
    assert_eq!(sudo.mtime(), 1_000_000_000);
    let home = fs::metadata(files.join("home")).unwrap();
    assert_eq!((home.mode() & 0o7777, home.mtime()), (0o1777, 99));
    let root = fs::metadata(&files).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o711, 77));
    let link = fs::symlink_metadata(files.join("home/link")).unwrap();
    assert_eq!(link.mtime(), 1_000_000_000);
    assert_eq!(
        fs::read_link(files.join("home/link")).unwrap(),
        Path::new("/nowhere")
    );
    let other = fs::metadata(files.join("other")).unwrap();
    assert_eq!((other.mode() & 0o7777, other.uid()), (0o755, 0));
}

#[test]
fn links_devices_and_fifos_are_made() {
    let fixture = Fixture::new();
    let mut writer = tar();
    writer.file("a", b"one").hard_link("dir/b", "./a");
    writer.symlink("s", "a").hard_link("s2", "s");
    let mut header = TarWriter::header(b'3', b"null", 0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_mode(0o666);
    writer.raw(header, b"");
    let mut header = TarWriter::header(b'4', b"disk", 0);
    header.set_device_major(8).unwrap();
    header.set_device_minor(300).unwrap();
    writer.raw(header, b"");
    writer.raw(TarWriter::header(b'6', b"pipe", 0), b"");
    let files = fixture.import(&writer.end()).unwrap();

    let inode = |name: &str| fs::symlink_metadata(files.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("dir/b"));
    assert_eq!(inode("s"), inode("s2"));
    let null = fs::metadata(files.join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(null.mode() & 0o777, 0o666);
    let disk = fs::metadata(files.join("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(disk.rdev(), rustix::fs::makedev(8, 300));
    assert!(
        fs::metadata(files.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn extended_attributes_are_set_and_overlays_own_are_defused() {
    let fixture = Fixture::new();
    // CAP_NET_RAW, permitted and effective, version 2: holds a newline byte.
    let capability =
        b"\x01\x00\x00\x02\x0a\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let tar = tar()
        .pax(&[
            (b"SCHILY.xattr.security.capability", capability),
            (b"SCHILY.xattr.user.note", b"a\nb\0c"),
        ])
        .file("ping", b"x")
        .pax(&[(b"SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .directory("dir")
        .pax(&[(b"SCHILY.xattr.user.note", b"no")])
        .symlink("link", "ping")
        .end();
    let files = fixture.import(&tar).unwrap();
    assert_eq!(
        xattr(&files.join("ping"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(xattr(&files.join("ping"), "user.note").unwrap(), b"a\nb\0c");
    assert_eq!(xattr(&files.join("dir"), "trusted.overlay.redirect"), None);
    assert_eq!(
        xattr(&files.join("dir"), "trusted.overlay.overlay.redirect").unwrap(),
        b"/etc"
    );
}

#[test]
fn pax_overrides_what_the_header_says() {
    let fixture = Fixture::new();
    let long = format!("{}/file", "d".repeat(150));
    let target = "t".repeat(300);
    let mut writer = tar();
    writer
        .pax(&[
            (b"path", long.as_bytes()),
            (b"uid", b"3000000"),
            (b"gid", b"3000001"),
            (b"mtime", b"1234.5"),
            (b"size", b"4"),
        ])
        .raw(TarWriter::header(b'0', b"short", 0), b"four")
        .pax(&[(b"linkpath", target.as_bytes())])
        .symlink("link", "x");
    // A global header means nothing.
    writer.raw(TarWriter::header(b'g', b"g", 12), b"12 comment=x");
    let files = fixture.import(&writer.end()).unwrap();
    let file = fs::metadata(files.join(&long)).unwrap();
    assert_eq!((file.uid(), file.gid()), (3_000_000, 3_000_001));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1234, 500_000_000));
    assert_eq!(fs::read(files.join(&long)).unwrap(), b"four");
    assert_eq!(
        fs::read_link(files.join("link")).unwrap().to_str(),
        Some(target.as_str())
    );
}

#[test]
fn what_gnu_tar_writes_comes_out_in_every_format() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    let deep = "directory-with-a-long-name/".repeat(8);
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("n".repeat(120)), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(150), root.join("link")).unwrap();
    // Holes before, between and after many pieces.
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    for index in 1..40 {
        use std::os::unix::fs::FileExt;
        sparse
            .write_all_at(&[index; 5000], u64::from(index) << 20)
            .unwrap();
    }
    sparse.flush().unwrap();
    fs::File::create(root.join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();

    for arguments in [
        &["--format=gnu", "--sparse"][..],
        &["--format=oldgnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
        &["--format=pax"],
    ] {
        let output = Command::new("tar")
            .args(arguments)
            .args(["-C", root.to_str().unwrap(), "-c", "."])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success());
        let fixture = Fixture::new();
        let files = fixture.import(&output.stdout).unwrap();
        let compared = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .args([root, &files])
            .status()
            .unwrap();
        assert!(compared.success(), "{arguments:?}");
        if arguments.contains(&"--sparse") {
            let sparse = fs::metadata(files.join("sparse")).unwrap();
            assert!(sparse.blocks() * 512 < 1 << 20, "{arguments:?}: {sparse:?}");
        }
    }
}

#[test]
fn compressed_layers_are_the_layers_they_hold() {
    let tar = tar().file("file", &vec![b'x'; 1 << 20]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    // Two members and two frames: both formats allow a sequence.
    let mut two = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    two.write_all(&tar[..700]).unwrap();
    let mut two = two.finish().unwrap();
    let mut rest = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    rest.write_all(&tar[700..]).unwrap();
    two.extend(rest.finish().unwrap());
    let frames = [
        zstd::encode_all(&tar[..700], 1).unwrap(),
        zstd::encode_all(&tar[700..], 1).unwrap(),
    ]
    .concat();
    for blob in [
        gzip.finish().unwrap(),
        two,
        zstd::encode_all(&tar[..], 1).unwrap(),
        frames,
    ] {
        let fixture = Fixture::new();
        let layer = LayerDescriptor {
            digest: digest(&blob),
            size: blob.len() as u64,
            diff_id: digest(&tar),
        };
        let files = fixture.import_blob(&blob, &layer).unwrap();
        assert_eq!(fs::metadata(files.join("file")).unwrap().len(), 1 << 20);

        // Cut short and damaged, they are errors at once and leave nothing.
        let fixture = Fixture::new();
        let short = &blob[..blob.len() - 3];
        let error = fixture.import_blob(short, &layer).unwrap_err();
        assert!(error.message.contains("ended after"), "{error}");
        let announced_short = LayerDescriptor {
            size: short.len() as u64,
            ..layer.clone()
        };
        let error = fixture.import_blob(short, &announced_short).unwrap_err();
        assert_eq!(error.kind, guest_protocol::ErrorKind::Corrupt, "{error}");
        let mut damaged = blob.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        let error = fixture.import_blob(&damaged, &layer).unwrap_err();
        assert_eq!(error.kind, guest_protocol::ErrorKind::Corrupt, "{error}");
        fixture.assert_nothing_left();
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let fixture = Fixture::new();
    let tar = tar()
        .file("a", b"first")
        .file("a", b"second")
        .directory("d")
        .file("d/inside", b"x")
        .file("d", b"a file now")
        .file("e", b"x")
        .directory("e")
        .file("e/inside", b"y")
        .file("f", b"kept")
        .hard_link("f", "f")
        .end();
    let files = fixture.import(&tar).unwrap();
    assert_eq!(fs::read(files.join("a")).unwrap(), b"second");
    assert_eq!(fs::read(files.join("d")).unwrap(), b"a file now");
    assert_eq!(fs::read(files.join("e/inside")).unwrap(), b"y");
    assert_eq!(fs::read(files.join("f")).unwrap(), b"kept");
}

#[test]
fn links_inside_the_layer_are_followed_on_the_way_to_an_entry() {
    // What image builders write for a merged /usr.
    let fixture = Fixture::new();
    let tar = tar()
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/libc.so", b"elf")
        .end();
    let files = fixture.import(&tar).unwrap();
    assert_eq!(fs::read(files.join("usr/lib/libc.so")).unwrap(), b"elf");
    assert!(
        fs::symlink_metadata(files.join("lib"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_mode_without_any_right_is_kept() {
    let fixture = Fixture::new();
    let mut writer = tar();
    let mut header = TarWriter::header(b'5', b"closed", 0);
    header.set_mode(0);
    writer.raw(header, b"").file("closed/file", b"x");
    let files = fixture.import(&writer.end()).unwrap();
    assert_eq!(
        fs::metadata(files.join("closed"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0
    );
    assert!(files.join("closed/file").exists());
}
