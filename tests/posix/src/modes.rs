//! Modes and who may do what.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::users::{OTHER, USER, as_user};
use crate::{Check, io_fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "every mode can be set",
        run: every_mode,
    },
    Check {
        name: "files are made with their mode",
        run: made_with,
    },
    Check {
        name: "what is not executable is not executed",
        run: executable,
    },
];

pub(crate) const FOR_ROOT: &[Check] = &[
    Check {
        name: "root may do everything whatever the mode",
        run: root,
    },
    Check {
        name: "a mode keeps others out",
        run: keeps_out,
    },
    Check {
        name: "a directory's mode keeps others out",
        run: directory_keeps_out,
    },
    Check {
        name: "a sticky directory protects",
        run: sticky,
    },
    Check {
        name: "a set-group-ID directory hands its group on",
        run: set_group,
    },
    Check {
        name: "only the owner changes a mode",
        run: only_owner,
    },
];

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path)?.mode() & 0o7777)
}

fn set(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn every_mode(at: &Path) -> Result<()> {
    let (file, directory) = (at.join("f"), at.join("d"));
    File::create(&file)?;
    fs::create_dir(&directory)?;
    for path in [&file, &directory] {
        let kind = fs::metadata(path)?.mode() & 0o170_000;
        for wanted in (0..=0o7777)
            .step_by(7)
            .chain([0, 0o700, 0o755, 0o4755, 0o1777])
        {
            set(path, wanted)?;
            ensure!(fs::metadata(path)?.mode() == kind | wanted, "{wanted:o}");
        }
    }
    Ok(())
}

fn made_with(at: &Path) -> Result<()> {
    for wanted in [0o600, 0o400, 0o444, 0o755, 0o000] {
        let path = at.join(format!("{wanted:o}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(wanted)
            .open(&path)?;
        // Who makes it may write whatever the mode.
        std::io::Write::write_all(&mut file, b"text")?;
        ensure!(mode(&path)? == wanted, "{wanted:o} is {:o}", mode(&path)?);
    }
    Ok(())
}

fn root(at: &Path) -> Result<()> {
    fs::create_dir(at.join("d"))?;
    fs::write(at.join("d/f"), "text")?;
    set(&at.join("d/f"), 0)?;
    set(&at.join("d"), 0)?;
    ensure!(fs::read(at.join("d/f"))? == b"text");
    fs::write(at.join("d/f"), "new")?;
    fs::write(at.join("d/g"), "more")?;
    ensure!(fs::read_dir(at.join("d"))?.count() == 2);
    ensure!(mode(&at.join("d"))? == 0 && mode(&at.join("d/f"))? == 0);
    fs::remove_file(at.join("d/f"))?;
    Ok(())
}

fn keeps_out(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "text")?;
    chown(&path, Some(USER), Some(USER))?;
    set(&path, 0o640)?;
    as_user(OTHER, || io_fails(fs::read(&path), Errno::ACCESS))?;
    as_user(USER, || {
        fs::write(&path, "mine")?;
        set(&path, 0o444)?;
        io_fails(OpenOptions::new().write(true).open(&path), Errno::ACCESS)
    })?;
    as_user(OTHER, || {
        ensure!(fs::read(&path)? == b"mine");
        Ok(())
    })
}

fn directory_keeps_out(at: &Path) -> Result<()> {
    let directory = at.join("d");
    fs::create_dir(&directory)?;
    File::create(directory.join("f"))?;
    set(&directory, 0o711)?;
    as_user(USER, || {
        fs::metadata(directory.join("f"))?;
        io_fails(fs::read_dir(&directory), Errno::ACCESS)?;
        io_fails(File::create(directory.join("g")), Errno::ACCESS)?;
        io_fails(fs::remove_file(directory.join("f")), Errno::ACCESS)
    })?;
    set(&directory, 0o700)?;
    as_user(USER, || {
        io_fails(fs::metadata(directory.join("f")), Errno::ACCESS)
    })
}

fn sticky(at: &Path) -> Result<()> {
    let directory = at.join("d");
    fs::create_dir(&directory)?;
    set(&directory, 0o1777)?;
    as_user(USER, || Ok(fs::write(directory.join("f"), "")?))?;
    as_user(OTHER, || {
        io_fails(fs::remove_file(directory.join("f")), Errno::PERM)?;
        let renamed = fs::rename(directory.join("f"), directory.join("g"));
        io_fails(renamed, Errno::PERM)
    })?;
    as_user(USER, || Ok(fs::remove_file(directory.join("f"))?))
}

fn set_group(at: &Path) -> Result<()> {
    let directory = at.join("d");
    fs::create_dir(&directory)?;
    chown(&directory, None, Some(OTHER))?;
    set(&directory, 0o2777)?;
    as_user(USER, || {
        File::create(directory.join("f"))?;
        fs::create_dir(directory.join("below"))?;
        Ok(())
    })?;
    let file = fs::metadata(directory.join("f"))?;
    ensure!(file.uid() == USER && file.gid() == OTHER);
    let below = fs::metadata(directory.join("below"))?;
    ensure!(below.gid() == OTHER && below.mode() & 0o2000 != 0);
    Ok(())
}

fn only_owner(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    chown(&path, Some(USER), Some(USER))?;
    as_user(OTHER, || io_fails(set(&path, 0o777), Errno::PERM))?;
    as_user(USER, || Ok(set(&path, 0o600)?))?;
    ensure!(mode(&path)? == 0o600);
    Ok(())
}

fn executable(at: &Path) -> Result<()> {
    let path = at.join("f");
    fs::write(&path, "#!/bin/true\n")?;
    set(&path, 0o644)?;
    let run = || std::process::Command::new(&path).status();
    io_fails(run(), Errno::ACCESS)?;
    set(&path, 0o755)?;
    // There may be no such shell, but there was permission.
    match run() {
        Ok(status) => ensure!(status.success()),
        Err(error) => ensure!(error.kind() == std::io::ErrorKind::NotFound, "{error}"),
    }
    Ok(())
}
