//! Renaming.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{Check, fails, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "rename keeps the file",
        run: keeps,
    },
    Check {
        name: "rename replaces a file at once",
        run: replaces,
    },
    Check {
        name: "a replaced file that is open stays",
        run: replaced_open,
    },
    Check {
        name: "rename of directories",
        run: directories,
    },
    Check {
        name: "rename between kinds is refused",
        run: kinds,
    },
    Check {
        name: "no directory is moved into itself",
        run: into_itself,
    },
    Check {
        name: "rename of one hard link to another does nothing",
        run: same_file,
    },
    Check {
        name: "RENAME_NOREPLACE",
        run: no_replace,
    },
    Check {
        name: "RENAME_EXCHANGE",
        run: exchange,
    },
    Check {
        name: "a moved directory's files are found",
        run: contents_move,
    },
    Check {
        name: "always one of two files is there",
        run: atomic,
    },
];

fn keeps(at: &Path) -> Result<()> {
    fs::write(at.join("a"), "text")?;
    let before = fs::metadata(at.join("a"))?.ino();
    fs::rename(at.join("a"), at.join("b"))?;
    io_fails(fs::metadata(at.join("a")), Errno::NOENT)?;
    ensure!(fs::read(at.join("b"))? == b"text" && fs::metadata(at.join("b"))?.ino() == before);
    io_fails(fs::rename(at.join("a"), at.join("c")), Errno::NOENT)
}

fn replaces(at: &Path) -> Result<()> {
    fs::write(at.join("old"), "old")?;
    fs::write(at.join("new"), "new")?;
    fs::rename(at.join("new"), at.join("old"))?;
    ensure!(fs::read(at.join("old"))? == b"new" && fs::read_dir(at)?.count() == 1);
    Ok(())
}

fn replaced_open(at: &Path) -> Result<()> {
    fs::write(at.join("old"), "old")?;
    let open = File::open(at.join("old"))?;
    fs::write(at.join("new"), "new")?;
    fs::rename(at.join("new"), at.join("old"))?;
    ensure!(std::io::read_to_string(&open)? == "old" && open.metadata()?.nlink() == 0);
    Ok(())
}

fn directories(at: &Path) -> Result<()> {
    for name in ["a", "b", "full"] {
        fs::create_dir(at.join(name))?;
    }
    File::create(at.join("full/f"))?;
    fs::rename(at.join("a"), at.join("b"))?;
    ensure!(!at.join("a").exists() && at.join("b").is_dir());
    let result = fs::rename(at.join("b"), at.join("full"));
    io_fails(result, Errno::NOTEMPTY)
}

fn kinds(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    fs::create_dir(at.join("d"))?;
    io_fails(fs::rename(at.join("f"), at.join("d")), Errno::ISDIR)?;
    io_fails(fs::rename(at.join("d"), at.join("f")), Errno::NOTDIR)
}

fn into_itself(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("a/b"))?;
    io_fails(fs::rename(at.join("a"), at.join("a/b/c")), Errno::INVAL)
}

fn same_file(at: &Path) -> Result<()> {
    File::create(at.join("a"))?;
    fs::hard_link(at.join("a"), at.join("b"))?;
    fs::rename(at.join("a"), at.join("b"))?;
    ensure!(at.join("a").exists() && at.join("b").exists());
    Ok(())
}

fn no_replace(at: &Path) -> Result<()> {
    fs::write(at.join("a"), "a")?;
    fs::write(at.join("b"), "b")?;
    let rename = |to: &str| {
        let flags = RenameFlags::NOREPLACE;
        renameat_with(CWD, at.join("a"), CWD, at.join(to), flags)
    };
    fails(rename("b"), Errno::EXIST)?;
    ensure!(fs::read(at.join("b"))? == b"b");
    Ok(rename("c")?)
}

fn exchange(at: &Path) -> Result<()> {
    fs::create_dir(at.join("d"))?;
    fs::write(at.join("d/in"), "in")?;
    fs::write(at.join("f"), "f")?;
    let rename = |to: &str| {
        let flags = RenameFlags::EXCHANGE;
        renameat_with(CWD, at.join("f"), CWD, at.join(to), flags)
    };
    rename("d")?;
    ensure!(fs::read(at.join("d"))? == b"f" && fs::read(at.join("f/in"))? == b"in");
    fails(rename("missing"), Errno::NOENT)
}

fn contents_move(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("a/b"))?;
    fs::create_dir(at.join("c"))?;
    fs::write(at.join("a/b/f"), "text")?;
    let open = File::open(at.join("a/b/f"))?;
    fs::rename(at.join("a/b"), at.join("c/d"))?;
    ensure!(fs::read(at.join("c/d/f"))? == b"text");
    ensure!(fs::metadata(at.join("c/d/.."))?.ino() == fs::metadata(at.join("c"))?.ino());
    ensure!(open.metadata()?.ino() == fs::metadata(at.join("c/d/f"))?.ino());
    fs::write(at.join("c/d/g"), "more")?;
    io_fails(fs::metadata(at.join("a/b/f")), Errno::NOENT)
}

fn atomic(at: &Path) -> Result<()> {
    use std::sync::atomic::{AtomicBool, Ordering};
    let done = AtomicBool::new(false);
    fs::write(at.join("f"), "0")?;
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                let text = fs::read(at.join("f"))?;
                ensure!(text.len() == 1, "{text:?}");
            }
            Ok(())
        });
        let mut result = Ok(());
        for number in 0..200_u8 {
            let written = fs::write(at.join("new"), [number])
                .and_then(|()| fs::rename(at.join("new"), at.join("f")));
            if let Err(error) = written {
                result = Err(error);
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap_or(Ok(()))?;
        Ok(result?)
    })
}
