//! Reads what a guest wrote to its console, and a monitor to its log. Both are
//! shown to a user, and a guest can write anything.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{Error, Result};

/// What Linux prints when it cannot go on.
pub(crate) const PANIC: &str = "Kernel panic - not syncing";

/// The most of a log that is read.
const MAX_READ: u64 = 1024 * 1024;
/// The most of one line that is shown.
const MAX_LINE: usize = 300;

/// The last bytes of a log; nothing when there is no such file.
pub(crate) fn read_tail(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path, error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let length = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_READ)))
        .map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_READ)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// The line in which the kernel says why it panicked.
pub(crate) fn panic_line(console: &[u8]) -> Option<String> {
    String::from_utf8_lossy(console)
        .lines()
        .find_map(|line| line.find(PANIC).and_then(|at| line.get(at..)))
        .map(printable)
}

/// The last line that says anything.
pub(crate) fn last_line(log: &[u8]) -> Option<String> {
    String::from_utf8_lossy(log)
        .lines()
        .rev()
        .map(printable)
        .find(|line| !line.is_empty())
}

fn printable(line: &str) -> String {
    line.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_LINE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_line_is_found_without_its_time_stamp() {
        let console = b"[    0.1] fine\r\n[    0.2] Kernel panic - not syncing: VFS: no root\r\n[    0.3] Call Trace:\n";
        assert_eq!(
            panic_line(console).as_deref(),
            Some("Kernel panic - not syncing: VFS: no root")
        );
        assert_eq!(panic_line(b"all is well\n"), None);
    }

    #[test]
    fn what_is_shown_is_one_short_line_without_escapes() {
        let mut log = b"first\n\x1b[31mlast ".to_vec();
        log.extend([b'x'; 1000]);
        log.extend(b"\n\n  \n");
        let line = last_line(&log).unwrap();
        assert!(line.starts_with("[31mlast"), "{line}");
        assert_eq!(line.chars().count(), MAX_LINE);
        assert_eq!(last_line(b"\n"), None);
        assert!(last_line(&[0xff, 0xfe]).is_some());
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(read_tail(&path).unwrap().is_empty());
        std::fs::write(&path, vec![b'a'; MAX_READ as usize + 10]).unwrap();
        assert_eq!(read_tail(&path).unwrap().len(), MAX_READ as usize);
    }
}
