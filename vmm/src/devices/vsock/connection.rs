//! One stream between a unix socket of the host and a port of the guest (5.10.6.5):
//! credit in both directions, each direction closed on its own.
//!
//! Data for the guest is read from the socket straight into the guest's buffers,
//! only when there is a buffer and credit: it waits in the socket until then. Data
//! for the host goes straight into the socket; what the socket does not take is
//! kept here, at most [`Connection::window`] bytes, and the guest gets no credit for
//! more.

use std::{
    collections::VecDeque,
    io,
    num::Wrapping,
    os::{fd::AsFd, unix::net::UnixStream},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown},
};

use super::packet::{
    HOST_CID, Header, Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use crate::devices::Buffers;

/// What tells a connection from all others: its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host wants it; the guest has not been asked yet.
    Wanted,
    /// The guest was asked, and has not answered yet.
    Requested,
    /// The guest wanted it; it has not been told yet that it has it.
    Accepted,
    Established,
    /// Over, for the guest. What it sent before still goes to the host.
    Draining,
}

/// What becomes of a connection after something happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Keep,
    /// It is over, and the guest knows.
    Close,
    /// It is over, and the guest must be told by a reset.
    Reset,
}

pub(super) struct Connection {
    ports: Ports,
    guest_cid: u64,
    socket: UnixStream,
    phase: Phase,

    // Towards the guest.
    /// The socket may have data, or its end.
    readable: bool,
    /// The socket's end was read.
    at_end: bool,
    sent: Wrapping<u32>,
    guest_buffer_size: u32,
    guest_forwarded: Wrapping<u32>,
    /// The guest was asked for credit since there was none.
    credit_requested: bool,
    /// Shutdown flags that the guest was told.
    told: u32,

    // Towards the host.
    /// Nothing can be written to the socket any more.
    host_gone: bool,
    writable: bool,
    /// Whether it is worth an event when the socket takes more: it took nothing, and
    /// that has not come without need since. Each time that the host reads is one.
    wants_room: bool,
    buffer: VecDeque<u8>,
    window: u32,
    forwarded: Wrapping<u32>,
    /// [`Self::forwarded`] as the guest knows it.
    announced: Wrapping<u32>,
    credit_update_wanted: bool,
    /// Shutdown flags that the guest sent.
    guest_shutdown: u32,
    /// The socket was told of the guest's end.
    write_end_told: bool,

    /// Whether it is in line for a packet; kept by its owner.
    pub(super) queued: bool,
    /// Whether there are events when the socket takes more; kept by its owner.
    pub(super) hears_of_room: bool,
}

impl Connection {
    /// A connection that the host opened. The guest gets `window` bytes of credit.
    pub(super) fn from_host(ports: Ports, cid: u64, socket: UnixStream, window: u32) -> Self {
        Self {
            ports,
            guest_cid: cid,
            socket,
            phase: Phase::Wanted,
            readable: true,
            at_end: false,
            sent: Wrapping(0),
            guest_buffer_size: 0,
            guest_forwarded: Wrapping(0),
            credit_requested: false,
            told: 0,
            host_gone: false,
            writable: true,
            wants_room: false,
            buffer: VecDeque::new(),
            window,
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            credit_update_wanted: false,
            guest_shutdown: 0,
            write_end_told: false,
            queued: false,
            hears_of_room: false,
        }
    }

    /// A connection that the guest opened with `request`.
    pub(super) fn from_guest(
        ports: Ports,
        socket: UnixStream,
        window: u32,
        request: &Header,
    ) -> Self {
        let mut connection = Self::from_host(ports, request.source_cid, socket, window);
        connection.phase = Phase::Accepted;
        connection.learn_credit(request);
        connection
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether it waits for the guest's answer.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Wanted | Phase::Requested)
    }

    /// Whether the guest knows of it, so that it must be told of its end.
    pub(super) fn known_to_guest(&self) -> bool {
        !matches!(self.phase, Phase::Wanted | Phase::Draining)
    }

    /// The host's end.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Whether it wants events when the socket takes more.
    pub(super) fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// Bytes from the guest that the host has not taken.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether [`Self::next_packet`] may have something.
    pub(super) fn has_packets(&self) -> bool {
        match self.phase {
            Phase::Wanted | Phase::Accepted => true,
            Phase::Requested | Phase::Draining => false,
            Phase::Established => {
                self.credit_update_wanted
                    || self.shutdown_to_tell() != 0
                    || (self.may_read() && (self.credit() > 0 || !self.credit_requested))
            }
        }
    }

    /// The next packet for the guest. Payload is put into the front of `data`, and the
    /// header's length says how much.
    pub(super) fn next_packet(&mut self, data: &mut Buffers<'_>) -> Option<Header> {
        match self.phase {
            Phase::Wanted => {
                self.phase = Phase::Requested;
                return Some(self.header(Operation::Request));
            }
            Phase::Accepted => {
                self.phase = Phase::Established;
                return Some(self.header(Operation::Response));
            }
            Phase::Requested | Phase::Draining => return None,
            Phase::Established => {}
        }
        if self.may_read() {
            let credit = self.credit();
            if credit > 0 {
                if let Some(length) = self.read(data, credit) {
                    self.sent += Wrapping(length);
                    let mut header = self.header(Operation::ReadWrite);
                    header.length = length;
                    return Some(header);
                }
            } else if !self.credit_requested {
                self.credit_requested = true;
                return Some(self.header(Operation::CreditRequest));
            }
        }
        let shutdown = self.shutdown_to_tell();
        if shutdown != 0 {
            self.told |= shutdown;
            let mut header = self.header(Operation::Shutdown);
            header.flags = self.told;
            return Some(header);
        }
        self.credit_update_wanted
            .then(|| self.header(Operation::CreditUpdate))
    }

    fn may_read(&self) -> bool {
        self.readable && !self.at_end && self.guest_shutdown & SHUTDOWN_RECEIVE == 0
    }

    /// Reads from the socket into guest memory; nothing if there is nothing now.
    fn read(&mut self, data: &mut Buffers<'_>, credit: u32) -> Option<u32> {
        if data.is_empty() {
            return None;
        }
        loop {
            match data.receive(self.socket.as_fd(), credit as usize) {
                Ok(0) => self.at_end = true,
                Ok(count) => return u32::try_from(count).ok(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    // The host's end was closed with data in it that nobody read.
                    self.at_end = true;
                    self.lose_host();
                }
            }
            return None;
        }
    }

    /// Bytes that the guest has room for. Whatever the guest says, the count in
    /// flight is taken modulo 2^32 and the result is never more than its buffer.
    fn credit(&self) -> u32 {
        let in_flight = (self.sent - self.guest_forwarded).0;
        self.guest_buffer_size.saturating_sub(in_flight)
    }

    fn learn_credit(&mut self, header: &Header) {
        self.guest_buffer_size = header.buffer_size;
        self.guest_forwarded = Wrapping(header.forwarded);
        if self.credit() > 0 {
            self.credit_requested = false;
        }
    }

    /// Shutdown flags that the guest has yet to be told.
    fn shutdown_to_tell(&self) -> u32 {
        let mut flags = 0;
        if self.at_end {
            flags |= SHUTDOWN_SEND;
        }
        if self.host_gone {
            flags |= SHUTDOWN_RECEIVE;
        }
        flags & !self.told
    }

    fn header(&mut self, operation: Operation) -> Header {
        self.announced = self.forwarded;
        self.credit_update_wanted = false;
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: self.ports.host,
            destination_port: self.ports.guest,
            length: 0,
            socket_type: TYPE_STREAM,
            operation,
            flags: 0,
            buffer_size: self.window,
            forwarded: self.forwarded.0,
        }
    }

    /// What tells the guest that it is over.
    pub(super) fn reset(&self) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: self.ports.host,
            destination_port: self.ports.guest,
            length: 0,
            socket_type: TYPE_STREAM,
            operation: Operation::Reset,
            flags: 0,
            buffer_size: 0,
            forwarded: 0,
        }
    }

    /// Handles a packet of the guest.
    pub(super) fn receive(&mut self, header: &Header, payload: &mut Buffers<'_>) -> Verdict {
        self.learn_credit(header);
        match (self.phase, header.operation) {
            (Phase::Requested, Operation::Response) => {
                self.phase = Phase::Established;
                self.greet();
                Verdict::Keep
            }
            (Phase::Requested, Operation::Reset) => Verdict::Close,
            (_, Operation::Reset) => {
                self.phase = Phase::Draining;
                self.flush()
            }
            (Phase::Established, Operation::ReadWrite) => self.take(payload),
            (Phase::Established, Operation::CreditUpdate) => Verdict::Keep,
            (Phase::Established, Operation::CreditRequest) => {
                self.credit_update_wanted = true;
                Verdict::Keep
            }
            (Phase::Established, Operation::Shutdown) => {
                self.guest_shutdown |= header.flags & SHUTDOWN_BOTH;
                if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
                    self.close_read_end();
                }
                self.flush()
            }
            // The guest breaks the protocol.
            _ => Verdict::Reset,
        }
    }

    /// Tells the host's side that its connection is there.
    fn greet(&mut self) {
        let greeting = format!("OK {}\n", self.ports.host);
        // The socket is fresh: it takes a line, or its other end is closed.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.socket, greeting.as_bytes(), flags) {
            Ok(count) if count == greeting.len() => {}
            _ => self.lose_host(),
        }
    }

    /// Takes data from the guest.
    fn take(&mut self, payload: &mut Buffers<'_>) -> Verdict {
        if self.guest_shutdown & SHUTDOWN_SEND != 0
            || self.buffer.len() + payload.len() > self.window as usize
        {
            // It said there would be none, or it sends more than it has credit for.
            return Verdict::Reset;
        }
        while !payload.is_empty() && self.buffer.is_empty() && self.writable && !self.host_gone {
            match payload.send(self.socket.as_fd()) {
                Ok(count) => self.forward(count),
                Err(error) => self.note_write_error(error.raw_os_error()),
            }
        }
        if self.host_gone {
            // On its way when the host closed.
            self.forward(payload.len());
            return Verdict::Keep;
        }
        let mut block = [0; 4096];
        while !payload.is_empty() {
            let count = payload.read(&mut block);
            // A slice is copied as a whole.
            self.buffer.extend(block.get(..count).unwrap_or_default());
        }
        Verdict::Keep
    }

    /// Gives the host what it takes of the buffer, and then what follows from its
    /// being empty.
    fn flush(&mut self) -> Verdict {
        while !self.buffer.is_empty() && self.writable && !self.host_gone {
            let (front, _) = self.buffer.as_slices();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, front, flags) {
                Ok(count) => {
                    self.buffer.drain(..count.min(self.buffer.len()));
                    self.forward(count);
                }
                Err(error) => self.note_write_error(Some(error.raw_os_error())),
            }
        }
        if !self.buffer.is_empty() {
            return Verdict::Keep;
        }
        // It was needed once; it may never be again.
        self.buffer = VecDeque::new();
        if self.phase == Phase::Draining {
            return Verdict::Close;
        }
        if self.guest_shutdown & SHUTDOWN_SEND != 0 && !self.write_end_told {
            self.write_end_told = true;
            // Fails only when the other end is closed: it knows then.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
        if self.guest_shutdown == SHUTDOWN_BOTH {
            // The answer to a clean disconnect (5.10.6.6.1).
            return Verdict::Reset;
        }
        Verdict::Keep
    }

    fn note_write_error(&mut self, error: Option<i32>) {
        match error.map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN) => {
                self.writable = false;
                self.wants_room = true;
            }
            Some(Errno::INTR) => {}
            _ => self.lose_host(),
        }
    }

    /// Counts bytes that no longer take room, and sees to it that the guest learns
    /// when it is worth it.
    fn forward(&mut self, count: usize) {
        self.forwarded += Wrapping(count as u32);
        if (self.forwarded - self.announced).0 >= self.window / 4 {
            self.credit_update_wanted = true;
        }
    }

    /// The host's end is closed: what the guest sends is for nobody.
    fn lose_host(&mut self) {
        self.host_gone = true;
        let lost = std::mem::take(&mut self.buffer).len();
        self.forward(lost);
    }

    /// The guest receives no more: the host's writes fail from now on, and what it
    /// wrote before is dropped, so that closing the socket looks like an end and not
    /// like an error.
    fn close_read_end(&mut self) {
        // Fails only when the other end is closed.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
        let mut block = [0; 4096];
        // A socket holds some hundred KiB, and nothing is added any more.
        for _ in 0..4096 {
            match rustix::net::recv(&self.socket, &mut block, RecvFlags::DONTWAIT) {
                Ok((0, _)) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }

    /// Handles what happened to the socket.
    pub(super) fn socket_event(&mut self, event: SocketEvent) -> Verdict {
        if event.writable && self.writable {
            self.wants_room = false;
        }
        self.readable |= event.readable;
        self.writable |= event.writable;
        if event.closed {
            self.lose_host();
        }
        self.flush()
    }
}

/// What epoll says of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SocketEvent {
    /// There is data, or an end.
    pub(super) readable: bool,
    /// There is room.
    pub(super) writable: bool,
    /// Both directions are closed, or it failed.
    pub(super) closed: bool,
}
