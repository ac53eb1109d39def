//! Reading a container's log back: the end of it, a span of time, or as it grows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use super::{HEADER, Stream, json_line::Line, json_log::Progress, log_files::LogFiles};
use crate::clock;

/// The longest entry that is read: a line of output with every byte escaped, and
/// what was noted with it.
const LONGEST_ENTRY: u64 = 256 * 1024;

/// How much is sent at once, about.
const BATCH: usize = 64 * 1024;

/// What of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection {
    /// Go on until the container ends.
    pub(crate) follow: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// From this time on, Unix nanoseconds; zero for the beginning.
    pub(crate) since: i64,
    /// Up to this time; zero for the end.
    pub(crate) until: i64,
    /// A timestamp before each entry.
    pub(crate) timestamps: bool,
    /// Only the last so many entries.
    pub(crate) tail: Option<u64>,
    /// What was noted with it before each entry.
    pub(crate) details: bool,
    /// The beginnings of lines, too, that are not in the log yet.
    pub(crate) unfinished: bool,
}

impl Selection {
    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// Writes what `selection` asks of a log to `output`: raw for a terminal's log, else in
/// Docker's frames. What is written to it meanwhile is for those who follow it.
///
/// # Errors
/// When the log cannot be read or `output` fails.
pub(crate) async fn copy<W>(
    mut log: LogFiles,
    progress: watch::Receiver<Progress>,
    selection: Selection,
    tty: bool,
    output: &mut W,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    if let Some(tail) = selection.tail {
        log.skip_to_tail(tail)?;
    }
    for file in std::mem::take(&mut log.past) {
        Entries::new(file, None)
            .send(&selection, tty, output)
            .await?;
    }
    let current = log.current.take();
    if selection.follow {
        return follow(
            current.map(|(file, _)| file),
            &log,
            progress,
            selection,
            tty,
            output,
        )
        .await;
    }
    if let Some((mut file, length)) = current {
        let from = file.stream_position()?;
        let length = length.saturating_sub(from);
        Entries::new(file, Some(length))
            .send(&selection, tty, output)
            .await?;
    }
    if selection.unfinished {
        send_unfinished(&log, &selection, tty, output).await?;
    }
    output.flush().await
}

/// Writes a log as it grows, from `file` on or from the first that there will be.
async fn follow<W>(
    file: Option<File>,
    log: &LogFiles,
    mut progress: watch::Receiver<Progress>,
    selection: Selection,
    tty: bool,
    output: &mut W,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut entries = file.map(|file| Entries::new(file, None));
    loop {
        // Read before the file is: what comes in between is seen next time.
        let running = progress.borrow_and_update().running;
        let next = match &entries {
            Some(entries) => log.after(entries.file.get_ref())?,
            None => log.first()?,
        };
        if let Some(entries) = &mut entries {
            if entries.send(&selection, tty, output).await? {
                return Ok(());
            }
            output.flush().await?;
        }
        if let Some(next) = next {
            entries = Some(Entries::new(next, None));
            continue;
        }
        if !running || progress.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn send_unfinished<W>(
    log: &LogFiles,
    selection: &Selection,
    tty: bool,
    output: &mut W,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    for (stream, text) in [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .zip(&log.unfinished)
    {
        if text.is_empty() || !selection.wants(stream) {
            continue;
        }
        if !tty {
            output.write_all(&header(stream, text.len())).await?;
        }
        output.write_all(text).await?;
    }
    Ok(())
}

/// Docker's header of a frame.
fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// Reads entries from one file.
struct Entries {
    file: BufReader<File>,
    /// A line whose end is not written yet.
    line: Vec<u8>,
    /// The output in the entry at hand.
    text: Vec<u8>,
    remaining: Option<u64>,
    /// An entry was later than wanted.
    past_the_end: bool,
}

impl Entries {
    fn new(file: File, remaining: Option<u64>) -> Self {
        Self {
            file: BufReader::with_capacity(64 * 1024, file),
            line: Vec::new(),
            text: Vec::new(),
            remaining,
            past_the_end: false,
        }
    }

    /// Writes all entries up to the file's end, for now; true when one was later than
    /// wanted.
    async fn send<W>(
        &mut self,
        selection: &Selection,
        tty: bool,
        output: &mut W,
    ) -> io::Result<bool>
    where
        W: AsyncWrite + Unpin,
    {
        let mut batch = Vec::new();
        loop {
            let more = self.next_batch(selection, tty, &mut batch)?;
            output.write_all(&batch).await?;
            if !more {
                return Ok(self.past_the_end);
            }
        }
    }

    /// Replaces `batch` with the next entries as they are sent; false when the
    /// end of the file was reached for now.
    fn next_batch(
        &mut self,
        selection: &Selection,
        tty: bool,
        batch: &mut Vec<u8>,
    ) -> io::Result<bool> {
        batch.clear();
        while batch.len() < BATCH {
            let room = LONGEST_ENTRY - self.line.len() as u64;
            let limit = self.remaining.map_or(room, |remaining| remaining.min(room));
            let length = (&mut self.file)
                .take(limit)
                .read_until(b'\n', &mut self.line)? as u64;
            if let Some(remaining) = &mut self.remaining {
                *remaining -= length;
            }
            if length == 0 && room > 0 {
                return Ok(false);
            }
            if !self.line.ends_with(b"\n") && length < room {
                // A line in the writing.
                if length < limit {
                    return Ok(false);
                }
                continue;
            }
            // What is not an entry, say after a power cut, is passed over.
            if let Some(entry) = Line::read(&self.line, &mut self.text)
                && append(&entry, &self.text, selection, tty, batch)
            {
                self.past_the_end = true;
                return Ok(false);
            }
            self.line.clear();
        }
        Ok(true)
    }
}

/// Adds an entry with the output `text` to `batch` as it is sent, when it is wanted;
/// true when it is later than wanted.
fn append(
    entry: &Line<'_>,
    text: &[u8],
    selection: &Selection,
    tty: bool,
    batch: &mut Vec<u8>,
) -> bool {
    if selection.since != 0 || selection.until != 0 {
        let time = clock::parse_rfc3339(&entry.time).unwrap_or(0);
        if selection.until != 0 && time > selection.until {
            return true;
        }
        if time < selection.since {
            return false;
        }
    }
    if !selection.wants(entry.stream) {
        return false;
    }
    let begin = batch.len();
    if !tty {
        batch.extend_from_slice(&header(entry.stream, 0));
    }
    if selection.timestamps {
        batch.extend_from_slice(entry.time.as_bytes());
        batch.push(b' ');
    }
    if selection.details {
        batch.extend_from_slice(entry.details().as_bytes());
        batch.push(b' ');
    }
    batch.extend_from_slice(text);
    if !tty {
        let frame = header(entry.stream, batch.len() - begin - HEADER);
        batch[begin..begin + HEADER].copy_from_slice(&frame);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        path::{Path, PathBuf},
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::stdio::json_log::{Limits, LogWriter};

    fn log_of(writes: &[(Stream, &[u8])], limits: Limits) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.log");
        let mut log = LogWriter::open(&path, limits, Arc::default()).unwrap();
        for (stream, bytes) in writes {
            log.write(*stream, bytes);
        }
        (folder, path)
    }

    const ALL: Selection = Selection {
        follow: false,
        stdout: true,
        stderr: true,
        since: 0,
        until: 0,
        timestamps: false,
        tail: None,
        details: false,
        unfinished: false,
    };

    fn read(path: &Path, limits: Limits, selection: Selection) -> String {
        let mut output = Vec::new();
        let log = LogFiles::open(path, limits, None).unwrap();
        let (_sender, progress) = watch::channel(Progress::default());
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(copy(log, progress, selection, true, &mut output))
            .unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn an_entry_that_a_power_cut_tore_takes_no_other_along() {
        let (_folder, path) = log_of(&[(Stream::Stdout, b"one\ntorn\n")], Limits::default());
        let length = std::fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(length - 20).unwrap();
        let mut log = LogWriter::open(&path, Limits::default(), Arc::default()).unwrap();
        log.write(Stream::Stdout, b"two\n");
        assert_eq!(read(&path, Limits::default(), ALL), "one\ntwo\n");
    }

    #[test]
    fn one_write_fills_as_many_files_as_it_needs() {
        let limits = Limits {
            max_size: 1000,
            max_files: 50,
        };
        let lines = "a line of the log\n".repeat(200);
        let (folder, path) = log_of(&[(Stream::Stdout, lines.as_bytes())], limits);
        assert_eq!(read(&path, limits, ALL), lines);
        let mut files = 0;
        for file in std::fs::read_dir(&folder).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= limits.max_size);
            files += 1;
        }
        assert!(files > 10);
    }

    #[test]
    fn streams_and_tail_are_selected() {
        let (_folder, path) = log_of(
            &[
                (Stream::Stdout, b"one\ntw"),
                (Stream::Stderr, b"error\n"),
                (Stream::Stdout, b"o\nthree"),
            ],
            Limits::default(),
        );
        let limits = Limits::default();
        assert_eq!(read(&path, limits, ALL), "one\nerror\ntwo\nthree");
        let selection = Selection {
            stderr: false,
            ..ALL
        };
        assert_eq!(read(&path, limits, selection), "one\ntwo\nthree");
        let selection = Selection {
            tail: Some(2),
            ..ALL
        };
        assert_eq!(read(&path, limits, selection), "two\nthree");
        let selection = Selection {
            tail: Some(0),
            ..ALL
        };
        assert_eq!(read(&path, limits, selection), "");
        let selection = Selection { until: 1, ..ALL };
        assert_eq!(read(&path, limits, selection), "");
    }

    #[test]
    fn attributes_are_logged_and_shown_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.log");
        let attributes = [("team", "red & blue"), ("A", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let log = LogWriter::open(&path, Limits::default(), Arc::default()).unwrap();
        let mut log = log.with_attributes(&attributes);
        log.write(Stream::Stdout, b"one\n");
        drop(log);
        assert_eq!(read(&path, Limits::default(), ALL), "one\n");
        let selection = Selection {
            details: true,
            ..ALL
        };
        assert_eq!(
            read(&path, Limits::default(), selection),
            "A=1,team=red+%26+blue one\n"
        );
    }

    #[test]
    fn a_log_never_outgrows_its_limits() {
        let limits = Limits {
            max_size: 4096,
            max_files: 3,
        };
        let (folder, path) = log_of(&[(Stream::Stdout, &b"a line of output\n"[..]); 400], limits);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= 4096);
        }
        let text = read(&path, limits, ALL);
        assert!(text.lines().count() > 60, "{}", text.lines().count());
        let selection = Selection {
            tail: Some(50),
            ..ALL
        };
        assert_eq!(read(&path, limits, selection).lines().count(), 50);
    }

    #[test]
    fn a_follower_reads_on_until_the_run_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.log");
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let limits = Limits {
            max_size: 2000,
            max_files: 2,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut log = LogWriter::open(&path, limits, progress.clone()).unwrap();
            let receiver = progress.subscribe();
            let files = LogFiles::open(&path, limits, Some(&log)).unwrap();
            let reader = tokio::spawn(async move {
                let mut output = Vec::new();
                let selection = Selection {
                    follow: true,
                    ..ALL
                };
                copy(files, receiver, selection, true, &mut output)
                    .await
                    .unwrap();
                output
            });
            for number in 0..100 {
                log.write(Stream::Stdout, format!("{number}\n").as_bytes());
                tokio::task::yield_now().await;
            }
            drop(log);
            let output = String::from_utf8(reader.await.unwrap()).unwrap();
            let expected: String =
                (0..100).fold(String::new(), |text, number| format!("{text}{number}\n"));
            assert_eq!(output, expected);
        });
    }

    proptest! {
        #[test]
        fn text_comes_back_as_it_was(writes in proptest::collection::vec("\\PC{0,30}\n?", 0..40)) {
            let pieces: Vec<_> = writes.iter().map(|text| (Stream::Stdout, text.as_bytes())).collect();
            let (_folder, path) = log_of(&pieces, Limits::default());
            prop_assert_eq!(read(&path, Limits::default(), ALL), writes.concat());
        }
    }
}
