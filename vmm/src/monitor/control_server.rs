//! The control socket's connections: reads bounded lines, writes answers. What the
//! answers are, is the supervisor's business.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::control::{Answer, Lines, Request};

/// More clients than this at once are turned away.
pub const MAX_CLIENTS: usize = 16;

/// The listening socket.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket, mode 0600, in place of one that a monitor left behind. The
    /// caller holds the machine's lock, and no other thread makes files.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // The process's umask gave it no more from the start.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// The next client that waits, if one does.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    return Ok(Some(Connection {
                        stream,
                        lines: Lines::default(),
                    }));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What is left behind, the next monitor replaces.
        let _ = fs::remove_file(&self.path);
    }
}

/// A client.
pub struct Connection {
    stream: UnixStream,
    lines: Lines,
}

impl Connection {
    /// Reads what has come and answers each request. False when the connection is
    /// over: the client has gone, sent a line that is too long, or does not read
    /// its answers.
    pub fn serve(&mut self, mut answer: impl FnMut(Request) -> Answer) -> bool {
        let mut buffer = [0_u8; 1024];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => {
                return matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        };
        let stream = &self.stream;
        let mut writable = true;
        let fed = self
            .lines
            .feed(buffer.get(..count).unwrap_or_default(), |line| {
                let answer = match serde_json::from_slice(line) {
                    Ok(request) => answer(request),
                    Err(error) => Answer::Error {
                        message: format!("not a request: {error}"),
                    },
                };
                writable = write_answer(stream, &answer);
                writable
            });
        match fed {
            Ok(()) => writable,
            Err(error) => {
                write_answer(
                    stream,
                    &Answer::Error {
                        message: error.to_string(),
                    },
                );
                false
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Writes one answer, whole; false if the client's buffer does not take it.
fn write_answer(mut stream: &UnixStream, answer: &Answer) -> bool {
    let Ok(mut line) = serde_json::to_vec(answer) else {
        return false;
    };
    line.push(b'\n');
    stream.write_all(&line).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;
    use crate::control::MAX_LINE;

    fn pair() -> (UnixStream, Connection) {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let connection = Connection {
            stream: server,
            lines: Lines::default(),
        };
        (client, connection)
    }

    #[test]
    fn requests_are_answered_in_order_and_nonsense_with_an_error() {
        let (mut client, mut connection) = pair();
        client
            .write_all(b"{\"request\":\"pause\"}\nnonsense\n{\"request\":\"resume\"}\n")
            .unwrap();
        let mut seen = Vec::new();
        assert!(connection.serve(|request| {
            seen.push(request);
            Answer::Done
        }));
        assert_eq!(seen, [Request::Pause, Request::Resume]);
        drop(connection);
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        let answers: Vec<Answer> = answers
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(answers[0], Answer::Done);
        assert!(matches!(answers[1], Answer::Error { .. }));
        assert_eq!(answers[2], Answer::Done);
    }

    #[test]
    fn a_line_that_is_too_long_ends_the_connection() {
        let (mut client, mut connection) = pair();
        client.write_all(&vec![b'x'; MAX_LINE + 1]).unwrap();
        while connection.serve(|_| Answer::Done) {}
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("longer than"));
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped() {
        let (mut client, mut connection) = pair();
        client.set_nonblocking(true).unwrap();
        let mut served = 0;
        while client.write_all(b"{\"request\":\"pause\"}\n").is_ok()
            && connection.serve(|_| Answer::Error {
                message: "x".repeat(1000),
            })
        {
            served += 1;
            assert!(served < 1_000_000);
        }
    }

    #[test]
    fn the_socket_is_private_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let left_behind = UnixListener::bind(&path).unwrap();
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(socket.accept().unwrap().is_none());
        let client = UnixStream::connect(&path).unwrap();
        let mut connection = socket.accept().unwrap().unwrap();
        client.shutdown(Shutdown::Both).unwrap();
        assert!(!connection.serve(|_| Answer::Done));
        drop((socket, left_behind));
        assert!(!path.exists());
    }
}
