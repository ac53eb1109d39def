//! Code that runs in another network namespace.
//!
//! A socket belongs for ever to the namespace in which it was made, whoever uses it
//! afterwards: so what is to be done in a container's network is to make the socket
//! there, and to use it from the agent's own threads.
//!
//! Each piece of work has a thread of its own, which enters the namespace, does the
//! work and ends. It is never given back to a pool, so that nothing else can run in
//! the wrong namespace, whatever the work did; the thread costs some 30 µs.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Stack of a thread that enters a namespace, in bytes: sockets need little.
const STACK: usize = 256 * 1024;

/// A network namespace. It stays for as long as this or a clone of it does, even when
/// all of its processes are gone.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    file: Arc<OwnedFd>,
}

impl Namespace {
    /// The network namespace of a process.
    ///
    /// The caller knows that `pid` is still the process that it means: that a pidfd of
    /// it shows it alive *after* this call, or that its end has not been reaped.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/ns/net")).map(|file| Self::from(OwnedFd::from(file)))
    }

    /// The agent's own, which containers with `--network host` share.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub(crate) fn of_machine() -> io::Result<Self> {
        Self::of_process(std::process::id())
    }

    /// Does `work` in the namespace, while the caller waits. `work` may borrow.
    ///
    /// # Errors
    /// When no thread can be made, or the namespace cannot be entered; then `work` did
    /// not run. When it panicked.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            thread()
                .spawn_scoped(scope, || self.enter_and_run(work))?
                .join()
                .unwrap_or_else(|_| Err(panicked()))
        })
    }

    /// Does `work` in the namespace; the caller's thread does something else
    /// meanwhile. Work that has begun goes on when the future is dropped.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub(crate) async fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let namespace = self.clone();
        thread().spawn(move || {
            // Nobody waits for it any more when this fails.
            let _ = done.send(namespace.enter_and_run(work));
        })?;
        result.await.unwrap_or_else(|_| Err(panicked()))
    }

    /// Must be the last thing that a thread does.
    fn enter_and_run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        // The thread ends after this: nothing sees what a panic left half-done but
        // what `work` borrowed, and that is its caller's.
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked())
    }
}

impl From<OwnedFd> for Namespace {
    /// `file` is one of a process' `ns/net`, or a bind mount of it.
    fn from(file: OwnedFd) -> Self {
        Self {
            file: Arc::new(file),
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn thread() -> thread::Builder {
    thread::Builder::new()
        .name("network".to_owned())
        .stack_size(STACK)
}

fn panicked() -> io::Error {
    io::Error::other("what was to be done in the network namespace failed unexpectedly")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        fs,
        net::{Ipv4Addr, TcpListener, TcpStream},
        os::unix::fs::MetadataExt,
    };

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::runtime::loopback;

    /// A network namespace of its own, with its loopback interface up.
    pub(crate) fn new_namespace() -> Namespace {
        thread::spawn(|| {
            // SAFETY: this thread shares no file table with another that would
            // miss a descriptor: only its network namespace changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            loopback::bring_up_here().unwrap();
            File::open("/proc/thread-self/ns/net")
                .map(|file| Namespace::from(OwnedFd::from(file)))
                .unwrap()
        })
        .join()
        .unwrap()
    }

    /// The inode of the calling thread's namespace.
    fn here() -> u64 {
        fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    }

    #[test]
    fn work_runs_in_the_namespace_and_the_caller_stays_in_its_own() {
        let namespace = new_namespace();
        let own = here();
        let there = namespace.run(here).unwrap();
        assert_ne!(there, own);
        assert_eq!(namespace.run(here).unwrap(), there);
        assert_eq!(here(), own);
        assert_eq!(Namespace::of_machine().unwrap().run(here).unwrap(), own);
        let missing = Namespace::of_process(u32::MAX >> 1).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn sockets_stay_in_the_namespace_that_they_were_made_in() {
        let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = outside.local_addr().unwrap();
        let namespace = new_namespace();
        let inside = namespace
            .run(|| TcpListener::bind(address))
            .unwrap()
            .unwrap();
        let client = namespace
            .run(|| TcpStream::connect(address))
            .unwrap()
            .unwrap();
        let (_, peer) = inside.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        outside.set_nonblocking(true).unwrap();
        let nobody = outside.accept().unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_panic_is_an_error() {
        let namespace = new_namespace();
        let panics = || -> u8 { panic!("expected by the test") };
        assert!(namespace.run(panics).is_err());
        assert_eq!(namespace.run(|| 7).unwrap(), 7);
    }

    #[tokio::test]
    async fn work_is_awaited_and_goes_on_when_it_is_not() {
        let namespace = new_namespace();
        let there = namespace.run(here).unwrap();
        assert_eq!(namespace.perform(here).await.unwrap(), there);
        let (done, waited) = oneshot::channel();
        let mut unwanted = Box::pin(namespace.perform(move || done.send(here())));
        tokio::select! {
            biased;
            _ = &mut unwanted => {}
            () = std::future::ready(()) => {}
        }
        drop(unwanted);
        assert_eq!(waited.await.unwrap(), there);
    }
}
