//! Directories.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::{Check, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "mkdir and rmdir",
        run: make_and_remove,
    },
    Check {
        name: "only empty directories are removed",
        run: not_empty,
    },
    Check {
        name: "a directory of many files is listed whole",
        run: many,
    },
    Check {
        name: "removing while listing",
        run: remove_while_listing,
    },
    Check {
        name: "a listing can be rewound",
        run: rewind,
    },
    Check {
        name: "inode numbers agree",
        run: numbers,
    },
    Check {
        name: "a removed directory takes no files",
        run: removed,
    },
    Check {
        name: "making and removing changes the directory's times",
        run: times,
    },
];

fn make_and_remove(at: &Path) -> Result<()> {
    let path = at.join("d");
    fs::create_dir(&path)?;
    io_fails(fs::create_dir(&path), Errno::EXIST)?;
    ensure!(fs::metadata(&path)?.is_dir());
    io_fails(fs::remove_file(&path), Errno::ISDIR)?;
    fs::remove_dir(&path)?;
    io_fails(fs::remove_dir(&path), Errno::NOENT)?;
    File::create(&path)?;
    io_fails(fs::remove_dir(&path), Errno::NOTDIR)
}

fn not_empty(at: &Path) -> Result<()> {
    fs::create_dir(at.join("d"))?;
    File::create(at.join("d/f"))?;
    io_fails(fs::remove_dir(at.join("d")), Errno::NOTEMPTY)
}

fn many(at: &Path) -> Result<()> {
    let expected: BTreeSet<String> = (0..1000).map(|number| format!("file{number}")).collect();
    for name in &expected {
        File::create(at.join(name))?;
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        ensure!(entry.file_type()?.is_file());
        ensure!(found.insert(entry.file_name().to_string_lossy().into_owned()));
    }
    ensure!(found == expected);
    Ok(())
}

fn remove_while_listing(at: &Path) -> Result<()> {
    for number in 0..400 {
        File::create(at.join(number.to_string()))?;
    }
    for entry in fs::read_dir(at)? {
        fs::remove_file(entry?.path())?;
    }
    ensure!(fs::read_dir(at)?.count() == 0);
    Ok(())
}

fn rewind(at: &Path) -> Result<()> {
    File::create(at.join("one"))?;
    let mut listing = rustix::fs::Dir::read_from(File::open(at)?)?;
    ensure!(listing.by_ref().count() == 3);
    File::create(at.join("two"))?;
    listing.rewind();
    ensure!(listing.count() == 4);
    Ok(())
}

fn numbers(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    fs::create_dir(at.join("d"))?;
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let number = std::os::unix::fs::DirEntryExt::ino(&entry);
        ensure!(number == entry.metadata()?.ino());
    }
    let dot = fs::metadata(at.join("d/.."))?;
    ensure!(dot.ino() == fs::metadata(at)?.ino());
    Ok(())
}

fn removed(at: &Path) -> Result<()> {
    use rustix::fs::{Mode, OFlags, openat};
    fs::create_dir(at.join("d"))?;
    let directory = File::open(at.join("d"))?;
    fs::remove_dir(at.join("d"))?;
    let flags = OFlags::CREATE | OFlags::WRONLY;
    crate::fails(openat(&directory, "f", flags, Mode::RUSR), Errno::NOENT)
}

type Step = fn(&Path) -> std::io::Result<()>;

fn times(at: &Path) -> Result<()> {
    let time = || -> Result<_> {
        let metadata = fs::metadata(at)?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    };
    let old = rustix::fs::Timespec {
        tv_sec: 1_000_000,
        tv_nsec: 0,
    };
    let set = rustix::fs::Timestamps {
        last_access: old,
        last_modification: old,
    };
    let steps: [Step; 3] = [
        |at| File::create(at.join("f")).map(drop),
        |at| fs::rename(at.join("f"), at.join("g")),
        |at| fs::remove_file(at.join("g")),
    ];
    for step in steps {
        rustix::fs::futimens(File::open(at)?, &set)?;
        let before = time()?;
        ensure!(before.0 == 1_000_000);
        step(at)?;
        ensure!(time()? > before);
    }
    Ok(())
}
