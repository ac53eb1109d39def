//! Layers that mean harm: an error at once, nothing outside touched, nothing left.

use std::{
    fs,
    io::Read,
    pin::Pin,
    task::{Context, Poll},
};

use guest_protocol::ErrorKind;
use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// Imports `tar`, which must fail as [`ErrorKind::Corrupt`] with `reason` and
/// leave nothing, inside or outside.
fn refused(tar: &[u8], reason: &str) {
    let fixture = Fixture::new();
    let outside = fixture.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    let error = fixture.import(tar).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert!(error.message.contains(reason), "{error}");
    fixture.assert_nothing_left();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    // The store goes on working.
    fixture.import(&tar_of_one_file()).unwrap();
}

fn tar_of_one_file() -> Vec<u8> {
    tar().file("fine", b"x").end()
}

#[test]
fn paths_cannot_climb_out() {
    for path in [
        "../evil",
        "a/../../evil",
        "../../../../../outside/file",
        "/../evil",
    ] {
        refused(&tar().file(path, b"evil").end(), "leads out of the archive");
        refused(&tar().directory(path).end(), "leads out of the archive");
        refused(&tar().symlink(path, "x").end(), "leads out of the archive");
    }
    refused(
        &tar().file("../.wh.file", b"").end(),
        "leads out of the archive",
    );
}

#[test]
fn an_absolute_path_begins_at_the_layers_root() {
    let fixture = Fixture::new();
    let name = format!("{}/absolute", fixture.directory.path().display());
    let files = fixture.import(&tar().file(&name, b"x").end()).unwrap();
    assert!(!std::path::Path::new(&name).exists());
    assert!(files.join(name.trim_start_matches('/')).exists());
}

#[test]
fn nothing_is_written_through_a_symbolic_link_that_leads_out() {
    for target in ["/", "..", "../../../../outside", "/proc/self/root", "self"] {
        let reason = "a symbolic link on its way leads out of the archive or nowhere";
        let through = |name: &str| tar().symlink("self", target).file(name, b"evil").end();
        refused(&through("self/evil"), reason);
        refused(&through("self/outside/file"), reason);
        refused(&through("self/.wh.file"), reason);
        refused(&through("self/.wh..wh..opq"), reason);
        refused(
            &tar().symlink("self", target).directory("self/evil").end(),
            reason,
        );
    }
}

#[test]
fn a_file_replaces_a_symbolic_link_and_does_not_follow_it() {
    let fixture = Fixture::new();
    let outside = fixture.directory.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    let target = outside.to_str().unwrap();
    let tar = tar()
        .symlink("link", target)
        .file("link", b"mine")
        .symlink("other", target)
        .directory("other")
        .end();
    let files = fixture.import(&tar).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(fs::read(files.join("link")).unwrap(), b"mine");
    assert!(fs::symlink_metadata(files.join("other")).unwrap().is_dir());
}

#[test]
fn hard_links_name_files_of_the_layer_only() {
    for target in ["../../../../outside/file", "/../x"] {
        refused(
            &tar().hard_link("stolen", target).end(),
            "leads out of the archive",
        );
    }
    for target in ["nothing", "/etc/passwd", "d"] {
        let tar = tar().directory("d").hard_link("stolen", target).end();
        refused(&tar, "is no file of this layer");
    }
    refused(
        &tar().hard_link("stolen", "/").end(),
        "a hard link to the layer's root",
    );
    let tar = tar()
        .symlink("up", "../../..")
        .hard_link("stolen", "up/outside/file")
        .end();
    refused(&tar, "is no file of this layer");
}

#[test]
fn the_root_stays_a_directory() {
    let fifo = TarWriter::header(b'6', b"./", 0);
    refused(&tar().raw(fifo, b"").end(), "only a directory");
    refused(&tar().symlink(".", "/etc").end(), "only a directory");
    refused(&tar().hard_link("/", "x").end(), "only a directory");
}

#[test]
fn a_file_in_the_way_of_a_directory_is_an_error() {
    let tar = tar().file("a", b"x").file("a/b", b"y").end();
    refused(&tar, "a file is where its directory should be");
}

#[test]
fn whiteouts_need_a_proper_name() {
    for name in [".wh.", ".wh..", "a/.wh..."] {
        refused(&tar().file(name, b"").end(), "whites out no file name");
    }
}

#[test]
fn sizes_that_are_lies_end_in_an_error() {
    let mut header = TarWriter::header(b'0', b"huge", 0);
    header.set_size(1 << 60);
    refused(&tar().raw(header, b"little").end(), "truncated");

    for size in [&b"18446744073709551615"[..], b"9223372036854775807"] {
        let tar = tar().pax(&[(b"size", size)]).file("huge", b"x").end();
        refused(&tar, "truncated");
    }
    let mut header = TarWriter::header(b'x', b"pax", 0);
    header.set_size(1 << 40);
    refused(&tar().raw(header, b"").end(), "larger than 1 MiB");
    let mut header = TarWriter::header(b'L', b"name", 0);
    header.set_size(1 << 21);
    refused(&tar().raw(header, b"").end(), "larger than 1 MiB");
    let name = vec![b'a'; 5000];
    let tar = tar().pax(&[(b"path", &name)]).file("x", b"").end();
    refused(&tar, "longer than");
}

#[test]
fn sparse_maps_that_do_not_fit_are_refused() {
    let map = |map: &[u8], size: &[u8]| {
        tar()
            .pax(&[
                (b"GNU.sparse.map", map),
                (b"GNU.sparse.size", size),
                (b"GNU.sparse.name", b"real"),
            ])
            .file("fake", b"12345")
            .end()
    };
    for (segments, size) in [
        (&b"0,5"[..], &b"4"[..]),
        (b"0,6", b"100"),
        (b"18446744073709551610,5", b"18446744073709551615"),
        (b"10,3,5,2", b"100"),
    ] {
        refused(&map(segments, size), "map does not fit");
    }
    refused(&map(b"0,x", b"5"), "number");
    let fixture = Fixture::new();
    let files = fixture.import(&map(b"10,5", b"4000000000")).unwrap();
    assert_eq!(
        fs::metadata(files.join("real")).unwrap().len(),
        4_000_000_000
    );
    assert!(!files.join("fake").exists());
}

#[test]
fn an_impossible_file_is_an_error_of_the_disk() {
    let fixture = Fixture::new();
    let tar = tar()
        .pax(&[
            (b"GNU.sparse.map", b"0,5"),
            (b"GNU.sparse.size", b"9223372036854775807"),
        ])
        .file("huge", b"12345")
        .end();
    let error = fixture.import(&tar).unwrap_err();
    assert_eq!(error.kind, ErrorKind::System, "{error}");
    fixture.assert_nothing_left();
}

#[test]
fn headers_that_are_nonsense_are_refused() {
    refused(&[b'x'; 512], "damaged");
    refused(
        &tar().raw(TarWriter::header(b'Q', b"what", 0), b"").end(),
        "unknown type",
    );
    let mut header = TarWriter::header(b'0', b"file", 0);
    header.as_old_mut().uid.copy_from_slice(b"zzzzzzz\0");
    refused(&tar().raw(header, b"").end(), "not octal");
    let mut header = TarWriter::header(b'3', b"device", 0);
    header.as_mut_bytes()[329..337].copy_from_slice(b"\x80\0\0\x01\0\0\0\0");
    refused(&tar().raw(header, b"").end(), "out of range");
    refused(&tar().link(b'2', "link", "").end(), "has no target");
    refused(
        &tar().pax(&[(b"path", b"a\0b")]).file("x", b"").end(),
        "NUL",
    );
    refused(
        &tar().pax(&[(b"uid", b"4294967295")]).file("x", b"").end(),
        "out of range",
    );
    refused(
        &tar().pax(&[(b"SCHILY.xattr.", b"x")]).file("x", b"").end(),
        "no proper name",
    );
}

#[test]
fn a_layer_with_another_digest_is_refused() {
    let fixture = Fixture::new();
    let tar = tar_of_one_file();
    let layer = LayerDescriptor {
        diff_id: digest(b"something else"),
        ..descriptor(&tar)
    };
    let error = fixture.import_blob(&tar, &layer).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("expected"), "{error}");
    fixture.assert_nothing_left();
    assert_eq!(
        fixture
            .store
            .missing(std::slice::from_ref(&layer.diff_id))
            .unwrap(),
        std::slice::from_ref(&layer.diff_id)
    );
}

#[test]
fn a_digest_is_checked_to_the_last_byte_after_the_archive() {
    let fixture = Fixture::new();
    let mut tar = tar_of_one_file();
    tar.extend_from_slice(b"something behind it");
    fixture.import(&tar).unwrap();
    let layer = descriptor(&tar);
    let fixture = Fixture::new();
    tar.pop();
    tar.push(b'!');
    assert!(fixture.import_blob(&tar, &layer).is_err());
}

#[test]
fn a_diff_id_that_is_a_path_is_refused() {
    let fixture = Fixture::new();
    let tar = tar_of_one_file();
    for diff_id in ["../../x", "sha256:../x", "sha256:", "sha256:zz", ""] {
        let layer = LayerDescriptor {
            diff_id: diff_id.into(),
            ..descriptor(&tar)
        };
        let error = fixture.import_blob(&tar, &layer).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidParameter);
        assert!(fixture.store.missing(&[diff_id.to_owned()]).is_err());
    }
}

#[test]
fn a_truncated_layer_is_an_error_at_once() {
    let fixture = Fixture::new();
    let tar = tar().file("file", &[7; 4096]).end();
    for end in [0, 1, 511, 512, 600, tar.len() - 1] {
        let error = fixture
            .import_blob(&tar[..end], &descriptor(&tar))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        let ended = format!("ended after {end} of {} bytes", tar.len());
        assert!(error.message.contains(&ended), "{error}");
    }
    fixture.assert_nothing_left();
}

/// Counts what is read of it, and never ends.
struct Endless<R> {
    source: R,
    taken: u64,
}

impl<R: Read + Unpin> AsyncRead for Endless<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.source.read(buffer.initialize_unfilled())?;
        buffer.advance(length);
        self.taken += length as u64;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn the_rest_of_a_bad_layer_is_not_waited_for() {
    let fixture = Fixture::new();
    let bad = tar().file("../evil", b"").end();
    let layer = LayerDescriptor {
        size: 1 << 50,
        ..descriptor(&bad)
    };
    let mut stream = Endless {
        source: bad.as_slice().chain(std::io::repeat(0)),
        taken: 0,
    };
    let result = fixture.runtime.block_on(async {
        let reservation = fixture.store.reserve_layer(&layer).await.unwrap().unwrap();
        reservation.import(&mut stream).await
    });
    assert_eq!(result.unwrap_err().kind, ErrorKind::Corrupt);
    assert!(stream.taken < 16 << 20, "{}", stream.taken);
}

#[test]
fn a_decompression_bomb_can_be_aborted() {
    let fixture = Fixture::new();
    // A file of 256 GiB of zeros that never comes to its end.
    let mut header = TarWriter::header(b'0', b"zeros", 0);
    header.set_size(1 << 38);
    header.set_cksum();
    let zeros = (&header.as_bytes()[..]).chain(std::io::repeat(0));
    let compressed = zstd::stream::read::Encoder::new(zeros, 1).unwrap();
    let layer = LayerDescriptor {
        digest: digest(b"bomb"),
        size: 1 << 40,
        diff_id: digest(b"bomb"),
    };
    let mut stream = Endless {
        source: compressed,
        taken: 0,
    };
    fixture.runtime.block_on(async {
        let reservation = fixture.store.reserve_layer(&layer).await.unwrap().unwrap();
        let import = reservation.import(&mut stream);
        let first_bytes_on_disk = async {
            let unpacked = fixture.data().join("layers/tmp-0/fs/zeros");
            while fs::metadata(&unpacked).map_or(0, |file| file.len()) < 1 << 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            result = import => panic!("{result:?}"),
            () = first_bytes_on_disk => {}
        }
        // The future is dropped. Whoever wants the layer next gets it when the
        // import has cleaned up behind itself.
        assert!(fixture.store.reserve_layer(&layer).await.unwrap().is_some());
    });
    fixture.assert_nothing_left();
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let fixture = Fixture::new();
    let small = fixture.directory.path().join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount(
        "tmpfs",
        &small,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=8m"),
    )
    .unwrap();
    let database = redb::Database::create(fixture.directory.path().join("small.redb")).unwrap();
    let store = ImageStore::open(&small, Arc::new(database)).unwrap();
    let tar = tar().file("big", &vec![1; 10 << 20]).end();
    let result = fixture.runtime.block_on(async {
        let reservation = store.reserve_layer(&descriptor(&tar)).await.unwrap();
        reservation.unwrap().import(&mut tar.as_slice()).await
    });
    let left = fs::read_dir(small.join("layers")).unwrap().count();
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert!(error.message.contains("disk is full"), "{error}");
    assert_eq!(left, 0);
}
