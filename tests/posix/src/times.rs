//! Times of files.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use rustix::io::Errno;

use crate::users::{USER, as_user};
use crate::{Check, fails};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "times are set to the nanosecond",
        run: set,
    },
    Check {
        name: "times before 1970 and after 2038",
        run: far,
    },
    Check {
        name: "UTIME_OMIT and UTIME_NOW",
        run: special,
    },
    Check {
        name: "writing changes the modification time",
        run: written,
    },
    Check {
        name: "a mode's change changes the change time",
        run: changed,
    },
    Check {
        name: "a symbolic link has times of its own",
        run: of_link,
    },
];

pub(crate) const FOR_ROOT: &[Check] = &[Check {
    name: "only the owner sets times",
    run: only_owner,
}];

fn times(modified: (i64, i64)) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 5,
            tv_nsec: 6,
        },
        last_modification: Timespec {
            tv_sec: modified.0,
            tv_nsec: modified.1,
        },
    }
}

fn put(path: &Path, times: &Timestamps) -> rustix::io::Result<()> {
    utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)
}

fn modified(path: &Path) -> Result<(i64, i64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.mtime(), metadata.mtime_nsec()))
}

fn set(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    put(&path, &times((1_234_567_890, 123_456_789)))?;
    ensure!(modified(&path)? == (1_234_567_890, 123_456_789));
    let metadata = fs::metadata(&path)?;
    ensure!((metadata.atime(), metadata.atime_nsec()) == (5, 6));
    Ok(())
}

fn far(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    for seconds in [-1, 0, (1 << 31) + 5, 1 << 33] {
        put(&path, &times((seconds, 0)))?;
        ensure!(modified(&path)? == (seconds, 0), "{seconds}");
    }
    Ok(())
}

fn special(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    put(&path, &times((100, 0)))?;
    put(&path, &times((0, UTIME_OMIT)))?;
    ensure!(modified(&path)? == (100, 0));
    put(&path, &times((0, UTIME_NOW)))?;
    let age = SystemTime::now().duration_since(fs::metadata(&path)?.modified()?);
    ensure!(age.unwrap_or_default() < Duration::from_secs(10));
    Ok(())
}

fn written(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    put(&path, &times((100, 0)))?;
    fs::write(&path, "text")?;
    ensure!(modified(&path)?.0 > 100);
    put(&path, &times((100, 0)))?;
    nix::unistd::truncate(&path, 1)?;
    ensure!(modified(&path)?.0 > 100);
    Ok(())
}

fn changed(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    let time = || -> Result<_> {
        let metadata = fs::metadata(&path)?;
        Ok((metadata.ctime(), metadata.ctime_nsec()))
    };
    let before = time()?;
    std::thread::sleep(Duration::from_millis(30));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4711);
    fs::set_permissions(&path, mode)?;
    ensure!(time()? > before);
    Ok(())
}

fn of_link(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    std::os::unix::fs::symlink("f", at.join("l"))?;
    put(&at.join("l"), &times((100, 0)))?;
    ensure!(modified(&at.join("l"))? == (100, 0) && modified(&at.join("f"))?.0 > 100);
    Ok(())
}

fn only_owner(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    as_user(USER, || fails(put(&path, &times((1, 0))), Errno::PERM))
}
