//! A thread that runs devices: waits for their queue events and event sources, and
//! calls them.
//!
//! The monitor gives devices that may block (block) a worker of their own, away
//! from those that must answer fast (vsock).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rustix::pipe::{PipeFlags, pipe_with};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
};

use super::mmio::MmioTransport;

/// A running thread.
pub struct Worker {
    stop: EventFd,
    /// The end of a pipe whose other end the thread has, and closes however it ends.
    ended: OwnedFd,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What an event's token stands for.
#[derive(Clone, Copy)]
enum Source {
    Stop,
    Queue { transport: usize, index: usize },
    Device { transport: usize },
}

impl Worker {
    /// Starts a thread called `name` (at most 15 bytes are seen) that runs the
    /// devices behind `transports`. `on_start` is called on it first, to confine it.
    ///
    /// # Errors
    /// What `on_start` returned, or that the thread could not be made.
    pub fn spawn(
        name: &str,
        transports: Vec<Arc<MmioTransport>>,
        on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let epoll = Epoll::new()?;
        let mut sources = Vec::new();
        register(&epoll, &mut sources, &stop, Source::Stop)?;
        for (transport, device) in transports.iter().enumerate() {
            for (index, event) in device.queue_events().iter().enumerate() {
                let source = Source::Queue { transport, index };
                register(&epoll, &mut sources, event, source)?;
            }
            if let Some(source) = device.event_source() {
                register(&epoll, &mut sources, &source, Source::Device { transport })?;
            }
        }

        let (ended, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let (started, has_started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                let outcome = on_start();
                let failed = outcome.is_err();
                // The spawning thread waits for it.
                let _ = started.send(outcome);
                if failed {
                    return Ok(());
                }
                run(&epoll, &sources, &transports)
            })?;
        let worker = Self {
            stop,
            ended,
            thread: Some(thread),
        };
        has_started
            .recv()
            .map_err(|_| io::Error::other("a device thread ended before it started"))??;
        Ok(worker)
    }

    /// Hangs up when the thread ends, for whatever reason.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Whether the thread still runs. It ends by itself only on an error, which
    /// [`Self::stop`] returns.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread after what it is doing, and waits for it.
    ///
    /// # Errors
    /// Why it had ended before, if it had.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.write(1)?;
        thread
            .join()
            .map_err(|_| io::Error::other("a device thread panicked"))?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a device thread failed");
        }
    }
}

fn register(
    epoll: &Epoll,
    sources: &mut Vec<Source>,
    fd: &impl AsRawFd,
    source: Source,
) -> io::Result<()> {
    let event = EpollEvent::new(EventSet::IN, sources.len() as u64);
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)?;
    sources.push(source);
    Ok(())
}

fn run(epoll: &Epoll, sources: &[Source], transports: &[Arc<MmioTransport>]) -> io::Result<()> {
    let mut events = vec![EpollEvent::default(); sources.len()];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for event in events.iter().take(count) {
            match sources.get(event.data() as usize) {
                Some(Source::Queue { transport, index }) => {
                    if let Some(transport) = transports.get(*transport)
                        && let Some(event) = transport.queue_events().get(*index)
                    {
                        // Before the queue is looked at: what comes later signals again.
                        let _ = event.read();
                        transport.process_queue(*index);
                    }
                }
                Some(Source::Device { transport }) => {
                    if let Some(transport) = transports.get(*transport) {
                        transport.process_event();
                    }
                }
                Some(Source::Stop) | None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn hung_up(ended: &OwnedFd, timeout: Timespec) -> bool {
        let mut descriptors = [PollFd::new(ended, PollFlags::empty())];
        poll(&mut descriptors, Some(&timeout)).unwrap();
        descriptors[0].revents().contains(PollFlags::HUP)
    }

    #[test]
    fn the_end_of_the_thread_can_be_waited_for() {
        let worker = Worker::spawn("test", Vec::new(), || Ok(())).unwrap();
        let ended = worker.ended().try_clone_to_owned().unwrap();
        assert!(!hung_up(&ended, Timespec::default()));
        worker.stop().unwrap();
        let soon = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert!(hung_up(&ended, soon));
    }
}
