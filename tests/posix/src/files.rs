//! Regular files: making, reading, writing.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::{Errno, ReadWriteFlags};

use crate::{Check, fails, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "what is written is read",
        run: read_back,
    },
    Check {
        name: "a large file with odd sizes",
        run: odd_sizes,
    },
    Check {
        name: "O_EXCL makes only what is not there",
        run: exclusive,
    },
    Check {
        name: "O_APPEND writes at the end",
        run: append,
    },
    Check {
        name: "two appenders lose nothing",
        run: two_appenders,
    },
    Check {
        name: "O_TRUNC empties a file",
        run: truncate_on_open,
    },
    Check {
        name: "truncate makes longer and shorter",
        run: truncate,
    },
    Check {
        name: "an open file outlives its name",
        run: unlinked,
    },
    Check {
        name: "O_TMPFILE has no name until it is linked",
        run: nameless,
    },
    Check {
        name: "a directory can't be opened for writing",
        run: directory_for_writing,
    },
    Check {
        name: "O_NOFOLLOW does not follow",
        run: no_follow,
    },
    Check {
        name: "O_DIRECTORY opens no files",
        run: only_directories,
    },
    Check {
        name: "what one writes another reads at once",
        run: two_descriptors,
    },
    Check {
        name: "vectored reads and writes",
        run: vectored,
    },
    Check {
        name: "fsync and fdatasync",
        run: sync,
    },
];

pub(crate) const FOR_ROOT: &[Check] = &[Check {
    name: "writing takes set-user-ID away",
    run: set_user_id,
}];

fn read_back(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, b"text")?;
    ensure!(fs::read(&path)? == b"text");
    let metadata = fs::metadata(&path)?;
    ensure!(metadata.len() == 4 && metadata.nlink() == 1 && metadata.is_file());
    Ok(())
}

fn odd_sizes(at: &Path) -> Result<()> {
    let path = at.join("f");
    let mut expected = Vec::new();
    let mut file = File::create(&path)?;
    for length in [1, 4095, 4097, 131_073, 1_048_577, 3] {
        let part: Vec<u8> = (0..length).map(|byte| (byte % 251) as u8).collect();
        file.write_all(&part)?;
        expected.extend(part);
    }
    ensure!(fs::read(&path)? == expected);
    let mut middle = vec![0; 9999];
    File::open(&path)?.read_exact_at(&mut middle, 100_001)?;
    ensure!(middle == expected[100_001..110_000]);
    Ok(())
}

fn exclusive(at: &Path) -> Result<()> {
    let path = at.join("f");
    let new = || OpenOptions::new().write(true).create_new(true).open(&path);
    new()?;
    io_fails(new(), Errno::EXIST)?;
    std::os::unix::fs::symlink("nowhere", at.join("l"))?;
    let link = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(at.join("l"));
    io_fails(link, Errno::EXIST)
}

fn append(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "1")?;
    let mut file = OpenOptions::new().append(true).open(&path)?;
    OpenOptions::new()
        .append(true)
        .open(&path)?
        .write_all(b"22")?;
    file.write_all(b"333")?;
    ensure!(fs::read(&path)? == b"122333");
    Ok(())
}

fn two_appenders(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut file = OpenOptions::new().append(true).open(&path)?;
                    for _ in 0..100 {
                        file.write_all(b"0123456789")?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or(Ok(())))
    })?;
    ensure!(fs::read(&path)? == b"0123456789".repeat(200));
    Ok(())
}

fn truncate_on_open(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "text")?;
    let file = OpenOptions::new().write(true).truncate(true).open(&path)?;
    ensure!(file.metadata()?.len() == 0 && fs::read(&path)?.is_empty());
    Ok(())
}

fn truncate(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "0123456789")?;
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(4)?;
    ensure!(fs::read(&path)? == b"0123");
    file.set_len(8)?;
    ensure!(fs::read(&path)? == b"0123\0\0\0\0");
    // Without a descriptor.
    nix::unistd::truncate(&path, 2)?;
    ensure!(fs::read(&path)? == b"01" && file.metadata()?.len() == 2);
    fails(rustix::fs::ftruncate(File::open(&path)?, 0), Errno::INVAL)
}

fn unlinked(at: &Path) -> Result<()> {
    let path = at.join("f");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    file.write_all(b"text")?;
    fs::remove_file(&path)?;
    ensure!(file.metadata()?.nlink() == 0);
    file.write_all(b" more")?;
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure!(text == "text more");
    file.set_len(1)?;
    ensure!(file.metadata()?.len() == 1);
    io_fails(fs::metadata(&path), Errno::NOENT)
}

fn nameless(at: &Path) -> Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let file = File::from(open(at, flags, Mode::from_raw_mode(0o640))?);
    (&file).write_all(b"text")?;
    ensure!(fs::read_dir(at)?.count() == 0);
    ensure!(file.metadata()?.nlink() == 0 && file.metadata()?.mode() & 0o7777 == 0o640);
    let by_number = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    linkat(CWD, by_number, CWD, at.join("f"), AtFlags::SYMLINK_FOLLOW)?;
    ensure!(fs::read(at.join("f"))? == b"text" && file.metadata()?.nlink() == 1);
    Ok(())
}

fn directory_for_writing(at: &Path) -> Result<()> {
    fails(open(at, OFlags::RDWR, Mode::empty()), Errno::ISDIR)
}

fn no_follow(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    std::os::unix::fs::symlink("f", at.join("l"))?;
    let link = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(at.join("l"));
    io_fails(link, Errno::LOOP)
}

fn only_directories(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    fails(open(at.join("f"), flags, Mode::empty()), Errno::NOTDIR)
}

fn two_descriptors(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "old")?;
    let reader = File::open(&path)?;
    let mut text = [0; 3];
    reader.read_exact_at(&mut text, 0)?;
    let writer = OpenOptions::new().write(true).open(&path)?;
    writer.write_all_at(b"new", 0)?;
    reader.read_exact_at(&mut text, 0)?;
    ensure!(&text == b"new");
    Ok(())
}

fn set_user_id(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o6777);
    fs::set_permissions(&path, open)?;
    ensure!(fs::metadata(&path)?.mode() & 0o7777 == 0o6777);
    crate::users::as_user(crate::users::USER, || {
        Ok(OpenOptions::new()
            .write(true)
            .open(&path)?
            .write_all(b"x")?)
    })?;
    ensure!(fs::metadata(&path)?.mode() & 0o7777 == 0o777);
    Ok(())
}

fn vectored(at: &Path) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(at.join("f"))?;
    let parts = [
        std::io::IoSlice::new(b"one"),
        std::io::IoSlice::new(b""),
        std::io::IoSlice::new(b"two"),
    ];
    let none = ReadWriteFlags::empty();
    ensure!(rustix::io::pwritev2(file.as_fd(), &parts, 5, none)? == 6);
    let mut text = [0; 11];
    file.read_exact_at(&mut text, 0)?;
    ensure!(&text == b"\0\0\0\0\0onetwo");
    Ok(())
}

fn sync(at: &Path) -> Result<()> {
    let mut file = File::create(at.join("f"))?;
    file.write_all(b"text")?;
    file.sync_all()?;
    file.sync_data()?;
    File::open(at)?.sync_all()?;
    Ok(rustix::fs::syncfs(&file)?)
}
