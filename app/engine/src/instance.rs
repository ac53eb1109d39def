//! One engine at a time for each machine: its lock, its socket, and the word that it is ready.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use dctl_machine::EngineFiles;
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

use crate::EngineError;

/// The right to be the engine; the kernel takes it back however the process ends.
pub(crate) struct Instance {
    socket: PathBuf,
    _lock: File,
}

impl Instance {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`EngineError::AlreadyRunning`] when another engine has it.
    pub(crate) fn acquire(files: &EngineFiles) -> Result<Self, EngineError> {
        let path = files.lock();
        let failed = |source| EngineError::io("open", &path, source);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                // Its process id is a courtesy; the lock is what counts.
                let _ = (&lock).take(20).read_to_string(&mut owner);
                return Err(EngineError::AlreadyRunning {
                    process_id: owner.trim().parse().ok(),
                });
            }
            Err(error) => return Err(EngineError::io("lock", &path, error.into())),
        }
        let note = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        note.map_err(|source| EngineError::io("write", &path, source))?;
        Ok(Self {
            socket: files.socket(),
            _lock: lock,
        })
    }

    /// Makes the socket, mode 0600, in place of one that a dead engine left.
    ///
    /// It is bound under another name and moved, so that whoever finds it finds it
    /// listening and with its mode.
    pub(crate) fn listen(&self) -> Result<UnixListener, EngineError> {
        let mut temporary = self.socket.clone();
        temporary.set_extension("new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EngineError::io("remove", &temporary, error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&temporary)
            .map_err(|source| EngineError::io("listen on", &temporary, source))?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&temporary, &self.socket))
            .map_err(|source| EngineError::io("make", &self.socket, source))?;
        Ok(listener)
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Still under the lock: no other engine's socket is there.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Where whoever started the engine waits for it.
#[derive(Debug)]
pub(crate) struct ReadyNotice {
    pipe: File,
}

impl ReadyNotice {
    /// The inherited descriptor `number`.
    ///
    /// # Errors
    /// [`EngineError::Io`] when it is not open.
    pub(crate) fn inherited(number: RawFd) -> Result<Self, EngineError> {
        let path = PathBuf::from(format!("/proc/self/fd/{number}"));
        if number < 0 || fs::symlink_metadata(&path).is_err() {
            let source = io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error());
            return Err(EngineError::io("use descriptor", &path, source));
        }
        // SAFETY: it is open, as was just checked, and was opened by the process
        // that started this one, which gave its number as an argument: nothing in
        // this process has it, and this is the one place that takes it.
        let pipe = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { pipe: pipe.into() })
    }

    /// Says that the engine listens, and closes.
    pub(crate) fn send(mut self) {
        // Who does not wait any more need not know.
        if let Err(error) = self.pipe.write_all(b"ready\n") {
            tracing::info!(%error, "nobody waits for the engine");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use dctl_machine::{DEFAULT_MACHINE, Paths};

    use super::*;

    #[tokio::test]
    async fn there_is_one_engine_and_its_socket_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let files = Paths::under(directory.path())
            .engine(DEFAULT_MACHINE)
            .unwrap();
        files.create().unwrap();
        fs::write(files.socket(), "left by another").unwrap();
        let first = Instance::acquire(&files).unwrap();
        let _listener = first.listen().unwrap();
        let mode = fs::metadata(files.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tokio::net::UnixStream::connect(files.socket())
            .await
            .unwrap();
        match Instance::acquire(&files) {
            Err(EngineError::AlreadyRunning { process_id }) => {
                assert_eq!(process_id, Some(std::process::id()));
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
        drop(first);
        assert!(!files.socket().exists());
        Instance::acquire(&files).unwrap();
    }

    #[test]
    fn readiness_is_told_and_the_pipe_closed() {
        let (mut reader, writer) = io::pipe().unwrap();
        ReadyNotice::inherited(writer.into_raw_fd()).unwrap().send();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ready\n");
        assert!(ReadyNotice::inherited(-1).is_err());
        assert!(ReadyNotice::inherited(1_000_000).is_err());
    }
}
