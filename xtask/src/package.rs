//! Debian packages that are used and not installed: unpacked into a directory.
//! Installing the lab's kernel would change how this machine boots, and Docker's
//! client comes with a daemon that starts at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Key, Places};
use crate::process;

/// Fetches `package` and unpacks it below `directory`. Runs nothing of it.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    process::run(
        Command::new("apt-get")
            .args(["--quiet", "download", package])
            .current_dir(directory),
    )?;
    let archive = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .context("apt-get downloaded nothing")?;
    process::run(
        Command::new("dpkg")
            .arg("-x")
            .args([archive.as_path(), directory]),
    )?;
    fs::remove_file(archive)?;
    Ok(())
}

/// The directory that Docker's client is in: this machine's, or one in the cache.
pub(crate) fn docker_client(places: &Places) -> Result<PathBuf> {
    if let Some(directory) = process::find("docker").as_deref().and_then(Path::parent) {
        return Ok(directory.to_owned());
    }
    let package = "docker.io";
    let key = Key::new("1").with("package", package.as_bytes());
    let entry = places.entry("docker-client", &key, |work| unpack(package, work))?;
    Ok(entry.join("usr/bin"))
}
