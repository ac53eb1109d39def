//! What a process writes, as the agent reads it: few wakes and large reads, however
//! small its writes are.
//!
//! A pipe that is polled wakes its reader at each write (Linux 5.14 and later, for
//! pollers that want an event for each). A process that writes a log in pages would have
//! the agent run once for every page of it, on another processor. So an [`Output`] is
//! armed for one event, and not again before it was read empty; and while output goes on
//! and on, [`Pace`] lets some of it gather in the pipe before the next read.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

/// How long output gathers that comes in small pieces. A pipe takes more in this time
/// than most processes write.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// How much output may come in small pieces, one for each pause, before there are
/// pauses: what answers a person or a program is never late.
const ALLOWANCE: Duration = Duration::from_millis(64);

/// A pause was worth it when it made a read this many times as long.
const WORTH: usize = 2;

/// The agent's end of a process's pipe or terminal.
#[derive(Debug)]
pub(super) struct Output {
    file: OwnedFd,
    /// Readable when `file` is; holds nothing but that.
    armed: AsyncFd<OwnedFd>,
}

impl Output {
    /// Makes `file` non-blocking.
    ///
    /// # Errors
    /// When the machine is out of files.
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&file, true)?;
        let armed = epoll::create(CreateFlags::CLOEXEC)?;
        // Not armed yet.
        epoll::add(&armed, &file, EventData::new_u64(0), EventFlags::ONESHOT)?;
        // SAFETY: an `OwnedFd` names one open file for as long as it lives.
        let armed = unsafe { AsyncFd::register_with_interest(armed, Interest::READABLE) }?;
        Ok(Self { file, armed })
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub(super) async fn readable(&self) -> io::Result<()> {
        let events = EventFlags::IN | EventFlags::ONESHOT;
        epoll::modify(
            self.armed.get_ref(),
            &self.file,
            EventData::new_u64(0),
            events,
        )?;
        loop {
            let mut ready = self.armed.readable().await?;
            let mut events = Vec::with_capacity(1);
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // The event is taken: from here on none comes until it is armed again.
            let result = epoll::wait(
                self.armed.get_ref(),
                spare_capacity(&mut events),
                Some(&now),
            );
            match result {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => ready.clear_ready(),
            }
            if !events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Appends what there is to `buffer`, as much as it has room for, and returns its
    /// length: zero at the end, `None` when there is nothing now.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        loop {
            return match rustix::io::read(self.file.as_fd(), spare_capacity(buffer)) {
                Ok(length) => Ok(Some(length)),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR) => continue,
                // A terminal whose other side was closed for the last time.
                Err(Errno::IO) => Ok(Some(0)),
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// Tells when to let output gather.
///
/// Reads that bring little are counted against an allowance that grows with time. When
/// it is used up there is a pause after each, unless pauses gather nothing: a program
/// that waits for an answer to what it wrote writes no more meanwhile.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time up to which the allowance is used.
    used: Instant,
    /// Length of the last read that came after no pause.
    alone: usize,
    paused: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            used: now.checked_sub(ALLOWANCE).unwrap_or(now),
            alone: 0,
            paused: false,
        }
    }

    /// Whether to pause after a read of `length` bytes that found no more.
    pub(super) fn pause_after(&mut self, length: usize, now: Instant) -> bool {
        let floor = now.checked_sub(ALLOWANCE).unwrap_or(now);
        if std::mem::take(&mut self.paused) {
            if length < self.alone.saturating_mul(WORTH) {
                self.used = floor;
                self.alone = length;
                return false;
            }
        } else {
            self.alone = length;
        }
        self.used = self.used.max(floor) + PAUSE;
        self.paused = self.used > now;
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    const TICK: Duration = Duration::from_micros(100);

    /// Has a process write `writes` times, `bytes` each tick or, when it `waits`, once
    /// for each read; how many reads and pauses it takes.
    fn paced(bytes: usize, ticks: usize, waits: bool) -> (usize, usize) {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let (mut left, mut reads, mut pauses) = (ticks, 0, 0);
        let mut gathered = 1;
        while left > 0 {
            left = left.saturating_sub(gathered);
            reads += 1;
            if pace.pause_after(bytes * gathered, now) {
                pauses += 1;
                now += PAUSE;
                gathered = if waits {
                    1
                } else {
                    (PAUSE.as_micros() / TICK.as_micros()) as usize
                };
            } else {
                now += TICK;
                gathered = 1;
            }
        }
        (reads, pauses)
    }

    #[test]
    fn what_goes_on_and_on_is_gathered() {
        let (reads, pauses) = paced(100, 100_000, false);
        assert!(reads < 6_000, "{reads}");
        assert!(pauses > 4_000, "{pauses}");
    }

    #[test]
    fn what_waits_for_answers_is_hardly_ever_late() {
        let (reads, pauses) = paced(5000, 10_000, true);
        assert_eq!(reads, 10_000);
        assert!(pauses * 30 < reads, "{pauses}");
    }

    #[test]
    fn now_and_then_is_never_late() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..1000 {
            assert!(!pace.pause_after(4096, now));
            now += PAUSE;
        }
        // Nor is a burst.
        for _ in 0..30 {
            assert!(!pace.pause_after(4096, now));
        }
    }

    #[tokio::test]
    async fn an_output_tells_of_all_that_comes_and_of_its_end() {
        let (near, far) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (output, mut process) = (Output::new(near).unwrap(), File::from(far));
        let mut buffer = Vec::with_capacity(100);
        assert_eq!(output.read(&mut buffer).unwrap(), None);
        let soon = |output| tokio::time::timeout(Duration::from_secs(10), Output::readable(output));
        for text in ["one", "two"] {
            process.write_all(text.as_bytes()).unwrap();
            soon(&output).await.unwrap().unwrap();
            // There is still something: so it is said again.
            soon(&output).await.unwrap().unwrap();
            assert_eq!(output.read(&mut buffer).unwrap(), Some(3));
            assert!(buffer.ends_with(text.as_bytes()));
            assert_eq!(output.read(&mut buffer).unwrap(), None);
            let nothing = tokio::time::timeout(Duration::from_millis(20), output.readable());
            assert!(nothing.await.is_err());
        }
        let writer = tokio::task::spawn_blocking(move || {
            process.write_all(b"last").unwrap();
        });
        let mut all = Vec::with_capacity(100);
        loop {
            soon(&output).await.unwrap().unwrap();
            if output.read(&mut all).unwrap() == Some(0) {
                break;
            }
        }
        assert_eq!(all, b"last");
        writer.await.unwrap();
    }
}
