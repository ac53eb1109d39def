//! Writing a container's log: Docker's json-file format.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"…"}`. A
//! line of output longer than 16 KiB becomes several [entries](json_entry), of
//! which only the last ends in a newline. The file is rotated by size, so a
//! container cannot fill the disk.
//!
//! What one read brings is one write and has one time, however many lines it is.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use memchr::{memchr, memrchr};
use tokio::sync::watch;

use super::{
    Stream,
    json_entry::{self, Note},
};
use crate::clock;

/// A buffer for entries is kept for the next ones unless it grew beyond this.
const KEPT: usize = 256 * 1024;

/// How much log is kept of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A file is rotated before it grows beyond this many bytes.
    pub(crate) max_size: u64,
    /// How many files there are, the current one included.
    pub(crate) max_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_size: 64 * 1024 * 1024,
            max_files: 2,
        }
    }
}

impl Limits {
    /// From Docker's `max-size` (`10m`) and `max-file` options.
    ///
    /// # Errors
    /// Says which option cannot be understood.
    pub(crate) fn parse(max_size: Option<&str>, max_files: Option<&str>) -> Result<Self, String> {
        let mut limits = Self::default();
        if let Some(text) = max_size {
            limits.max_size = parse_size(text)
                .filter(|size| *size > 0)
                .ok_or_else(|| format!("invalid value for max-size: {text:?}"))?;
            // Docker keeps one file unless told otherwise.
            limits.max_files = 1;
        }
        if let Some(text) = max_files {
            limits.max_files = text
                .parse()
                .ok()
                .filter(|count| (1..=1000).contains(count))
                .ok_or_else(|| format!("invalid value for max-file: {text:?}"))?;
        }
        Ok(limits)
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// What followers of a log wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes written since the container was loaded.
    pub(crate) written: u64,
    /// Whether more can come.
    pub(crate) running: bool,
}

/// Writes the log of one run.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    limits: Limits,
    /// Output of each stream that is not yet a whole line.
    partial: [Vec<u8>; 2],
    /// A JSON object that goes into every entry; may be empty.
    attributes: String,
    /// Empty between writes; its memory is used again.
    entries: Vec<u8>,
    progress: Arc<watch::Sender<Progress>>,
    failing: bool,
}

impl LogWriter {
    /// Opens the log at `path` to append to it; tells `progress` of each write.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(
        path: &Path,
        limits: Limits,
        progress: Arc<watch::Sender<Progress>>,
    ) -> io::Result<Self> {
        let mut file = open_append(path)?;
        let mut size = file.metadata()?.len();
        if !ends_in_newline(&file, size)? {
            // A power cut took the end of an entry: the next one is a line of its own.
            file.write_all(b"\n")?;
            size += 1;
        }
        progress.send_modify(|progress| progress.running = true);
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limits,
            partial: Default::default(),
            attributes: String::new(),
            entries: Vec::new(),
            progress,
            failing: false,
        })
    }

    /// Notes `attributes` with every entry from now on.
    pub(crate) fn with_attributes(mut self, attributes: &BTreeMap<String, String>) -> Self {
        if !attributes.is_empty() {
            // Strings always are JSON.
            self.attributes = serde_json::to_string(attributes).unwrap_or_default();
        }
        self
    }

    /// Output of each stream that is not in the file yet: the beginning of a line.
    pub(super) fn unfinished(&self) -> &[Vec<u8>; 2] {
        &self.partial
    }

    /// Logs output. A failure to write is reported once, and does not stop the
    /// process that wrote.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time = clock::rfc3339(clock::now());
        let mut entries = std::mem::take(&mut self.entries);
        let partial = &mut self.partial[stream as usize - 1];
        let note = Note {
            attributes: &self.attributes,
            time: &time,
        };
        json_entry::encode(&mut entries, partial, bytes, stream, note);
        self.append(&entries);
        entries.clear();
        entries.shrink_to(KEPT);
        self.entries = entries;
    }

    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        let result = self.write_entries(entries);
        match result {
            Ok(()) => {
                self.failing = false;
                self.progress
                    .send_modify(|progress| progress.written += entries.len() as u64);
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!("cannot write the log {}: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }

    /// Writes whole entries, as many at once as fit into the file.
    fn write_entries(&mut self, entries: &[u8]) -> io::Result<()> {
        let mut rest = entries;
        while !rest.is_empty() {
            let room = self.limits.max_size.saturating_sub(self.size);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let end = if rest.len() <= room {
                rest.len()
            } else if let Some(newline) = memrchr(b'\n', &rest[..room]) {
                newline + 1
            } else if self.size > 0 {
                self.rotate()?;
                continue;
            } else {
                // An entry that is larger than a file has one for itself.
                memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1)
            };
            let (fitting, after) = rest.split_at(end);
            self.file.write_all(fitting)?;
            self.size += fitting.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.limits.max_files).rev() {
            let from = rotated(&self.path, number - 1);
            match fs::rename(from, rotated(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.max_files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = open_append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let time = clock::rfc3339(clock::now());
        let note = Note {
            attributes: &self.attributes,
            time: &time,
        };
        let mut entries = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = &self.partial[stream as usize - 1];
            if !partial.is_empty() {
                json_entry::encode_entry(&mut entries, partial, stream, note);
            }
        }
        self.append(&entries);
        self.progress
            .send_modify(|progress| progress.running = false);
    }
}

/// The log file that was rotated away `number` times; 0 is the current one.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
}

fn ends_in_newline(file: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(&byte == b"\n")
}
