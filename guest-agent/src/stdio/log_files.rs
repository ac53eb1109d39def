//! The files of a container's log as a reader finds them.
//!
//! Their writer renames and deletes them ([`rotated`]) while they are read. They are
//! opened while it stands still ([`Stdio::look_at_log`](super::Stdio::look_at_log)), and
//! known by what was opened from then on: a name may be another file's by now.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::json_log::{Limits, LogWriter, rotated};

/// How often the file after another is looked for while both are being renamed.
const TRIES: usize = 100;

/// A log at one moment.
#[derive(Debug)]
pub(crate) struct LogFiles {
    path: PathBuf,
    limits: Limits,
    /// Those that are written no more, oldest first.
    pub(super) past: Vec<File>,
    /// The one that was written to, and how long it was.
    pub(super) current: Option<(File, u64)>,
    /// What was not written yet of each stream: the beginning of a line.
    pub(super) unfinished: [Vec<u8>; 2],
}

impl LogFiles {
    /// Opens the log at `path`. `writer` is who writes it, and stands still meanwhile.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(crate) fn open(
        path: &Path,
        limits: Limits,
        writer: Option<&LogWriter>,
    ) -> io::Result<Self> {
        let mut past = Vec::new();
        for number in (1..limits.max_files).rev() {
            past.extend(open_if_there(&rotated(path, number))?);
        }
        let current = match open_if_there(path)? {
            Some(file) => {
                let length = file.metadata()?.len();
                Some((file, length))
            }
            None => None,
        };
        Ok(Self {
            path: path.to_owned(),
            limits,
            past,
            current,
            unfinished: writer.map_or_else(Default::default, |writer| writer.unfinished().clone()),
        })
    }

    /// Places the files so that `tail` entries are left to read; drops those before.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn skip_to_tail(&mut self, tail: u64) -> io::Result<()> {
        let mut left = tail;
        if let Some((file, length)) = &mut self.current {
            left = seek_back(file, *length, left)?;
        }
        let mut first = self.past.len();
        while let Some(before) = first.checked_sub(1).filter(|_| left > 0) {
            let file = &mut self.past[before];
            let length = file.metadata()?.len();
            left = seek_back(file, length, left)?;
            first = before;
        }
        self.past.drain(..first);
        Ok(())
    }

    /// The file that was written after `file`, of which it is known that it is one of
    /// this log; none when `file` is the one that is written now.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn after(&self, file: &File) -> io::Result<Option<File>> {
        let mine = identity(&file.metadata()?);
        for _ in 0..TRIES {
            let Some(number) = self.number_of(mine)? else {
                // It is deleted: what there is has come after it.
                return self.oldest(self.limits.max_files);
            };
            if number == 0 {
                return Ok(None);
            }
            let next = self.oldest(number)?;
            // Otherwise names have moved on since it was looked for.
            if next.is_some() && self.number_of(mine)? == Some(number) {
                return Ok(next);
            }
            std::thread::yield_now();
        }
        Ok(None)
    }

    /// Opens the oldest of the newest `count` files.
    fn oldest(&self, count: u32) -> io::Result<Option<File>> {
        for number in (0..count).rev() {
            if let Some(file) = open_if_there(&rotated(&self.path, number))? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The first file of a log that had none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn first(&self) -> io::Result<Option<File>> {
        self.oldest(self.limits.max_files)
    }

    /// How often the file was rotated away; none when it is deleted.
    fn number_of(&self, file: (u64, u64)) -> io::Result<Option<u32>> {
        for number in 0..self.limits.max_files {
            match fs::metadata(rotated(&self.path, number)) {
                Ok(found) if identity(&found) == file => return Ok(Some(number)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Places a file of `length` bytes before its last `lines` lines, and says how many it
/// lacks.
fn seek_back(file: &mut File, length: u64, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = length;
    if lines == 0 {
        file.seek(SeekFrom::Start(end))?;
        return Ok(0);
    }
    // The newline at the end of the last line counts for no line.
    let mut wanted = lines.saturating_add(1);
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let bytes = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)?;
        for newline in memchr::memrchr_iter(b'\n', bytes) {
            wanted -= 1;
            if wanted == 0 {
                file.seek(SeekFrom::Start(start + newline as u64 + 1))?;
                return Ok(0);
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(wanted - 1)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::stdio::{
        Shape, Stdio, Streams,
        json_log::Progress,
        log_reader::{self, Selection},
    };

    /// Lines of all lengths, some longer than an entry of the log, in writes that end
    /// anywhere. Tells `moments` each time that some of it was written.
    fn write_much(mut output: File, moments: &mpsc::Sender<()>) -> String {
        let mut all = String::new();
        for number in 0_u32..150_000 {
            all.push_str(&number.to_string());
            let ends = number.is_multiple_of(13) && !(1000..9000).contains(&number);
            all.push(if ends { '\n' } else { ' ' });
        }
        let mut rest = all.as_bytes();
        let mut told = 0;
        for size in (1..4096).step_by(37).cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(size.min(rest.len()));
            output.write_all(piece).unwrap();
            rest = after;
            let written = all.len() - rest.len();
            if written / 50_000 > told {
                told = written / 50_000;
                moments.blocking_send(()).unwrap();
            }
        }
        all
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_read_and_what_comes_are_all_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.log");
        let limits = Limits {
            max_size: 60_000,
            max_files: 200,
        };
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let log = LogWriter::open(&path, limits, Arc::clone(&progress)).unwrap();
        // Frames are of no interest here.
        let stdio = Stdio::new(Shape {
            tty: true,
            ..Shape::default()
        });
        let (ends, process) = stdio.pipes().unwrap();
        stdio.start(ends, Some(log));
        let (sender, mut moments) = mpsc::channel(1);
        drop(process.stderr);
        let output = File::from(process.stdout);
        let writing = tokio::task::spawn_blocking(move || write_much(output, &sender));
        let streams = Streams {
            stdout: true,
            ..Streams::default()
        };
        let mut readers = Vec::new();
        while moments.recv().await.is_some() {
            let (files, mut subscription) = stdio.subscribe_after(streams, |writer| {
                LogFiles::open(&path, limits, writer).unwrap()
            });
            let attached = progress.subscribe();
            readers.push(tokio::spawn(async move {
                let selection = Selection {
                    stdout: true,
                    unfinished: true,
                    ..Selection::default()
                };
                let mut read = Vec::new();
                log_reader::copy(files, attached, selection, true, &mut read)
                    .await
                    .unwrap();
                while let Some(chunk) = subscription.next().await {
                    read.extend_from_slice(&chunk);
                }
                read
            }));
            let opened = stdio.look_at_log(|writer| LogFiles::open(&path, limits, writer).unwrap());
            let followed = progress.subscribe();
            readers.push(tokio::spawn(async move {
                let selection = Selection {
                    stdout: true,
                    follow: true,
                    ..Selection::default()
                };
                let mut read = Vec::new();
                log_reader::copy(opened, followed, selection, true, &mut read)
                    .await
                    .unwrap();
                read
            }));
        }
        let written = writing.await.unwrap();
        assert!(readers.len() > 20, "{}", readers.len());
        for reader in readers {
            let read = String::from_utf8(reader.await.unwrap()).unwrap();
            assert!(read == written, "{} of {} bytes", read.len(), written.len());
        }
        // What was in the pipe when the last was written has come by now.
        assert!(rotated(&path, 10).exists());
    }

    #[test]
    fn a_file_is_followed_by_the_one_that_was_written_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.log");
        let limits = Limits {
            max_size: 1000,
            max_files: 3,
        };
        let write = |name: &Path, text: &str| fs::write(name, text).unwrap();
        write(&path, "a");
        let log = LogFiles::open(&path, limits, None).unwrap();
        let (first, _) = log.current.as_ref().unwrap();
        assert!(log.after(first).unwrap().is_none());
        let text = |file: Option<File>| {
            let mut text = String::new();
            file.unwrap().read_to_string(&mut text).unwrap();
            text
        };
        // Twice rotated, and then deleted.
        fs::rename(&path, rotated(&path, 2)).unwrap();
        write(&rotated(&path, 1), "b");
        write(&path, "c");
        assert_eq!(text(log.after(first).unwrap()), "b");
        // Between two renames there may be a gap.
        fs::remove_file(rotated(&path, 1)).unwrap();
        assert_eq!(text(log.after(first).unwrap()), "c");
        write(&rotated(&path, 1), "b");
        fs::remove_file(rotated(&path, 2)).unwrap();
        assert_eq!(text(log.after(first).unwrap()), "b");
    }
}
