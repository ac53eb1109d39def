//! FUSE over a byte stream (vsock, where a machine has no virtio-fs device): each request
//! and each answer is as long as its header says.

use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::inodes::lock;
use crate::server::Server;
use crate::transport::{Outcome, Pending};
use crate::wire;

/// How often locks that are waited for are tried.
const INTERVAL: Duration = Duration::from_millis(5);

/// A stream that ends, or goes wrong, ends for all threads.
struct Session<R, W> {
    /// None when the stream has ended.
    reader: Mutex<Option<R>>,
    writer: Mutex<W>,
    waiting: Mutex<Waiting>,
    woken: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Pending>,
    ended: bool,
}

/// Answers requests from `reader` on `writer` until the client closes the stream, with
/// `threads` requests at a time. Then everything that the client had open is closed.
///
/// # Errors
/// When the stream fails, or the client sends what can't be a request.
pub fn serve_stream<R, W>(server: &Server, reader: R, writer: W, threads: usize) -> io::Result<()>
where
    R: Read + Send,
    W: Write + Send,
{
    let session = Session {
        reader: Mutex::new(Some(reader)),
        writer: Mutex::new(writer),
        waiting: Mutex::default(),
        woken: Condvar::new(),
    };
    let result = thread::scope(|scope| {
        let locks = scope.spawn(|| session.answer_waiting());
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| session.work(server)))
            .collect();
        let mut result = Ok(());
        for worker in workers {
            let ended = worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread of the file server died")));
            if result.is_ok() {
                result = ended;
            }
        }
        lock(&session.waiting).ended = true;
        session.woken.notify_all();
        let ended = locks
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread of the file server died")));
        result.and(ended)
    });
    server.reset();
    result
}

impl<R: Read, W: Write> Session<R, W> {
    fn work(&self, server: &Server) -> io::Result<()> {
        let mut request = Vec::new();
        let mut reply = vec![0; server.longest_reply()];
        loop {
            let mut reader = lock(&self.reader);
            let Some(open) = reader.as_mut() else {
                return Ok(());
            };
            let result = read_request(open, server.longest_request(), &mut request);
            if !matches!(result, Ok(true)) {
                *reader = None;
                return result.map(drop);
            }
            // The client does not wait for the end of a RELEASE, but its locks must be gone
            // before the next request is looked at.
            let in_order = is_release(&request).then_some(reader);
            let outcome = server.handle(&request.as_slice(), &mut reply.as_mut_slice());
            drop(in_order);
            match outcome {
                Outcome::Reply(length) => self.send(reply.get(..length).unwrap_or_default())?,
                Outcome::None => {}
                Outcome::Pending(pending) => {
                    lock(&self.waiting).requests.push(pending);
                    self.woken.notify_all();
                }
            }
        }
    }

    fn send(&self, reply: &[u8]) -> io::Result<()> {
        let result = lock(&self.writer).write_all(reply);
        if result.is_err() {
            // Nobody is there to hear the answers: no more requests.
            if let Ok(mut reader) = self.reader.try_lock() {
                *reader = None;
            }
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

fn is_release(request: &[u8]) -> bool {
    request.get(4..8) == Some(&wire::opcode::RELEASE.to_ne_bytes()[..])
}

/// Reads one request into `request`; false at the end of the stream.
fn read_request(reader: &mut impl Read, most: usize, request: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    let mut there = 0;
    while let Some(rest) = length.get_mut(there..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) if there == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => there += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let size = u32::from_ne_bytes(length) as usize;
    if size < wire::REQUEST_HEADER || size > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a request of {size} bytes"),
        ));
    }
    request.resize(size, 0);
    request[..4].copy_from_slice(&length);
    reader.read_exact(&mut request[4..])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, ReplyBuffer};
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
