//! Writing a container's log: Docker's json-file format.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"…"}`. A
//! line of output longer than [`LINE`] bytes becomes several entries, of which
//! only the last ends in a newline. The file is rotated by size, so a container
//! cannot fill the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::Stream;
use crate::clock;

/// The longest entry, in bytes of output; Docker's value.
const LINE: usize = 16 * 1024;

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
        let file = open_append(path)?;
        let size = file.metadata()?.len();
        progress.send_modify(|progress| progress.running = true);
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limits,
            partial: Default::default(),
            progress,
            failing: false,
        })
    }

    /// Bytes in the current file.
    pub(crate) fn written(&self) -> u64 {
        self.size
    }

    /// Logs output. A failure to write is reported once, and does not stop the
    /// process that wrote.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time = clock::rfc3339(clock::now());
        let mut entries = Vec::with_capacity(bytes.len() + 128);
        let partial = &mut self.partial[stream as usize - 1];
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE - partial.len();
            let end = rest
                .iter()
                .take(room)
                .position(|byte| *byte == b'\n')
                .map_or(room.min(rest.len()), |newline| newline + 1);
            let (piece, after) = rest.split_at(end);
            partial.extend_from_slice(piece);
            rest = after;
            if piece.ends_with(b"\n") || partial.len() >= LINE {
                encode_entry(&mut entries, partial, stream, &time);
                partial.clear();
            }
        }
        self.append(&entries);
    }

    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        let result = self.rotate_for(entries.len() as u64).and_then(|()| {
            self.file.write_all(entries)?;
            self.size += entries.len() as u64;
            Ok(())
        });
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

    fn rotate_for(&mut self, more: u64) -> io::Result<()> {
        if self.size == 0 || self.size + more <= self.limits.max_size {
            return Ok(());
        }
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
        let mut entries = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = &self.partial[stream as usize - 1];
            if !partial.is_empty() {
                encode_entry(&mut entries, partial, stream, &time);
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
    OpenOptions::new().create(true).append(true).open(path)
}

fn encode_entry(entries: &mut Vec<u8>, output: &[u8], stream: Stream, time: &str) {
    entries.extend_from_slice(b"{\"log\":");
    // A JSON string of a string cannot fail, and neither can a write to memory.
    let _ = serde_json::to_writer(&mut *entries, &String::from_utf8_lossy(output));
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    entries.extend_from_slice(format!(",\"stream\":\"{name}\",\"time\":\"{time}\"}}\n").as_bytes());
}
