//! The database of what the agent keeps, in a file on the data disk whose blocks are there
//! before they are written.
//!
//! A database that cannot write once can write no more until it is opened anew, and opening
//! it writes. A container that fills the disk would so take everything with it, even the
//! removal of what fills it. Here the file has room of its own ahead: what a full disk
//! stops are files of containers and images, and of those each is an error by itself.
//!
//! Called by `agent`, once; what is in the tables is their owners' (`images`, `volumes`,
//! `networks`, `containers`).

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::Path,
};

use redb::{BackendError, Database, StorageBackend, backends::FileBackend};
use rustix::fs::{FallocateFlags, fallocate};

use crate::error::{Context, Result};

/// Bytes of pages that are kept in memory.
const CACHE: usize = 4 * 1024 * 1024;

/// Room ahead of the file's end, in bytes, at least: redb doubles its file when that is full.
/// Blocks that were not written take no space on the host.
const AHEAD: u64 = 8 * 1024 * 1024;

/// Opens the database, or makes it: one gets its name when it is whole, since what a
/// kill leaves of one in the making is none that can be opened.
pub(crate) fn open(path: &Path) -> Result<Database> {
    if !path.exists() {
        let new = path.with_extension("new");
        let put_in_place = || {
            File::open(&new)?.sync_all()?;
            fs::rename(&new, path)?;
            File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove a database that was never finished");
            }
            _ => {}
        }
        drop(open_file(&new)?);
        put_in_place().context(format_args!("cannot make the database {}", path.display()))?;
    }
    open_file(path)
}

fn open_file(path: &Path) -> Result<Database> {
    let open = || -> std::result::Result<Database, redb::Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let storage = Allocated::new(file)?;
        Ok(redb::Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(storage)?)
    };
    open().context(format_args!("cannot open the database {}", path.display()))
}

/// A file whose blocks are allocated before they are written, and more of them ahead.
#[derive(Debug)]
struct Allocated {
    file: File,
    backend: FileBackend,
}

impl Allocated {
    fn new(file: File) -> std::result::Result<Self, redb::DatabaseError> {
        let storage = Self {
            backend: FileBackend::new(file.try_clone().map_err(redb::StorageError::Io)?)?,
            file,
        };
        let length = storage.len().map_err(redb::StorageError::Io)?;
        // On a disk that is full already the file serves as it is.
        if let Err(error) = storage.allocate(length) {
            tracing::warn!("the database has no room of its own: {error}");
        }
        storage.allocate_ahead(length);
        Ok(storage)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            // A file system that cannot promise anything.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Room for when the disk is full. That it is full now is told by what is written to it.
    fn allocate_ahead(&self, length: u64) {
        if let Err(error) = self.allocate(length + length.max(AHEAD)) {
            tracing::debug!("no room ahead of the database: {error}");
        }
    }
}

impl StorageBackend for Allocated {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.allocate(length)?;
        self.backend.set_len(length)?;
        self.allocate_ahead(length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use redb::{ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");

    #[test]
    fn what_is_written_has_its_blocks_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let database = open(&path).unwrap();
        for key in 0..64 {
            let transaction = database.begin_write().unwrap();
            let value = vec![7; 64 << 10];
            transaction
                .open_table(TABLE)
                .unwrap()
                .insert(key, value.as_slice())
                .unwrap();
            transaction.commit().unwrap();
            let file = fs::metadata(&path).unwrap();
            assert!(
                file.blocks() * 512 >= file.len() + AHEAD,
                "{} of {} bytes",
                file.blocks() * 512,
                file.len()
            );
        }
        // As after a kill: nothing is closed.
        std::mem::forget(database);
        fs::copy(&path, folder.path().join("copy.redb")).unwrap();
        let copy = open(&folder.path().join("copy.redb")).unwrap();
        let transaction = copy.begin_read().unwrap();
        let table = transaction.open_table(TABLE).unwrap();
        assert_eq!(table.get(63).unwrap().unwrap().value().len(), 64 << 10);
    }
}
