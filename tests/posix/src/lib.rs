//! What POSIX and Linux promise of a file system, as a table of checks that run in any
//! directory: on the host's own file system, to know that the checks are right, and on
//! every road to a file share.
//!
//! Each check gets an empty directory. Those for root run as root of a container or of
//! the host, and act as other users on threads of their own; the others run as anybody.
//! The program of this crate is small and static enough to be put into any image.

mod directories;
mod files;
mod links;
mod locks;
mod memory;
mod modes;
mod names;
mod owners;
mod rename;
mod signals;
mod space;
mod times;
mod users;
mod xattrs;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One promise.
#[derive(Clone, Copy)]
pub struct Check {
    /// What is promised.
    pub name: &'static str,
    /// Tries it in an empty directory.
    pub run: fn(&Path) -> Result<()>,
}

/// The whole table, for root.
pub fn all() -> Vec<Check> {
    let for_root = [
        files::FOR_ROOT,
        modes::FOR_ROOT,
        owners::FOR_ROOT,
        times::FOR_ROOT,
    ];
    [for_anybody(), for_root.concat()].concat()
}

/// What is promised to whoever owns the directory.
pub fn for_anybody() -> Vec<Check> {
    [
        files::CHECKS,
        names::CHECKS,
        directories::CHECKS,
        links::CHECKS,
        rename::CHECKS,
        modes::CHECKS,
        times::CHECKS,
        space::CHECKS,
        xattrs::CHECKS,
        locks::CHECKS,
        memory::CHECKS,
    ]
    .concat()
}

/// Runs a check in a directory of its own below `place`, and removes it again.
pub fn run(check: &Check, place: &Path) -> Result<()> {
    let name: String = check
        .name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let directory = place.join(name);
    fs::create_dir(&directory).context("the check's directory")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&directory, open)?;
    (check.run)(&directory)?;
    fs::remove_dir_all(&directory).context("what the check left can't be removed")
}

/// Fails unless an action fails with this error.
#[allow(clippy::needless_pass_by_value)] // So that calls can be written into the call.
fn fails<T>(result: rustix::io::Result<T>, expected: rustix::io::Errno) -> Result<()> {
    match result {
        Err(error) if error == expected => Ok(()),
        Err(error) => bail!("it failed with {error:?} instead of {expected:?}"),
        Ok(_) => bail!("it did not fail with {expected:?}"),
    }
}

/// As [`fails`], for the standard library's calls.
fn io_fails<T>(result: std::io::Result<T>, expected: rustix::io::Errno) -> Result<()> {
    let result = result
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO));
    fails(result, expected)
}
