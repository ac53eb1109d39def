//! The image of a machine's disk, looked at from outside: the file system's checker
//! has nothing to say, and what is on it can be taken out.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Copies an image; holes stay holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .status()?;
    if !status.success() {
        bail!("cannot copy {}", from.display());
    }
    Ok(())
}

/// Does what a mount does after a crash (replays ext4's journal), and says what the
/// checker then still finds wrong.
pub(crate) fn check(image: &Path) -> Result<Option<String>> {
    // 1: something was done, as it should be.
    let replayed = e2fsck(&["-y", "-E", "journal_only"], image)?;
    if !matches!(replayed.0, Some(0 | 1)) {
        return Ok(Some(format!(
            "its journal cannot be replayed: {}",
            replayed.1
        )));
    }
    let checked = e2fsck(&["-f", "-n"], image)?;
    Ok(match checked.0 {
        Some(0) => None,
        _ => Some(checked.1),
    })
}

fn e2fsck(options: &[&str], image: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new("e2fsck")
        .args(options)
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("cannot run e2fsck (package e2fsprogs)")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said))
}

/// Takes all files out, into a folder that is made anew.
pub(crate) fn extract(image: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let output = Command::new("debugfs")
        .arg("-R")
        .arg(format!("rdump / {}", folder.display()))
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("cannot run debugfs (package e2fsprogs)")?;
    if !output.status.success() {
        bail!(
            "cannot read the disk: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
