//! Hard and symbolic links, and special files.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use crate::{Check, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a hard link is the same file",
        run: hard_link,
    },
    Check {
        name: "no hard links to directories",
        run: no_directories,
    },
    Check {
        name: "a hard link to a symbolic link",
        run: link_to_link,
    },
    Check {
        name: "a symbolic link holds any text",
        run: text,
    },
    Check {
        name: "symbolic links are followed",
        run: followed,
    },
    Check {
        name: "circles of symbolic links end",
        run: circle,
    },
    Check {
        name: "a FIFO carries bytes",
        run: fifo,
    },
    Check {
        name: "a socket can be bound and connected",
        run: socket,
    },
];

fn hard_link(at: &Path) -> Result<()> {
    let (one, two) = (at.join("one"), at.join("two"));
    fs::write(&one, "text")?;
    fs::hard_link(&one, &two)?;
    let (first, second) = (fs::metadata(&one)?, fs::metadata(&two)?);
    ensure!(first.ino() == second.ino() && first.nlink() == 2 && second.nlink() == 2);
    fs::write(&two, "other")?;
    ensure!(fs::read(&one)? == b"other");
    io_fails(fs::hard_link(&one, &two), Errno::EXIST)?;
    fs::remove_file(&one)?;
    ensure!(fs::read(&two)? == b"other" && fs::metadata(&two)?.nlink() == 1);
    Ok(())
}

fn no_directories(at: &Path) -> Result<()> {
    fs::create_dir(at.join("d"))?;
    io_fails(fs::hard_link(at.join("d"), at.join("e")), Errno::PERM)
}

fn link_to_link(at: &Path) -> Result<()> {
    symlink("nowhere", at.join("l"))?;
    fs::hard_link(at.join("l"), at.join("m"))?;
    ensure!(fs::read_link(at.join("m"))? == Path::new("nowhere"));
    ensure!(fs::symlink_metadata(at.join("l"))?.nlink() == 2);
    Ok(())
}

fn text(at: &Path) -> Result<()> {
    for (number, target) in ["x", "/", "../../..", "\u{e4}\n", &"t".repeat(4095)]
        .iter()
        .enumerate()
    {
        let path = at.join(number.to_string());
        symlink(target, &path)?;
        ensure!(fs::read_link(&path)? == Path::new(target));
        let metadata = fs::symlink_metadata(&path)?;
        ensure!(metadata.is_symlink() && metadata.len() == target.len() as u64);
    }
    Ok(())
}

fn followed(at: &Path) -> Result<()> {
    fs::create_dir(at.join("d"))?;
    fs::write(at.join("d/f"), "text")?;
    symlink("d", at.join("l"))?;
    ensure!(fs::read(at.join("l/f"))? == b"text");
    symlink("l/f", at.join("m"))?;
    fs::write(at.join("m"), "new")?;
    ensure!(fs::read(at.join("d/f"))? == b"new");
    fs::remove_file(at.join("m"))?;
    ensure!(at.join("d/f").exists());
    Ok(())
}

fn circle(at: &Path) -> Result<()> {
    symlink("b", at.join("a"))?;
    symlink("a", at.join("b"))?;
    io_fails(fs::read(at.join("a")), Errno::LOOP)
}

fn fifo(at: &Path) -> Result<()> {
    let path = at.join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
    ensure!(fs::metadata(&path)?.file_type().is_fifo());
    let read = std::thread::scope(|scope| -> Result<Vec<u8>> {
        let reader = scope.spawn(|| fs::read(&path));
        fs::write(&path, "through")?;
        Ok(reader.join().unwrap_or_else(|_| Ok(Vec::new()))?)
    })?;
    ensure!(read == b"through");
    Ok(())
}

fn socket(at: &Path) -> Result<()> {
    // Socket addresses are short.
    let directory = File::open(at)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let short = format!("/proc/self/fd/{number}/s");
    let listener = UnixListener::bind(&short)?;
    ensure!(fs::metadata(at.join("s"))?.file_type().is_socket());
    UnixStream::connect(&short)?;
    listener.accept()?;
    Ok(())
}
