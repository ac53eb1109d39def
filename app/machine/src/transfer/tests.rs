//! Machines that travel, and streams that are not what they seem.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::FileExt};

use proptest::prelude::*;

use super::*;
use crate::{Change, Error, Machine, Paths, Settings, disk};

const DISK_BYTES: u64 = 64 << 20;

struct Home {
    _directory: tempfile::TempDir,
    paths: Paths,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::under(directory.path());
        Self {
            _directory: directory,
            paths,
        }
    }

    /// A machine `a` whose disk has data at its beginning, within and at its end.
    async fn machine(&self) -> Machine {
        let change = Change {
            cpus: Some(1),
            disk_gib: Some(1),
            ..Change::default()
        };
        let machine = Machine::create(&self.paths, "a", change, None)
            .await
            .unwrap();
        let path = machine.files().disk();
        disk::prepare(&path, DISK_BYTES).unwrap();
        let disk = OpenOptions::new().write(true).open(path).unwrap();
        for (offset, byte) in [(0, 1), (30 << 20, 2), (DISK_BYTES - 4096, 3)] {
            disk.write_all_at(&[byte; 4096], offset).unwrap();
        }
        machine
    }

    async fn import(&self, stream: Vec<u8>, name: &str) -> crate::Result<Machine> {
        let stream = std::io::Cursor::new(stream);
        Machine::import(&self.paths, stream, Some(name.to_owned()), |_| {}).await
    }

    /// What is in the machines' directory beside the lock.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.paths.machines_directory());
        let mut names: Vec<_> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".lock")
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_machine_comes_back_as_it_was() {
    let home = Home::new();
    let machine = home.machine().await;
    let stream = machine.export(Vec::new(), |_| {}).await.unwrap();
    // Holes take nothing.
    assert!(stream.len() < 64 << 10, "{}", stream.len());
    let copy = home.import(stream, "b").await.unwrap();
    assert_eq!(
        Settings::load(copy.files()).unwrap(),
        Settings::load(machine.files()).unwrap()
    );
    let (old, new) = (machine.files().disk(), copy.files().disk());
    let usage = disk::usage(&new).unwrap();
    assert_eq!(usage.size, DISK_BYTES);
    assert!(usage.used < 1 << 20, "{usage:?}");
    let same = std::process::Command::new("cmp").args([old, new]).status();
    assert!(same.unwrap().success());
}

#[tokio::test]
async fn a_machine_that_never_booted_travels_too() {
    let home = Home::new();
    let machine = Machine::create(&home.paths, "a", Change::default(), None)
        .await
        .unwrap();
    let stream = machine.export(Vec::new(), |_| {}).await.unwrap();
    let copy = home.import(stream, "b").await.unwrap();
    assert!(!copy.files().disk().exists());
}

#[tokio::test]
async fn a_machine_that_runs_or_is_not_there_is_not_exported() {
    let home = Home::new();
    let machine = home.machine().await;
    let held = crate::lock::Lock::acquire(&machine.files().lock()).unwrap();
    let error = machine.export(Vec::new(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Running(_)), "{error}");
    drop(held);
    let nobody = Machine::open(&home.paths, "nobody").unwrap();
    let error = nobody.export(Vec::new(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchMachine(_)), "{error}");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let home = Home::new();
    let stream = home
        .machine()
        .await
        .export(Vec::new(), |_| {})
        .await
        .unwrap();
    let error = home.import(stream, "a").await.unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
}

#[tokio::test]
async fn a_stream_that_was_cut_off_anywhere_leaves_nothing() {
    let home = Home::new();
    let stream = home
        .machine()
        .await
        .export(Vec::new(), |_| {})
        .await
        .unwrap();
    for length in [0, 1, 10, stream.len() / 2, stream.len() - 1] {
        let error = home
            .import(stream[..length].to_vec(), "b")
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Transfer(_)), "{length}: {error}");
        assert_eq!(home.names(), ["a"]);
    }
}

/// Name, kind and contents.
type Member<'a> = (&'a str, tar::EntryType, &'a [u8]);

/// A stream with these members, each with a header of its own making.
fn stream(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, contents) in members {
        let mut header = tar::Header::new_ustar();
        let bytes = &mut header.as_old_mut().name;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        tar.append(&header, *contents).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap()
}

fn header(disk_bytes: u64, data_bytes: u64) -> Vec<u8> {
    serde_json::to_vec(&Header {
        version: VERSION,
        name: "../evil".into(),
        disk_bytes,
        data_bytes,
    })
    .unwrap()
}

#[tokio::test]
async fn hostile_streams_are_refused_and_leave_nothing() {
    const FILE: tar::EntryType = tar::EntryType::Regular;
    let home = Home::new();
    home.machine().await;
    let (small, huge) = (header(8192, 4096), header(u64::MAX, 1));
    let page = [7; 4096];
    let first = format!("{DISK}{:016x}", 0);
    let far = format!("{DISK}{:016x}", 8192);
    let wrapped = format!("{DISK}{:016x}", u64::MAX);
    let streams: Vec<(&str, Vec<Member<'_>>)> = vec![
        ("no header", vec![(SETTINGS, FILE, b"")]),
        ("an impossible disk", vec![(HEADER, FILE, &huge)]),
        (
            "another format",
            vec![(
                HEADER,
                FILE,
                br#"{"version":9,"name":"a","disk_bytes":0,"data_bytes":0}"#,
            )],
        ),
        (
            "settings that cannot be",
            vec![(HEADER, FILE, &small), (SETTINGS, FILE, b"cpus = 0")],
        ),
        (
            "beyond the disk",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&far, FILE, &page),
            ],
        ),
        (
            "round the end",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&wrapped, FILE, &page),
            ],
        ),
        (
            "overlapping",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&first, FILE, &page),
                (&first, FILE, &page),
            ],
        ),
        (
            "more than it says",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&first, FILE, &[7; 8192]),
            ],
        ),
        (
            "a path out",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                ("../../evil", FILE, &page),
            ],
        ),
        (
            "a link",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, tar::EntryType::Symlink, b""),
            ],
        ),
        (
            "a long name",
            vec![(HEADER, tar::EntryType::GNULongName, &[b'a'; 100_000])],
        ),
        (
            "a wrong digest",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&first, FILE, &page),
                (DIGEST, FILE, b"00"),
            ],
        ),
        (
            "no digest",
            vec![
                (HEADER, FILE, &small),
                (SETTINGS, FILE, b""),
                (&first, FILE, &page),
            ],
        ),
    ];
    for (what, members) in streams {
        let result = home.import(stream(&members), "b").await;
        assert!(result.is_err(), "{what}");
        assert_eq!(home.names(), ["a"], "{what}");
    }
    // The name in the stream is checked as any other.
    let evil = stream(&[(HEADER, FILE, &small)]);
    let result = Machine::import(&home.paths, std::io::Cursor::new(evil), None, |_| {}).await;
    assert!(matches!(result, Err(Error::InvalidName(_))), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed in a stream, the machine is as it was or not there.
    #[test]
    fn a_changed_byte_is_noticed(at in 0_usize..usize::MAX, with in 1_u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let home = Home::new();
        let mut bytes = runtime.block_on(async {
            let machine = home.machine().await;
            machine.export(Vec::new(), |_| {}).await.unwrap()
        });
        let at = at % bytes.len();
        bytes[at] ^= with;
        if runtime.block_on(home.import(bytes, "b")).is_ok() {
            let disk = |name| home.paths.machine(name).unwrap().disk();
            let same = std::process::Command::new("cmp").args([disk("a"), disk("b")]).status();
            prop_assert!(same.unwrap().success());
        } else {
            prop_assert_eq!(home.names(), ["a"]);
        }
    }
}

#[tokio::test]
async fn what_a_crash_left_goes_with_the_next_machine_that_is_made() {
    let home = Home::new();
    let left = home.paths.machines_directory().join(".new-left");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::File::create(left.join("data.raw"))
        .unwrap()
        .write_all(b"half")
        .unwrap();
    home.machine().await;
    assert_eq!(home.names(), ["a"]);
}
