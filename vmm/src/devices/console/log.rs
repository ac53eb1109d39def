//! A log file of bounded size: its beginning and its end are kept, and how much was
//! left out between them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Bytes at the beginning that are kept for good: where a boot went wrong.
const HEAD: u64 = 256 * 1024;
/// Bytes at the end that are kept at least: how it ended.
const TAIL: u64 = 128 * 1024;
/// When the file has grown to this, its middle is left out.
const LIMIT: u64 = HEAD + 3 * TAIL;

/// The log could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the console log {}: {source}", path.display())]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// The log. At any moment the file holds all of it: a reader needs no help, and a
/// killed monitor loses nothing.
#[derive(Debug)]
pub(super) struct BoundedLog {
    file: File,
    length: u64,
    omitted: u64,
}

impl BoundedLog {
    pub(super) fn create(path: &Path) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| LogError {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            file,
            length: 0,
            omitted: 0,
        })
    }

    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all_at(text, self.length)?;
        self.length += text.len() as u64;
        if self.length > LIMIT {
            self.leave_out_the_middle()?;
        }
        Ok(())
    }

    fn leave_out_the_middle(&mut self) -> io::Result<()> {
        let mut tail = vec![0; TAIL as usize];
        let tail_start = self.length - TAIL;
        self.file.read_exact_at(&mut tail, tail_start)?;
        self.omitted += tail_start - HEAD;
        let note = format!("\n[{} bytes left out]\n", self.omitted);
        self.file.write_all_at(note.as_bytes(), HEAD)?;
        let tail_start = HEAD + note.len() as u64;
        self.file.write_all_at(&tail, tail_start)?;
        self.length = tail_start + TAIL;
        self.file.set_len(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_beginning_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = BoundedLog::create(&path).unwrap();
        log.write(b"the first line\n").unwrap();
        for line in 0..200_000 {
            log.write(format!("line {line}\n").as_bytes()).unwrap();
            assert!(log.length <= LIMIT);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= LIMIT);
        assert!(text.starts_with("the first line\nline 0\n"));
        assert!(text.ends_with("line 199998\nline 199999\n"));
        assert_eq!(text.matches("bytes left out]").count(), 1);
    }

    #[test]
    fn is_private_and_starts_empty() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        BoundedLog::create(&path).unwrap().write(b"old").unwrap();
        BoundedLog::create(&path).unwrap().write(b"n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn says_which_file_cannot_be_made() {
        let error = BoundedLog::create(Path::new("/nonexistent/log")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/log"));
    }
}
