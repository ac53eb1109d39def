//! The guest's power button: a connection to a vsock port of the guest. It is
//! pressed through the vsock device's own unix socket, as any host process would.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

/// A guest that does not listen yet is asked again after this.
const RETRY: Duration = Duration::from_millis(100);

/// The button of one machine.
pub struct PowerButton {
    socket: PathBuf,
    port: u32,
    state: State,
    /// The connection is new, and nobody waits for its answer yet.
    unwatched: bool,
}

enum State {
    /// Nobody wants it pressed.
    Released,
    /// The guest did not answer, and is asked again then.
    Waiting(Instant),
    /// Asked; the connection is kept, so that the guest is not told otherwise.
    Asked(OwnedFd),
    /// The guest has it.
    Pressed(#[expect(dead_code, reason = "keeps the connection open")] OwnedFd),
}

impl PowerButton {
    /// The button that is behind `port` of the vsock device at `socket`.
    pub fn new(socket: PathBuf, port: u32) -> Self {
        Self {
            socket,
            port,
            state: State::Released,
            unwatched: false,
        }
    }

    /// Presses it, unless it is being pressed.
    pub fn press(&mut self) {
        if matches!(self.state, State::Released) {
            self.ask();
        }
    }

    /// When [`Self::retry`] must be called, if at all.
    pub fn retry_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            _ => None,
        }
    }

    /// Asks again, if it is time.
    pub fn retry(&mut self) {
        if self.retry_at().is_some_and(|until| until <= Instant::now()) {
            self.ask();
        }
    }

    /// The connection on which the guest's answer is waited for, if one is.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Asked(connection) => Some(connection.as_fd()),
            _ => None,
        }
    }

    /// A connection that is new since the last call: it becomes readable when the
    /// guest has answered. Then [`Self::read_answer`].
    pub fn new_connection(&mut self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Asked(connection) if mem::take(&mut self.unwatched) => Some(connection.as_fd()),
            _ => None,
        }
    }

    /// Reads the guest's answer.
    pub fn read_answer(&mut self) {
        let State::Asked(connection) = &self.state else {
            return;
        };
        let mut answer = [0_u8; 64];
        match recv(connection, &mut answer, RecvFlags::DONTWAIT) {
            Ok((count, _)) if count > 0 => {
                if let State::Asked(connection) = mem::replace(&mut self.state, State::Released) {
                    self.state = State::Pressed(connection);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            _ => self.wait(),
        }
    }

    fn ask(&mut self) {
        match self.try_ask() {
            Ok(connection) => {
                self.state = State::Asked(connection);
                self.unwatched = true;
            }
            Err(_) => self.wait(),
        }
    }

    fn wait(&mut self) {
        self.state = State::Waiting(Instant::now() + RETRY);
    }

    fn try_ask(&self) -> io::Result<OwnedFd> {
        let connection = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        connect(&connection, &SocketAddrUnix::new(&self.socket)?)?;
        let request = format!("CONNECT {}\n", self.port);
        // A new connection's buffer takes so few bytes at once.
        send(&connection, request.as_bytes(), SendFlags::NOSIGNAL)?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn wait_for_answer(button: &mut PowerButton) {
        let connection = button.new_connection().unwrap();
        poll(&mut [PollFd::new(&connection, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn it_is_pressed_again_until_the_guest_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock.sock");
        let mut button = PowerButton::new(path.clone(), 1026);
        button.press();
        assert!(button.retry_at().is_some(), "nobody listens");

        let listener = UnixListener::bind(&path).unwrap();
        button.ask();
        drop(listener.accept().unwrap());
        wait_for_answer(&mut button);
        button.read_answer();
        assert!(button.retry_at().is_some(), "the guest refused");

        button.ask();
        let (mut guest, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(guest.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "CONNECT 1026\n");
        guest.write_all(b"OK 1\n").unwrap();
        wait_for_answer(&mut button);
        button.read_answer();
        assert!(matches!(button.state, State::Pressed(_)));
        assert!(button.retry_at().is_none() && button.new_connection().is_none());
    }
}
