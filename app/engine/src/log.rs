//! The engine's log: a file that is bounded, with one predecessor.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// From this size on, in bytes, a new file is begun.
const MAX_SIZE: u64 = 2 * 1024 * 1024;

/// Starts logging to `path`. `DCTL_LOG` sets what is logged, in the syntax of
/// tracing's filters.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn start(path: &Path) -> io::Result<()> {
    let filter = EnvFilter::try_from_env("DCTL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(BoundedFile::open(path, MAX_SIZE)?)
        .finish();
    // Only a test has one already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// A file that starts anew when it is full; what it held is kept as `<name>.1`.
struct BoundedFile {
    path: PathBuf,
    limit: u64,
    state: Mutex<State>,
}

struct State {
    file: File,
    size: u64,
}

impl BoundedFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        let bounded = Self {
            path: path.to_owned(),
            limit,
            state: Mutex::new(State { file, size }),
        };
        Ok(bounded)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.size >= self.limit {
            let mut previous = self.path.clone().into_os_string();
            previous.push(".1");
            fs::rename(&self.path, previous)?;
            *state = State {
                file: open(&self.path)?,
                size: 0,
            };
        }
        let written = state.file.write(bytes)?;
        state.size += written as u64;
        Ok(written)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// One line's way into the file.
struct Line<'a>(&'a BoundedFile);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BoundedFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_starts_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.log");
        let log = BoundedFile::open(&path, 10).unwrap();
        for line in ["first line\n", "second\n"] {
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        let previous = directory.path().join("engine.log.1");
        assert_eq!(fs::read_to_string(previous).unwrap(), "first line\n");
    }
}
