//! Packages that are used and not installed, Debian's and Python's: unpacked into a
//! directory.
//! Installing the lab's kernel would change how this machine boots, and Docker's
//! client comes with a daemon that starts at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Key, Places};
use crate::process;

/// Where a package comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The suites of this system.
    Installed,
    /// Debian unstable, for programs that are newer than this system.
    Unstable,
}

/// Where apt's lists of a suite that is not this system's are, below the directory that is
/// unpacked into.
const STATE: &str = ".apt";

/// Debian unstable, in the format of apt's lists.
const UNSTABLE: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                        http://deb.debian.org/debian sid main\n";

/// Fetches `package` and unpacks it below `directory`. Runs nothing of it.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    unpack_of(Suite::Installed, package, directory)
}

/// The same of a package of `suite`.
pub(crate) fn unpack_of(suite: Suite, package: &str, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let options = match suite {
        Suite::Installed => Vec::new(),
        Suite::Unstable => unstable(directory)?,
    };
    process::run(
        Command::new("apt-get")
            .args(&options)
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

/// Python packages, by the file that names each with its version: a directory for
/// `PYTHONPATH`. Nothing is installed for anybody else.
pub(crate) fn python(places: &Places, kind: &str, requirements: &Path) -> Result<PathBuf> {
    let python = process::need("python3")?;
    let version = process::output(Command::new(&python).arg("--version"))?;
    let key = Key::new("1")
        .with("python", version.as_bytes())
        .with_file("requirements", requirements)?;
    places.entry(kind, &key, |work| {
        process::run(
            Command::new(&python)
                // What is needed is named, all of it.
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args([
                    "--disable-pip-version-check",
                    "--root-user-action",
                    "ignore",
                ])
                .arg("--target")
                .arg(work)
                .arg("--requirement")
                .arg(requirements),
        )
    })
}

/// Removes what [`unpack_of`] left besides the packages' files.
pub(crate) fn forget(directory: &Path) -> Result<()> {
    Ok(fs::remove_dir_all(directory.join(STATE))?)
}

/// Options of apt for Debian unstable, with lists of its own: the system's know nothing of
/// it. They are below `directory`, fetched once.
fn unstable(directory: &Path) -> Result<Vec<String>> {
    let state = directory.join(STATE);
    let option = |name: &str, path: &Path| format!("--option={name}={}", path.display());
    let list = state.join("unstable.list");
    let options = vec![
        option("Dir::Etc::sourcelist", &list),
        "--option=Dir::Etc::sourceparts=-".to_owned(),
        option("Dir::State::lists", &state.join("lists")),
        option("Dir::Cache", &state.join("cache")),
    ];
    if !list.exists() {
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(state.join("cache/archives/partial"))?;
        fs::write(&list, UNSTABLE)?;
        process::run(
            Command::new("apt-get")
                .args(&options)
                .args(["--quiet", "update"]),
        )?;
    }
    Ok(options)
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
