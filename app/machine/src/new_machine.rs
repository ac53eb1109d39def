//! A machine in the making: a directory under another name, renamed when all of it
//! is there. Dropped before that, nothing is left; what a crash left, the next one
//! that is made clears away.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    Error, Paths, Result, Settings, file,
    lock::Lock,
    paths::{MachineFiles, create_private},
};

/// No machine's name begins with a dot.
const PREFIX: &str = ".new-";

/// A machine that nobody can see yet.
#[derive(Debug)]
pub(crate) struct NewMachine {
    directory: tempfile::TempDir,
    machines: PathBuf,
    /// One at a time: what others left is nobody's.
    _lock: Lock,
}

impl NewMachine {
    pub(crate) fn begin(paths: &Paths) -> Result<Self> {
        let machines = paths.machines_directory();
        create_private(&machines)?;
        let lock = Lock::acquire(&machines.join(".lock"))?;
        clear_leftovers(&machines)?;
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&machines)
            .map_err(|error| Error::io("make a directory in", &machines, error))?;
        Ok(Self {
            directory,
            machines,
            _lock: lock,
        })
    }

    /// Where its disk goes.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.path().join("data.raw")
    }

    /// Where its settings go.
    pub(crate) fn settings(&self) -> PathBuf {
        self.directory.path().join("machine.toml")
    }

    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<()> {
        settings.save_as(&self.settings())
    }

    /// Gives it its name: from here on it is there, also after a power cut.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`].
    pub(crate) fn finish(self, name: &str, files: &MachineFiles) -> Result<()> {
        let path = self.directory.path();
        file::sync_directory(path)?;
        if files.directory().exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        match fs::rename(path, files.directory()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(Error::Exists(name.to_owned()));
            }
            Err(error) => return Err(Error::io("make", files.directory(), error)),
        }
        // It has another name now.
        let _ = self.directory.keep();
        file::sync_directory(&self.machines)
    }
}

fn clear_leftovers(machines: &Path) -> Result<()> {
    let failed = |error| Error::io("clear away what is left in", machines, error);
    for entry in fs::read_dir(machines).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}
