//! The machine's log: what the agent says and what the kernel says, in one
//! bounded ring in memory that the host can read and follow.
//!
//! Nothing is written to the data disk, so the log is there even when the disk
//! is not.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

use crate::{clock, stdio::file::AsyncFile};

/// Bytes of log that are kept.
const CAPACITY: usize = 1024 * 1024;

/// Kernel messages up to this level are kept: `KERN_INFO`.
const KERNEL_LEVEL: u32 = 6;

/// The ring. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    ring: Arc<Mutex<Ring>>,
    /// Number of the line that will be written next.
    written: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Bytes>,
    /// Number of the first line in `lines`.
    first: u64,
    size: usize,
}

impl Log {
    /// An empty log, not yet the one that events go to.
    pub(crate) fn new() -> Self {
        Self {
            ring: Arc::default(),
            written: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Makes this the log that every `tracing` event goes to; also to stderr with
    /// `and_stderr`.
    pub(crate) fn install(&self, and_stderr: bool) {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level())
            .with_timer(WallClock)
            .with_ansi(false)
            .with_target(false)
            .with_writer(LineWriter {
                log: self.clone(),
                and_stderr,
            })
            .finish();
        // Fails only when there is one already, which then serves.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    /// Adds what the kernel logs, from its start on, in a task on the current
    /// runtime.
    pub(crate) fn follow_kernel(&self) {
        let log = self.clone();
        tokio::spawn(async move {
            if let Err(error) = log.copy_kernel_messages().await {
                tracing::warn!("kernel messages are not in this log: {error}");
            }
        });
    }

    async fn copy_kernel_messages(&self) -> io::Result<()> {
        let device = rustix::fs::open(
            "/dev/kmsg",
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut device = AsyncFile::new(device)?;
        let mut record = vec![0; 8192];
        loop {
            match device.read(&mut record).await {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let record = String::from_utf8_lossy(&record[..length]);
                    if let Some(line) = kernel_line(&record) {
                        self.push(line.into_bytes());
                    }
                }
                // Messages were overwritten before they were read: go on with the next.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn push(&self, mut line: Vec<u8>) {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        let mut ring = self.lock();
        ring.size += line.len();
        ring.lines.push_back(line.into());
        while ring.size > CAPACITY {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.size -= oldest.len();
            ring.first += 1;
        }
        let next = ring.first + ring.lines.len() as u64;
        drop(ring);
        self.written.send_replace(next);
    }

    /// Writes the log to `output`: its last `tail` lines or all, and what comes
    /// later when `follow`.
    ///
    /// # Errors
    /// When `output` fails, as it does when its reader is gone.
    pub(crate) async fn copy_to<W>(
        &self,
        output: &mut W,
        tail: Option<u64>,
        follow: bool,
    ) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let mut written = self.written.subscribe();
        let mut next = {
            let ring = self.lock();
            let end = ring.first + ring.lines.len() as u64;
            tail.map_or(ring.first, |tail| end.saturating_sub(tail).max(ring.first))
        };
        loop {
            written.mark_unchanged();
            while let Some((line, number)) = self.line_from(next) {
                output.write_all(&line).await?;
                next = number + 1;
            }
            output.flush().await?;
            if !follow || written.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The line with that number, or the oldest one after it, and its number.
    fn line_from(&self, number: u64) -> Option<(Bytes, u64)> {
        let ring = self.lock();
        let number = number.max(ring.first);
        let line = ring.lines.get((number - ring.first) as usize)?;
        Some((line.clone(), number))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record of `/dev/kmsg` as a line of the log, unless it is too detailed.
/// Format: `level,sequence,microseconds,flags;text`
/// (Documentation/ABI/testing/dev-kmsg).
fn kernel_line(record: &str) -> Option<String> {
    let (header, text) = record.split_once(';')?;
    let mut fields = header.split(',');
    let level = fields.next()?.parse::<u32>().ok()? & 7;
    let microseconds: i64 = fields.nth(1)?.parse().ok()?;
    if level > KERNEL_LEVEL {
        return None;
    }
    let text = text.lines().next()?;
    let since_boot = clock::uptime_ms() as i64 * 1_000_000;
    let time = clock::now()
        .saturating_sub(since_boot)
        .saturating_add(microseconds.saturating_mul(1000));
    Some(format!("{} kernel: {text}\n", clock::rfc3339(time)))
}

/// How much is logged: `DCTL_AGENT_LOG` (`error` to `trace`), which the kernel's
/// command line sets for PID 1; else `info`.
fn level() -> LevelFilter {
    std::env::var("DCTL_AGENT_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::INFO)
}

struct WallClock;

impl FormatTime for WallClock {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&clock::rfc3339(clock::now()))
    }
}

#[derive(Clone)]
struct LineWriter {
    log: Log,
    and_stderr: bool,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.and_stderr {
            io::stderr().write_all(line)?;
        }
        self.log.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(log: &Log, tail: Option<u64>) -> String {
        let mut output = Vec::new();
        log.copy_to(&mut output, tail, false).await.unwrap();
        String::from_utf8(output).unwrap()
    }

    #[tokio::test]
    async fn the_tail_is_the_end() {
        let log = Log::new();
        for number in 0..5 {
            log.push(format!("line {number}").into_bytes());
        }
        assert_eq!(text(&log, Some(2)).await, "line 3\nline 4\n");
        assert_eq!(text(&log, Some(0)).await, "");
        assert_eq!(text(&log, None).await.lines().count(), 5);
    }

    #[tokio::test]
    async fn the_ring_forgets_its_oldest_lines() {
        let log = Log::new();
        for _ in 0..3 {
            log.push(vec![b'x'; CAPACITY / 2 - 1]);
        }
        assert_eq!(text(&log, None).await.lines().count(), 2);
    }

    #[test]
    fn kernel_records_become_lines() {
        let line = kernel_line("4,1,1000,-;eth0: gone\n SUBSYSTEM=net\n").unwrap();
        assert!(line.ends_with("kernel: eth0: gone\n"), "{line}");
        assert!(kernel_line("7,1,1000,-;detail\n").is_none());
        assert!(kernel_line("nonsense").is_none());
    }
}
