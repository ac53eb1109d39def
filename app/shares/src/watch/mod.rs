//! Changes that the host makes to what is exported, for containers' watchers.
//!
//! A [`Watcher`] has an inotify watch on every directory of every export, up to a bound,
//! and reports each change that the guest can be watching for: in a directory that it has
//! looked at, and not made by the server itself. Changes that come together are reported
//! once.

mod batch;
mod tree;

use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use guest_protocol::replay::Change;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, ReadFlags};
use rustix::io::Errno;

use crate::server::Server;
use batch::{Batch, Event};
use tree::Tree;

/// How long further changes are waited for once there is one.
const GATHER: Duration = Duration::from_millis(10);

/// Bytes of events that are read at a time.
const BUFFER: usize = 64 * 1024;

/// Watches all exports of a server.
#[derive(Debug)]
pub struct Watcher {
    server: Arc<Server>,
    inotify: Arc<OwnedFd>,
    tree: Tree,
}

impl Watcher {
    /// A watcher of what a server exports now and will export. There is to be one for a
    /// server. At most `directories` are watched; changes in others are not seen.
    ///
    /// # Errors
    /// When the host's limit of inotify instances is reached
    /// (`fs.inotify.max_user_instances`).
    pub fn new(server: Arc<Server>, directories: usize) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = Arc::new(inotify::init(flags)?);
        let tree = Tree::new(Arc::clone(&inotify), directories);
        Ok(Self {
            server,
            inotify,
            tree,
        })
    }

    /// Reports changes, on the calling thread, until `report` asks for an end or
    /// [`Server::stop_watching`] is called. Export names and paths are as
    /// [`Change`] has them.
    ///
    /// # Errors
    /// When the host fails to give any more events.
    pub fn run(mut self, mut report: impl FnMut(Change) -> ControlFlow<()>) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let server = Arc::clone(&self.server);
        loop {
            if server.exports.watching_ended() {
                return Ok(());
            }
            self.tree.follow(&server.exports.all());
            self.wait()?;
            let mut batch = Batch::default();
            self.read(&mut buffer, &mut batch)?;
            if batch.is_empty() {
                continue;
            }
            // What belongs together arrives together: a rename's two names, a program's
            // many small writes.
            std::thread::sleep(GATHER);
            self.read(&mut buffer, &mut batch)?;
            for change in batch.changes(&mut self.tree, &server) {
                if report(change).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Waits for events, or other exports.
    fn wait(&self) -> io::Result<()> {
        let exports = self.server.exports.changed();
        let mut wanted = [
            PollFd::new(&*self.inotify, PollFlags::IN),
            PollFd::new(exports, PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if wanted[1].revents().contains(PollFlags::IN) {
            // Only that it changed matters, not how often.
            let _ = rustix::io::read(exports, &mut [0_u8; 8]);
        }
        Ok(())
    }

    /// Takes the events that are there, as many as a batch counts.
    fn read(&self, buffer: &mut [MaybeUninit<u8>], batch: &mut Batch) -> io::Result<()> {
        let mut reader = inotify::Reader::new(&*self.inotify, buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                        batch.overflow();
                        continue;
                    }
                    batch.add(Event {
                        watch: event.wd(),
                        flags: event.events(),
                        cookie: event.cookie(),
                        name: event
                            .file_name()
                            .map_or(&[][..], |name| name.to_bytes())
                            .into(),
                    });
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
