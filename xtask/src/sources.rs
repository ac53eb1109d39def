//! What a package of this workspace is built from, as a cache's key: `rust` keeps
//! programs by it that take minutes to link. cargo itself goes by times and paths,
//! and builds everything again in a fresh clone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Key, Places};
use crate::{process, rust};

/// What is at the top of a package's directory and not in its programs.
const ASIDE: [&str; 4] = ["tests", "benches", "target", "README.md"];

/// A key of all that `package`'s programs are built from: its files and those of the
/// packages of this workspace that it needs, the versions of all others, the compiler.
pub(crate) fn key(places: &Places, package: &str) -> Result<Key> {
    let compiler = process::output(Command::new("rustc").args(["--version", "--verbose"]))?;
    let mut key = Key::new("1").with("compiler", compiler.as_bytes());
    for name in ["Cargo.toml", "Cargo.lock"] {
        key = key.with_file(name, &places.repository.join(name))?;
    }
    let tree = process::output(
        rust::cargo(places)
            .args(["tree", "--locked", "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{p}", "--package", package]),
    )?;
    for directory in directories(&tree) {
        for file in files(&directory)? {
            let name = file.strip_prefix(&places.repository).unwrap_or(&file);
            let contents =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            key = key.with(&name.display().to_string(), &contents);
        }
    }
    Ok(key)
}

/// Runs `build` on what `key` was made of.
///
/// # Errors
/// When it fails, or the sources have changed meanwhile: what it built has no key then.
pub(crate) fn built_from(
    places: &Places,
    package: &str,
    key: &Key,
    build: impl FnOnce() -> Result<()>,
) -> Result<()> {
    build()?;
    if self::key(places, package)?.hex() != key.hex() {
        bail!("{package} was edited while it was built: build it again");
    }
    Ok(())
}

/// Where the packages are that `cargo tree` says are on this disk.
fn directories(tree: &str) -> BTreeSet<PathBuf> {
    let in_brackets = |line: &str| {
        let (_, rest) = line.split_once(" (/")?;
        let (path, _) = rest.split_once(')')?;
        Some(Path::new("/").join(path))
    };
    tree.lines().filter_map(in_brackets).collect()
}

/// All files of a package, in a fixed order.
fn files(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let entry = entry?;
            if folder == directory && ASIDE.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                found.insert(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_this_disk_are_found() {
        let tree = "a v0.1.0 (/work/a b)\nserde v1.0.0\nb v0.1.0 (/work/b) (*)\n\
                    derive v1.0.0 (proc-macro)\n";
        let found: Vec<_> = directories(tree).into_iter().collect();
        assert_eq!(found, [Path::new("/work/a b"), Path::new("/work/b")]);
    }

    #[test]
    fn a_packages_files_are_those_it_is_built_from() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["src/a.rs", "src/tests/c.rs", "Cargo.toml", "tests/d.rs"] {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let found = files(directory.path()).unwrap();
        let expected = ["Cargo.toml", "src/a.rs", "src/tests/c.rs"];
        assert!(
            found
                .iter()
                .eq(expected.map(|it| directory.path().join(it)).iter())
        );
    }
}
