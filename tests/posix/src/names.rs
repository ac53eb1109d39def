//! Names of files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::{Check, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "names in any bytes",
        run: any_bytes,
    },
    Check {
        name: "names of 255 bytes and no more",
        run: long_names,
    },
    Check {
        name: "names differ by case",
        run: case,
    },
    Check {
        name: "a trailing slash names a directory",
        run: trailing_slash,
    },
    Check {
        name: "deep trees",
        run: deep,
    },
    Check {
        name: "dots lead where they should",
        run: dots,
    },
];

fn any_bytes(at: &Path) -> Result<()> {
    let mut expected = Vec::new();
    for byte in (1..=255_u8).filter(|byte| *byte != b'/') {
        let name = [b'x', byte, b'y'];
        fs::write(at.join(OsStr::from_bytes(&name)), [byte])?;
        expected.push(name.to_vec());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let name = entry.file_name();
        ensure!(fs::read(entry.path())? == [name.as_bytes()[1]]);
        found.push(name.as_bytes().to_vec());
    }
    found.sort();
    ensure!(found == expected);
    Ok(())
}

fn long_names(at: &Path) -> Result<()> {
    let longest = "n".repeat(255);
    File::create(at.join(&longest))?;
    ensure!(
        fs::read_dir(at)?
            .next()
            .transpose()?
            .is_some_and(|entry| entry.file_name() == *longest)
    );
    let longer = at.join("n".repeat(256));
    io_fails(File::create(&longer), Errno::NAMETOOLONG)?;
    io_fails(fs::metadata(&longer), Errno::NAMETOOLONG)?;
    io_fails(fs::create_dir(&longer), Errno::NAMETOOLONG)
}

fn case(at: &Path) -> Result<()> {
    fs::write(at.join("name"), "lower")?;
    fs::write(at.join("NAME"), "upper")?;
    ensure!(fs::read(at.join("name"))? == b"lower");
    Ok(())
}

fn trailing_slash(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    io_fails(fs::metadata(at.join("f/")), Errno::NOTDIR)?;
    io_fails(fs::metadata(at.join("f/x")), Errno::NOTDIR)?;
    fs::create_dir(at.join("d/"))?;
    ensure!(fs::metadata(at.join("d/"))?.is_dir());
    Ok(())
}

fn deep(at: &Path) -> Result<()> {
    let mut path = at.to_path_buf();
    for level in 0..200 {
        path.push(format!("level{level}"));
    }
    fs::create_dir_all(&path)?;
    fs::write(path.join("f"), "deep")?;
    ensure!(fs::read(path.join("f"))? == b"deep");
    Ok(())
}

fn dots(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("a/b"))?;
    fs::write(at.join("f"), "text")?;
    ensure!(fs::read(at.join("a/./b/../../f"))? == b"text");
    io_fails(fs::remove_dir(at.join("a/.")), Errno::INVAL)?;
    io_fails(fs::create_dir(at.join("a/..")), Errno::EXIST)
}
