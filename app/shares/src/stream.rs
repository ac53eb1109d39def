//! FUSE over a byte stream (vsock, where a machine has no virtio-fs device): each request
//! and each answer is as long as its header says.
//!
//! One thread reads, and answers what comes alone and is quick: to hand a request to
//! another thread costs more than to look up a name. What takes long, and all but the
//! last of what comes together, goes to a few workers, so that a slow disk keeps no other
//! request waiting.

mod requests;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use self::requests::Requests;
use crate::inodes::lock;
use crate::server::Server;
use crate::transport::{Outcome, Pending};

/// How often locks that are waited for are tried.
const INTERVAL: Duration = Duration::from_millis(5);

/// A stream that ends, or goes wrong, ends for all threads.
struct Session<'a, W> {
    server: &'a Server,
    writer: Mutex<W>,
    /// Nobody is there to hear the answers.
    deaf: AtomicBool,
    waiting: Mutex<Waiting>,
    woken: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Pending>,
    ended: bool,
}

/// Answers requests from `reader` on `writer` until the client closes the stream, with
/// `threads` threads for those that take long. Then everything that the client had open
/// is closed.
///
/// # Errors
/// When the stream fails, or the client sends what can't be a request.
pub fn serve_stream<R, W>(server: &Server, reader: R, writer: W, threads: usize) -> io::Result<()>
where
    R: Read,
    W: Write + Send,
{
    let session = Session {
        server,
        writer: Mutex::new(writer),
        deaf: AtomicBool::new(false),
        waiting: Mutex::default(),
        woken: Condvar::new(),
    };
    let threads = threads.max(1);
    // As many wait as are worked on: a client can't make it hold more.
    let (jobs, queue) = mpsc::sync_channel(threads);
    let queue = Mutex::new(queue);
    let result = thread::scope(|scope| {
        let (session, queue) = (&session, &queue);
        let locks = scope.spawn(|| session.answer_waiting());
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(move || session.work(queue)))
            .collect();
        let mut result = session.read(reader, &jobs);
        drop(jobs);
        for worker in workers {
            result = result.and(joined(worker.join()));
        }
        lock(&session.waiting).ended = true;
        session.woken.notify_all();
        result.and(joined(locks.join()))
    });
    server.reset();
    result
}

fn joined(outcome: thread::Result<io::Result<()>>) -> io::Result<()> {
    outcome.unwrap_or_else(|_| Err(io::Error::other("a thread of the file server died")))
}

impl<W: Write> Session<'_, W> {
    /// Reads requests until the stream ends.
    fn read(&self, reader: impl Read, jobs: &SyncSender<Vec<u8>>) -> io::Result<()> {
        let mut requests = Requests::new(reader, self.server.longest_request());
        let mut reply = vec![0; self.server.longest_reply()];
        while !self.deaf.load(Ordering::Relaxed) {
            let Some(request) = requests.next()? else {
                break;
            };
            if request.is_ordered() || (request.is_last && !request.may_take_long()) {
                self.answer(request.bytes, &mut reply)?;
            } else if jobs.send(request.bytes.to_vec()).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Answers what is handed over.
    fn work(&self, queue: &Mutex<Receiver<Vec<u8>>>) -> io::Result<()> {
        let mut reply = vec![0; self.server.longest_reply()];
        loop {
            // Held while waiting: the next thread waits for the lock instead.
            let job = lock(queue).recv();
            match job {
                Ok(request) => self.answer(&request, &mut reply)?,
                Err(mpsc::RecvError) => return Ok(()),
            }
        }
    }

    fn answer(&self, request: &[u8], mut reply: &mut [u8]) -> io::Result<()> {
        match self.server.handle(&request, &mut reply) {
            Outcome::Reply(length) => self.send(reply.get(..length).unwrap_or_default())?,
            Outcome::None => {}
            Outcome::Pending(pending) => {
                lock(&self.waiting).requests.push(pending);
                self.woken.notify_all();
            }
        }
        Ok(())
    }

    fn send(&self, reply: &[u8]) -> io::Result<()> {
        let result = lock(&self.writer).write_all(reply);
        if result.is_err() {
            self.deaf.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Tries the locks that are waited for.
    fn answer_waiting(&self) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.ended {
                return Ok(());
            }
            if waiting.requests.is_empty() {
                waiting = self
                    .woken
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let mut requests = std::mem::take(&mut waiting.requests);
            drop(waiting);
            let mut answers = Vec::new();
            requests.retain_mut(|request| match request.attempt() {
                Some(answer) => {
                    answers.push(answer);
                    false
                }
                None => true,
            });
            for answer in answers {
                self.send(&answer)?;
            }
            thread::sleep(INTERVAL);
            waiting = lock(&self.waiting);
            waiting.requests.append(&mut requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, ReplyBuffer, wire};
    use std::io::Cursor;
    use std::os::unix::net::UnixStream;

    fn server() -> Server {
        Server::new(Limits::default()).unwrap()
    }

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((40 + body.len() as u32).to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u64.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn requests_are_answered_until_the_stream_ends() {
        let (mut client, host) = UnixStream::pair().unwrap();
        let mut init = Vec::new();
        for field in [7_u32, 41, 1 << 17, 0] {
            init.extend(field.to_ne_bytes());
        }
        client
            .write_all(&request(wire::opcode::INIT, &init))
            .unwrap();
        client
            .write_all(&request(wire::opcode::STATFS, &[]))
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        serve_stream(&server(), &host, &host, 1).unwrap();
        drop(host);
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        assert_eq!(answers.len(), 16 + 64 + 16 + 80);
        assert_eq!(answers[..4], 80_u32.to_ne_bytes());
        assert_eq!(answers[4..8], [0; 4]);
        assert_eq!(answers[80 + 4..80 + 8], [0; 4]);
    }

    #[test]
    fn lengths_that_no_request_has_end_the_session() {
        for length in [0, 39, u32::MAX, 2 << 20] {
            let bytes = length.to_ne_bytes();
            let error = serve_stream(&server(), Cursor::new(bytes), io::sink(), 2).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        let cut = &request(wire::opcode::STATFS, &[])[..39];
        let error = serve_stream(&server(), cut, io::sink(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn answers_that_do_not_fit_are_errors() {
        let mut reply = [0_u8; 16];
        let mut room = &mut reply[..];
        assert_eq!(room.capacity(), 16);
        let outcome = server().handle(&request(wire::opcode::STATFS, &[]).as_slice(), &mut room);
        assert!(matches!(outcome, Outcome::Reply(16)), "{outcome:?}");
        assert_eq!(reply[4..8], (-22_i32).to_ne_bytes());
    }
}
