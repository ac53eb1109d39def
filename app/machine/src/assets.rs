//! The guest that is embedded in this binary: kernel, initramfs and the starter
//! image.
//!
//! Kernel and initramfs are compressed in the binary and are unpacked once, into
//! a cache directory named by their digests; a monitor opens them there. Nothing
//! here is touched, and so nothing takes memory, unless it is called.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::{Error, Paths, Result, file, paths::create_private};

/// Far above any kernel or initramfs of ours: what bounds a corrupt blob.
const MAX_UNPACKED: u64 = 1 << 30;
/// Another version's files are left alone for so long: it may be about to boot.
const KEEP_OTHERS: Duration = Duration::from_hours(24);

struct Blob {
    name: &'static str,
    bytes: &'static [u8],
    /// Of what it holds: of the unpacked file where it is compressed.
    sha256: &'static str,
}

struct Embedded {
    kernel: Blob,
    initramfs: Blob,
    starter_image: Blob,
}

// `static GUEST: Option<Embedded>`, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The kernel, an ELF `vmlinux`.
    pub kernel: PathBuf,
    /// The initial RAM file system with the agent.
    pub initramfs: PathBuf,
}

/// Name and SHA-256 of each embedded asset.
///
/// # Errors
/// [`Error::NoAssets`].
pub fn digests() -> Result<Vec<(&'static str, &'static str)>> {
    let guest = embedded()?;
    Ok([&guest.kernel, &guest.initramfs, &guest.starter_image]
        .map(|blob| (blob.name, blob.sha256))
        .into())
}

/// The embedded starter image: the tar of an OCI image layout whose index names
/// `hello:latest`.
///
/// # Errors
/// [`Error::NoAssets`], [`Error::CorruptAsset`].
pub fn starter_image() -> Result<&'static [u8]> {
    let blob = &embedded()?.starter_image;
    verify(blob, &hex::encode(Sha256::digest(blob.bytes)))?;
    Ok(blob.bytes)
}

/// The unpacked kernel and initramfs, checked by digest. Blocks for as long as
/// unpacking takes, when they are not in the cache or were damaged there.
///
/// # Errors
/// [`Error::NoAssets`], [`Error::CorruptAsset`] when the binary is damaged,
/// [`Error::Io`].
pub fn guest(paths: &Paths) -> Result<Guest> {
    unpack(embedded()?, &paths.cache().join("assets"))
}

fn embedded() -> Result<&'static Embedded> {
    GUEST.as_ref().ok_or(Error::NoAssets)
}

fn unpack(embedded: &Embedded, assets: &Path) -> Result<Guest> {
    let blobs = [&embedded.kernel, &embedded.initramfs];
    let name = blobs.iter().fold(Sha256::new(), |hash, blob| {
        hash.chain_update(blob.sha256.as_bytes())
    });
    let directory = assets.join(hex::encode(name.finalize()));
    let guest = Guest {
        kernel: directory.join(embedded.kernel.name),
        initramfs: directory.join(embedded.initramfs.name),
    };
    match check_unpacked(&directory, &blobs) {
        Ok(()) => return Ok(guest),
        Err(Damage::Missing) => {}
        Err(Damage::Differs(path)) => {
            tracing::warn!(path = %path.display(), "unpacking again what was damaged");
            remove_directory(&directory)?;
        }
        Err(Damage::Error(error)) => return Err(error),
    }

    create_private(assets)?;
    let temporary = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(assets)
        .map_err(|error| Error::io("create a directory in", assets, error))?;
    for blob in blobs {
        unpack_blob(blob, &temporary.path().join(blob.name))?;
    }
    file::sync_directory(temporary.path())?;
    match fs::rename(temporary.path(), &directory) {
        Ok(()) => {}
        // Somebody else was faster; theirs is checked like any.
        Err(_) if directory.is_dir() => {
            return match check_unpacked(&directory, &blobs) {
                Ok(()) => Ok(guest),
                Err(damage) => Err(damage.into_error(&directory)),
            };
        }
        Err(error) => return Err(Error::io("create", &directory, error)),
    }
    file::sync_directory(assets)?;
    remove_other_versions(assets, &directory);
    Ok(guest)
}

fn unpack_blob(blob: &Blob, path: &Path) -> Result<()> {
    let corrupt = |error: io::Error| Error::CorruptAsset {
        name: blob.name,
        problem: error.to_string(),
    };
    let mut source = zstd::Decoder::with_buffer(blob.bytes)
        .map_err(corrupt)?
        .take(MAX_UNPACKED);
    let mut target = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let chunk = match source.read(&mut buffer).map_err(corrupt)? {
            0 => break,
            length => buffer.get(..length).unwrap_or_default(),
        };
        hash.update(chunk);
        target
            .write_all(chunk)
            .map_err(|error| Error::io("write", path, error))?;
    }
    verify(blob, &hex::encode(hash.finalize()))?;
    target
        .sync_all()
        .map_err(|error| Error::io("write", path, error))
}

fn verify(blob: &Blob, digest: &str) -> Result<()> {
    if digest == blob.sha256 {
        return Ok(());
    }
    Err(Error::CorruptAsset {
        name: blob.name,
        problem: format!("its SHA-256 is {digest} instead of {}", blob.sha256),
    })
}

enum Damage {
    Missing,
    Differs(PathBuf),
    Error(Error),
}

impl Damage {
    fn into_error(self, directory: &Path) -> Error {
        match self {
            Self::Missing => Error::io("find", directory, io::ErrorKind::NotFound),
            Self::Differs(path) => Error::io("use", &path, io::ErrorKind::InvalidData),
            Self::Error(error) => error,
        }
    }
}

/// What tells a file from a changed one without reading it: inode, size and time
/// of change.
type Stamp = (u64, u64, i64, i64);

/// Files that this process has read and found right.
static CHECKED: OnceLock<Mutex<HashMap<PathBuf, Stamp>>> = OnceLock::new();

fn check_unpacked(directory: &Path, blobs: &[&Blob]) -> Result<(), Damage> {
    for blob in blobs {
        let path = directory.join(blob.name);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if directory.is_dir() => Damage::Differs(path.clone()),
            io::ErrorKind::NotFound => Damage::Missing,
            _ => Damage::Error(Error::io("read", &path, error)),
        };
        let mut opened = File::open(&path).map_err(failed)?;
        let metadata = opened.metadata().map_err(failed)?;
        let stamp = (
            metadata.ino(),
            metadata.len(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        let checked = CHECKED.get_or_init(Mutex::default);
        let known = checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&path)
            .copied();
        if known == Some(stamp) {
            continue;
        }
        let mut hash = Sha256::new();
        io::copy(&mut opened, &mut hash).map_err(failed)?;
        if hex::encode(hash.finalize()) != blob.sha256 {
            return Err(Damage::Differs(path));
        }
        checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path, stamp);
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory, error))
        }
        _ => Ok(()),
    }
}

/// Drops what older versions, and processes that were killed, left behind.
fn remove_other_versions(assets: &Path, keep: &Path) {
    let Ok(entries) = fs::read_dir(assets) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > KEEP_OTHERS)
            });
        if old
            && path != keep
            && let Err(error) = remove_directory(&path)
        {
            tracing::warn!(%error, "an old version's assets stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(bytes: Vec<u8>) -> &'static [u8] {
        bytes.leak()
    }

    fn blob(name: &'static str, contents: &[u8]) -> Blob {
        Blob {
            name,
            bytes: leak(zstd::encode_all(contents, 1).unwrap()),
            sha256: String::leak(hex::encode(Sha256::digest(contents))),
        }
    }

    fn sample() -> Embedded {
        Embedded {
            kernel: blob("vmlinux", &vec![7; 300_000]),
            initramfs: blob("initramfs.cpio", b"files"),
            starter_image: blob("starter-image.tar", b"image"),
        }
    }

    #[test]
    fn unpacks_once_and_leaves_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let assets = home.path().join("assets");
        let guest = unpack(&sample(), &assets).unwrap();
        assert_eq!(fs::read(&guest.kernel).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read(&guest.initramfs).unwrap(), b"files");
        let inode = fs::metadata(&guest.kernel).unwrap().ino();
        assert_eq!(unpack(&sample(), &assets).unwrap(), guest);
        assert_eq!(fs::metadata(&guest.kernel).unwrap().ino(), inode);
        assert_eq!(fs::read_dir(&assets).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_in_the_cache_is_repaired() {
        let home = tempfile::tempdir().unwrap();
        let guest = unpack(&sample(), home.path()).unwrap();
        // Changed, same length.
        fs::write(&guest.initramfs, b"wrong").unwrap();
        assert_eq!(unpack(&sample(), home.path()).unwrap(), guest);
        assert_eq!(fs::read(&guest.initramfs).unwrap(), b"files");
        // Gone.
        fs::remove_file(&guest.kernel).unwrap();
        assert_eq!(unpack(&sample(), home.path()).unwrap(), guest);
        assert_eq!(fs::read(&guest.kernel).unwrap().len(), 300_000);
        // Cut short.
        fs::write(&guest.kernel, b"").unwrap();
        unpack(&sample(), home.path()).unwrap();
        assert_eq!(fs::read(&guest.kernel).unwrap().len(), 300_000);
    }

    #[test]
    fn a_damaged_binary_is_a_clear_error_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let mut truncated = sample();
        truncated.kernel.bytes = &truncated.kernel.bytes[..truncated.kernel.bytes.len() / 2];
        let mut garbage = sample();
        garbage.kernel.bytes = b"not zstd at all";
        let mut other = sample();
        other.kernel.bytes = blob("vmlinux", b"another kernel").bytes;
        for embedded in [truncated, garbage, other] {
            let error = unpack(&embedded, home.path()).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::CorruptAsset {
                        name: "vmlinux",
                        ..
                    }
                ),
                "{error}"
            );
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_all_get_the_same() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let guest = unpack(&sample(), home.path()).unwrap();
                    assert_eq!(fs::read(&guest.initramfs).unwrap(), b"files");
                });
            }
        });
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
