//! Where things are: the repository, the cache of slow builds, and the outputs.
//!
//! A cache entry is a directory named by the hash of everything it was made
//! from. It is made in a temporary directory beside it and renamed, so an entry
//! that exists is whole; of two builds at once, one waits for the other. What
//! nobody used for two weeks goes when something new comes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::process;

/// How long an entry is kept that nobody uses.
const UNUSED: Duration = Duration::from_hours(14 * 24);

/// The directories that every task works in.
pub(crate) struct Places {
    /// The root of the repository.
    pub(crate) repository: PathBuf,
    /// `$XDG_CACHE_HOME/dctl-build`: shared by all checkouts.
    pub(crate) cache: PathBuf,
    /// cargo's target directory.
    pub(crate) target: PathBuf,
    /// What `app/machine` embeds.
    pub(crate) assets: PathBuf,
}

impl Places {
    /// Reads the environment.
    pub(crate) fn find() -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent directory")?
            .to_path_buf();
        let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => PathBuf::from(
                std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
            )
            .join(".cache"),
        }
        .join("dctl-build");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| repository.join("target"), PathBuf::from);
        let assets =
            std::env::var_os("DCTL_ASSETS").map_or_else(|| target.join("assets"), PathBuf::from);
        Ok(Self {
            repository,
            cache,
            target,
            assets,
        })
    }

    /// The entry of kind `kind` for `key`, made by `make` when it isn't there.
    ///
    /// `make` fills the directory that it is given.
    pub(crate) fn entry(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let kind = self.cache.join(kind);
        let entry = kind.join(key.hex());
        if entry.is_dir() {
            touch(&entry)?;
            return Ok(entry);
        }
        fs::create_dir_all(&kind).with_context(|| format!("cannot make {}", kind.display()))?;
        // Two builds at once: the second waits for the first's entry. The lock ends with us.
        let lock = fs::File::create(kind.join(format!(".lock-{}", key.hex())))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        if entry.is_dir() {
            return Ok(entry);
        }
        let work = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&kind)
            .with_context(|| format!("cannot write in {}", kind.display()))?;
        make(work.path())?;
        let work = work.keep();
        // An entry may be used by users other than the one that made it.
        fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::rename(&work, &entry).with_context(|| format!("cannot make {}", entry.display()))?;
        forget_unused(&kind)?;
        Ok(entry)
    }
}

/// Marks an entry as used now.
fn touch(entry: &Path) -> Result<()> {
    let now = std::fs::FileTimes::new().set_modified(SystemTime::now());
    match fs::File::open(entry).and_then(|directory| directory.set_times(now)) {
        // Another user's.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome.with_context(|| format!("cannot use {}", entry.display())),
    }
}

/// Removes the entries of a kind that nobody used for `UNUSED`, but for those that only
/// another user can remove.
fn forget_unused(kind: &Path) -> Result<()> {
    for entry in fs::read_dir(kind)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let used = metadata.modified()?.elapsed().unwrap_or_default();
        if metadata.is_dir() && used > UNUSED {
            match fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                outcome => {
                    outcome.with_context(|| format!("cannot remove {}", entry.path().display()))?;
                }
            }
        }
    }
    Ok(())
}

/// What a cache entry is named by: the hash of everything it is made from.
pub(crate) struct Key(Sha256);

impl Key {
    /// A key for one recipe; `recipe` changes when the way of making changes.
    pub(crate) fn new(recipe: &str) -> Self {
        Self(Sha256::new()).with("recipe", recipe.as_bytes())
    }

    /// Adds a named part.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds the contents of a file.
    pub(crate) fn with_file(self, name: &str, path: &Path) -> Result<Self> {
        Ok(self.with(name, sha256(path)?.as_bytes()))
    }

    /// Its name, which is the same for the same parts.
    pub(crate) fn hex(&self) -> String {
        hex::encode(&self.0.clone().finalize()[..16])
    }
}

/// The SHA-256 of a file's contents, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    // sha256sum uses the processor's instructions, whatever profile xtask is built with.
    let line = process::output(Command::new("sha256sum").arg("--binary").arg(path))?;
    let digest = line.trim_start_matches('\\').split(' ').next();
    Ok(digest.unwrap_or_default().to_owned())
}

/// Writes `contents` to `path`, whole or not at all.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file needs a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    fs::write(file.path(), contents)?;
    fs::set_permissions(
        file.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    file.as_file().sync_all()?;
    file.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Copies a file, whole or not at all, and not when it is the same already.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    write(to, &contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            repository: directory.into(),
            cache: directory.into(),
            target: directory.into(),
            assets: directory.into(),
        }
    }

    #[test]
    fn an_entry_is_made_once_and_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let key = Key::new("1").with("a", b"b");
        let failed = places.entry("kind", &key, |work| {
            fs::write(work.join("half"), "")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        let entry = places
            .entry("kind", &key, |work| Ok(fs::write(work.join("file"), "x")?))
            .unwrap();
        assert_eq!(fs::read(entry.join("file")).unwrap(), b"x");
        assert!(!entry.join("half").exists());
        let again = places
            .entry("kind", &key, |_| anyhow::bail!("made twice"))
            .unwrap();
        assert_eq!(again, entry);
        let entries = fs::read_dir(directory.path().join("kind")).unwrap();
        let names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        let temporary = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(".making-");
        assert!(!names.iter().any(temporary), "{names:?}");
    }

    #[test]
    fn what_nobody_uses_goes() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let entry = |part: &str| {
            let key = Key::new("1").with("part", part.as_bytes());
            places.entry("kind", &key, |_| Ok(())).unwrap()
        };
        let age = |entry: &Path| {
            let long_ago = SystemTime::now() - 2 * UNUSED;
            let times = std::fs::FileTimes::new().set_modified(long_ago);
            fs::File::open(entry).unwrap().set_times(times).unwrap();
        };
        let [used, unused] = ["used", "unused"].map(entry);
        age(&used);
        age(&unused);
        entry("used");
        entry("new");
        assert!(used.exists());
        assert!(!unused.exists());
    }

    #[test]
    fn a_key_tells_its_parts_apart() {
        let keys = [
            Key::new("1"),
            Key::new("2"),
            Key::new("1").with("a", b"bc"),
            Key::new("1").with("ab", b"c"),
            Key::new("1").with("a", b"b").with("", b"c"),
        ];
        let names: std::collections::BTreeSet<_> = keys.iter().map(Key::hex).collect();
        assert_eq!(names.len(), keys.len());
    }

    #[test]
    fn files_are_hashed_by_contents() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("with space");
        write(&file, b"abc").unwrap();
        assert_eq!(
            sha256(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
