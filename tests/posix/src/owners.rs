//! Owners.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown, symlink};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::users::{OTHER, USER, as_user};
use crate::{Check, io_fails};

pub(crate) const FOR_ROOT: &[Check] = &[
    Check {
        name: "chown",
        run: change,
    },
    Check {
        name: "who makes a file owns it",
        run: maker,
    },
    Check {
        name: "chown of a symbolic link is not followed",
        run: of_link,
    },
    Check {
        name: "only root gives files away",
        run: only_root,
    },
    Check {
        name: "chown takes set-user-ID away",
        run: set_user_id,
    },
    Check {
        name: "what a database does to its directory",
        run: database,
    },
    Check {
        name: "an owner stays with a renamed and linked file",
        run: stays,
    },
];

fn owner(path: &Path) -> Result<(u32, u32)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.uid(), metadata.gid()))
}

fn change(at: &Path) -> Result<()> {
    for name in ["f", "d"] {
        let path = at.join(name);
        if name == "f" {
            File::create(&path)?;
        } else {
            fs::create_dir(&path)?;
        }
        ensure!(owner(&path)? == (0, 0), "{:?}", owner(&path)?);
        chown(&path, Some(USER), None)?;
        ensure!(owner(&path)? == (USER, 0));
        chown(&path, None, Some(OTHER))?;
        ensure!(owner(&path)? == (USER, OTHER));
        fchown(File::open(&path)?, Some(0), Some(0))?;
        ensure!(owner(&path)? == (0, 0));
    }
    Ok(())
}

fn maker(at: &Path) -> Result<()> {
    fs::set_permissions(at, PermissionsExt::from_mode(0o777))?;
    as_user(USER, || {
        File::create(at.join("f"))?;
        fs::create_dir(at.join("d"))?;
        symlink("f", at.join("l"))?;
        Ok(())
    })?;
    for name in ["f", "d", "l"] {
        ensure!(owner(&at.join(name))? == (USER, USER), "{name}");
    }
    Ok(())
}

fn of_link(at: &Path) -> Result<()> {
    File::create(at.join("f"))?;
    symlink("f", at.join("l"))?;
    lchown(at.join("l"), Some(USER), Some(USER))?;
    ensure!(owner(&at.join("l"))? == (USER, USER) && owner(&at.join("f"))? == (0, 0));
    Ok(())
}

fn only_root(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    as_user(USER, || {
        io_fails(chown(&path, Some(USER), None), Errno::PERM)
    })?;
    chown(&path, Some(USER), Some(USER))?;
    as_user(USER, || {
        io_fails(chown(&path, Some(OTHER), None), Errno::PERM)?;
        io_fails(chown(&path, None, Some(OTHER)), Errno::PERM)
    })
}

fn set_user_id(at: &Path) -> Result<()> {
    let path = at.join("f");
    File::create(&path)?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o6755))?;
    chown(&path, Some(USER), Some(USER))?;
    ensure!(fs::metadata(&path)?.mode() & 0o7777 == 0o755);
    Ok(())
}

/// As the entry points of database images do: root gives the directory to a user, who
/// makes it private and insists that it is.
fn database(at: &Path) -> Result<()> {
    let directory = at.join("data");
    fs::create_dir(&directory)?;
    chown(&directory, Some(USER), Some(USER))?;
    as_user(USER, || {
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o700))?;
        let metadata = fs::metadata(&directory)?;
        ensure!(metadata.uid() == USER && metadata.mode() & 0o7777 == 0o700);
        let file = directory.join("base");
        fs::write(&file, "data")?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        fs::rename(&file, directory.join("moved"))?;
        ensure!(fs::read(directory.join("moved"))? == b"data");
        ensure!(fs::metadata(directory.join("moved"))?.uid() == USER);
        Ok(())
    })?;
    as_user(OTHER, || io_fails(fs::read_dir(&directory), Errno::ACCESS))
}

fn stays(at: &Path) -> Result<()> {
    File::create(at.join("a"))?;
    chown(at.join("a"), Some(USER), Some(OTHER))?;
    fs::rename(at.join("a"), at.join("b"))?;
    fs::hard_link(at.join("b"), at.join("c"))?;
    ensure!(owner(&at.join("c"))? == (USER, OTHER));
    Ok(())
}
