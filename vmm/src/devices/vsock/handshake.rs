//! What a host says first on the device's unix socket: `CONNECT <port>\n`.

use std::os::unix::net::UnixStream;

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

/// The longest line: `CONNECT 4294967295\n`.
const MAX_LINE: usize = 19;

/// A host that has not said yet where it wants to.
pub(super) struct Handshake {
    socket: UnixStream,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The line is not complete.
    Waiting,
    /// The guest's port.
    Connect(u32),
    /// It is something else, or the host has gone.
    Failed,
}

impl Handshake {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Looks at what the host has said so far. Takes the line out of the socket, and
    /// nothing of what follows it: that is for the guest.
    pub(super) fn advance(&self) -> Progress {
        let mut line = [0; MAX_LINE];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match recv(&self.socket, &mut line, peek) {
            Ok((seen, _)) if seen > 0 => line.get(..seen).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Progress::Waiting,
            Ok(_) | Err(_) => return Progress::Failed,
        };
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            return if seen.len() < MAX_LINE {
                Progress::Waiting
            } else {
                Progress::Failed
            };
        };
        let Some(port) = seen.get(..end).and_then(parse) else {
            return Progress::Failed;
        };
        let mut taken = [0; MAX_LINE];
        let Some(taken) = taken.get_mut(..=end) else {
            return Progress::Failed;
        };
        match recv(&self.socket, &mut *taken, RecvFlags::DONTWAIT) {
            Ok((count, _)) if count == end + 1 => Progress::Connect(port),
            _ => Progress::Failed,
        }
    }

    pub(super) fn into_socket(self) -> UnixStream {
        self.socket
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let port = line.strip_prefix(b"CONNECT ")?;
    if !port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(port).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn only_the_line_is_taken() {
        let (mut host, device) = UnixStream::pair().unwrap();
        device.set_nonblocking(true).unwrap();
        let handshake = Handshake::new(device);
        assert_eq!(handshake.advance(), Progress::Waiting);
        host.write_all(b"CONNECT 10").unwrap();
        assert_eq!(handshake.advance(), Progress::Waiting);
        host.write_all(b"24\nhello").unwrap();
        assert_eq!(handshake.advance(), Progress::Connect(1024));
        let mut rest = [0; 5];
        handshake.into_socket().read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
    }

    #[test]
    fn anything_else_fails() {
        for line in [
            "connect 1024\n",
            "CONNECT +1\n",
            "CONNECT \n",
            "CONNECT 4294967296\n",
            "CONNECT 1 \n",
            "\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            let (mut host, device) = UnixStream::pair().unwrap();
            host.write_all(line.as_bytes()).unwrap();
            assert_eq!(Handshake::new(device).advance(), Progress::Failed, "{line}");
        }
        let (host, device) = UnixStream::pair().unwrap();
        drop(host);
        assert_eq!(Handshake::new(device).advance(), Progress::Failed);
    }
}
