//! The device between real unix sockets and a hand-made driver in real guest memory.

mod streams;

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::{
    packet::{HOST_CID, Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM},
    *,
};
use crate::devices::{
    GuestMemory,
    test_driver::{RINGS, Ring, call, memory},
};

const CID: u32 = 3;
const PORT: u32 = 1024;
/// Receive buffers of 4 KiB, as Linux has them.
const BUFFER: u32 = 4096;
const RECEIVE_BUFFERS: u16 = 32;
const RECEIVE_AT: u64 = 0x10_0000;
const TRANSMIT_AT: u64 = 0x20_0000;
/// What the guest says its receive buffer is.
const GUEST_BUFFER: u32 = 64 * 1024;

/// A guest's vsock driver.
struct Guest {
    memory: GuestMemory,
    receive: Ring,
    transmit: Ring,
    queues: Vec<Queue>,
    device: Vsock,
    directory: tempfile::TempDir,
}

impl Guest {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let device = Vsock::new(&VsockConfig {
            cid: CID,
            socket: directory.path().join("vsock.sock"),
        })
        .unwrap();
        let memory = memory();
        let mut receive = Ring::new(&memory, 0);
        let transmit = Ring::new(&memory, RINGS);
        let queues = vec![receive.queue(), transmit.queue()];
        for index in 0..RECEIVE_BUFFERS {
            let at = RECEIVE_AT + u64::from(index) * u64::from(BUFFER);
            assert_eq!(receive.offer(&[(at, BUFFER, true)]), index);
        }
        Self {
            memory,
            receive,
            transmit,
            queues,
            device,
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("vsock.sock")
    }

    /// Lets the device see to its sockets and queues once.
    fn turn(&mut self) {
        let outcome = call(
            &mut self.device,
            &mut self.queues,
            &self.memory,
            |device, queues| {
                device.process_event(queues);
            },
        );
        assert_eq!(outcome.failure, None);
    }

    /// Sends a packet.
    fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        let bytes = header.encode();
        self.memory
            .write_slice(&bytes, GuestAddress(TRANSMIT_AT))
            .unwrap();
        let data = TRANSMIT_AT + 0x1000;
        self.memory
            .write_slice(payload, GuestAddress(data))
            .unwrap();
        // Cut in odd places: the device must not care.
        let middle = (payload.len() / 3) as u32;
        let chain = [
            (TRANSMIT_AT, 20, false),
            (TRANSMIT_AT + 20, 24, false),
            (data, middle, false),
            (
                data + u64::from(middle),
                payload.len() as u32 - middle,
                false,
            ),
        ];
        let pieces = if payload.is_empty() { 2 } else { 4 };
        self.transmit.offer(&chain[..pieces]);
        call(
            &mut self.device,
            &mut self.queues,
            &self.memory,
            |device, queues| {
                device.process_queue(TRANSMIT_QUEUE, queues);
            },
        );
        while self.transmit.take_used().is_some() {}
    }

    fn header(host: u32, guest: u32, operation: Operation) -> Header {
        Header {
            source_cid: CID.into(),
            destination_cid: HOST_CID,
            source_port: guest,
            destination_port: host,
            length: 0,
            socket_type: TYPE_STREAM,
            operation,
            flags: 0,
            buffer_size: GUEST_BUFFER,
            forwarded: 0,
        }
    }

    fn send(&mut self, host: u32, guest: u32, operation: Operation) {
        self.send_raw(&Self::header(host, guest, operation), &[]);
    }

    fn shutdown(&mut self, host: u32, guest: u32, flags: u32) {
        let mut header = Self::header(host, guest, Operation::Shutdown);
        header.flags = flags;
        self.send_raw(&header, &[]);
    }

    fn send_data(&mut self, host: u32, guest: u32, forwarded: u32, data: &[u8]) {
        let mut header = Self::header(host, guest, Operation::ReadWrite);
        header.length = data.len() as u32;
        header.forwarded = forwarded;
        self.send_raw(&header, data);
    }

    /// The next packet from the device, if there is one now. Gives the buffer back.
    fn take(&mut self) -> Option<(Header, Vec<u8>)> {
        let (head, written) = self.receive.take_used()?;
        let at = RECEIVE_AT + u64::from(head) * u64::from(BUFFER);
        let mut bytes = vec![0; written as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        let (header, payload) = bytes.split_first_chunk().unwrap();
        let header = Header::decode(header);
        assert_eq!(header.length as usize, payload.len());
        let payload = payload.to_vec();
        // Buffers come back in the order they were offered, so slots match.
        assert_eq!(self.receive.offer_again(head, at, BUFFER), head);
        call(
            &mut self.device,
            &mut self.queues,
            &self.memory,
            |device, queues| {
                device.process_queue(RECEIVE_QUEUE, queues);
            },
        );
        Some((header, payload))
    }

    /// The next packet, which must come.
    fn expect(&mut self, operation: Operation) -> (Header, Vec<u8>) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            self.turn();
            if let Some((header, payload)) = self.take() {
                assert_eq!(header.operation, operation, "{header:?}");
                return (header, payload);
            }
            assert!(Instant::now() < until, "no {operation:?}");
            std::thread::yield_now();
        }
    }

    /// Nothing comes for the guest.
    fn expect_nothing(&mut self) {
        self.turn();
        assert_eq!(self.take(), None);
    }

    /// A host connects, and the guest accepts. Returns the host's port.
    fn connect_from_host(&mut self) -> (UnixStream, u32) {
        let mut host = UnixStream::connect(self.socket()).unwrap();
        writeln!(host, "CONNECT {PORT}").unwrap();
        let (request, _) = self.expect(Operation::Request);
        assert_eq!(request.destination_port, PORT);
        assert_eq!(request.destination_cid, u64::from(CID));
        assert_eq!(request.source_cid, HOST_CID);
        let port = request.source_port;
        self.send(port, PORT, Operation::Response);
        let mut answer = vec![0; format!("OK {port}\n").len()];
        host.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("OK {port}\n").as_bytes());
        host.set_nonblocking(true).unwrap();
        (host, port)
    }
}

fn at_end(mut socket: &UnixStream) -> bool {
    socket.set_nonblocking(false).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    matches!(socket.read(&mut [0]), Ok(0))
}

#[test]
fn a_host_connects_talks_and_both_close() {
    let mut guest = Guest::new();
    let (mut host, port) = guest.connect_from_host();
    host.write_all(b"hello guest").unwrap();
    assert_eq!(guest.expect(Operation::ReadWrite).1, b"hello guest");
    guest.send_data(port, PORT, 0, b"hello host");
    let mut answer = [0; 10];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello host");

    // The host's half ends; the guest's goes on.
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect(Operation::Shutdown).0.flags, SHUTDOWN_SEND);
    guest.send_data(port, PORT, 0, b"still here");
    host.read_exact(&mut answer).unwrap();
    guest.shutdown(port, PORT, SHUTDOWN_BOTH);
    assert!(at_end(&host));
    // The answer to a clean disconnect.
    guest.expect(Operation::Reset);
    assert!(guest.device.connections.is_empty());
    guest.expect_nothing();
}

#[test]
fn the_guest_s_half_ends_first() {
    let mut guest = Guest::new();
    let (mut host, port) = guest.connect_from_host();
    guest.send_data(port, PORT, 0, b"last words");
    guest.shutdown(port, PORT, SHUTDOWN_SEND);
    let mut words = String::new();
    host.set_nonblocking(false).unwrap();
    host.read_to_string(&mut words).unwrap();
    assert_eq!(words, "last words");
    host.write_all(b"answer").unwrap();
    drop(host);
    assert_eq!(guest.expect(Operation::ReadWrite).1, b"answer");
    let (shutdown, _) = guest.expect(Operation::Shutdown);
    assert_eq!(shutdown.flags, SHUTDOWN_BOTH);
    guest.send(port, PORT, Operation::Reset);
    assert!(guest.device.connections.is_empty());
}

#[test]
fn what_a_host_wrote_before_it_closed_arrives() {
    let mut guest = Guest::new();
    let mut host = UnixStream::connect(guest.socket()).unwrap();
    // All at once, and gone.
    write!(host, "CONNECT {PORT}\nearly").unwrap();
    drop(host);
    let (request, _) = guest.expect(Operation::Request);
    guest.send(request.source_port, PORT, Operation::Response);
    assert_eq!(guest.expect(Operation::ReadWrite).1, b"early");
    assert_eq!(guest.expect(Operation::Shutdown).0.flags, SHUTDOWN_BOTH);
}

#[test]
fn a_guest_that_stops_receiving_ends_the_host_s_writing() {
    let mut guest = Guest::new();
    let (mut host, port) = guest.connect_from_host();
    host.write_all(b"nobody reads this").unwrap();
    guest.shutdown(port, PORT, SHUTDOWN_RECEIVE);
    let error = host.write_all(b"nor this").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.shutdown(port, PORT, SHUTDOWN_BOTH);
    // A clean end, though data was left unread.
    assert!(at_end(&host));
}

#[test]
fn a_refused_connection_is_closed() {
    let mut guest = Guest::new();
    let mut host = UnixStream::connect(guest.socket()).unwrap();
    writeln!(host, "CONNECT {PORT}").unwrap();
    let (request, _) = guest.expect(Operation::Request);
    guest.send(request.source_port, PORT, Operation::Reset);
    assert!(at_end(&host));
    assert!(guest.device.connections.is_empty());
    // So is one that does not ask properly.
    let mut host = UnixStream::connect(guest.socket()).unwrap();
    host.write_all(b"HELLO\n").unwrap();
    guest.expect_nothing();
    host.set_nonblocking(false).unwrap();
    assert!(!matches!(host.read(&mut [0]), Ok(1..)));
}

#[test]
fn nobody_waits_for_ever() {
    let mut guest = Guest::new();
    let silent = UnixStream::connect(guest.socket()).unwrap();
    let mut unanswered = UnixStream::connect(guest.socket()).unwrap();
    writeln!(unanswered, "CONNECT {PORT}").unwrap();
    let (request, _) = guest.expect(Operation::Request);
    // The device's own timer wakes it; nothing else happens.
    let begun = Instant::now();
    while !guest.device.connections.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        let source = guest.device.event_source().unwrap();
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            source,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
        guest.turn();
    }
    assert!(begun.elapsed() > Duration::from_secs(3));
    assert!(at_end(&silent) && at_end(&unanswered));
    let (reset, _) = guest.expect(Operation::Reset);
    assert_eq!(reset.source_port, request.source_port);
    // An answer that comes too late.
    guest.send(request.source_port, PORT, Operation::Response);
    guest.expect(Operation::Reset);
}

#[test]
fn the_guest_connects_to_the_host() {
    let mut guest = Guest::new();
    let path = guest.directory.path().join("vsock.sock_7000");
    guest.send(7000, 5, Operation::Request);
    guest.expect(Operation::Reset);
    let listener = UnixListener::bind(path).unwrap();
    guest.send(7000, 5, Operation::Request);
    let (response, _) = guest.expect(Operation::Response);
    assert_eq!((response.source_port, response.destination_port), (7000, 5));
    let (mut host, _) = listener.accept().unwrap();
    guest.send_data(7000, 5, 0, b"knock");
    let mut knock = [0; 5];
    host.read_exact(&mut knock).unwrap();
    host.write_all(b"come in").unwrap();
    assert_eq!(guest.expect(Operation::ReadWrite).1, b"come in");
    // The same ports again break the protocol.
    guest.send(7000, 5, Operation::Request);
    guest.expect(Operation::Reset);
    assert!(at_end(&host));
}

#[test]
fn credit_is_kept_by_both() {
    let mut guest = Guest::new();
    let (mut host, port) = guest.connect_from_host();
    // Towards the guest: no more than it has room for, and a question then.
    let data = vec![5; 200_000];
    let written = host.write(&data).unwrap();
    assert!(written > GUEST_BUFFER as usize);
    let mut got = 0;
    while got < GUEST_BUFFER as usize {
        got += guest.expect(Operation::ReadWrite).1.len();
    }
    assert_eq!(got, GUEST_BUFFER as usize);
    guest.expect(Operation::CreditRequest);
    guest.expect_nothing();
    let mut update = Guest::header(port, PORT, Operation::CreditUpdate);
    update.forwarded = 1000;
    guest.send_raw(&update, &[]);
    assert_eq!(guest.expect(Operation::ReadWrite).1.len(), 1000);
    guest.expect(Operation::CreditRequest);
    guest.expect_nothing();

    // Towards the host: what it does not read is kept, up to what was promised.
    let mut sent = 0;
    let chunk = vec![6; 32 * 1024];
    let (header, _) = {
        guest.send(port, PORT, Operation::CreditRequest);
        guest.expect(Operation::CreditUpdate)
    };
    let window = header.buffer_size;
    let mut forwarded = header.forwarded;
    loop {
        guest.send_data(port, PORT, 1000, &chunk);
        sent += chunk.len() as u32;
        guest.turn();
        while let Some((header, _)) = guest.take() {
            forwarded = header.forwarded;
        }
        if sent - forwarded + chunk.len() as u32 > window {
            break;
        }
        assert!(sent < 64 << 20);
    }
    assert!(guest.device.connections.buffered().1 <= window as usize);
    // The host reads, and the guest is told that there is room.
    let mut read = 0;
    let mut buffer = [0; 8192];
    while read < sent {
        match host.read(&mut buffer) {
            Ok(count) => read += count as u32,
            Err(error) if error.kind() == ErrorKind::WouldBlock => guest.turn(),
            Err(error) => panic!("{error}"),
        }
    }
    let (update, _) = guest.expect(Operation::CreditUpdate);
    assert!(update.forwarded > forwarded);
    assert_eq!(guest.device.connections.buffered(), (0, 0));
}

#[test]
fn a_guest_that_exceeds_its_credit_is_cut_off() {
    let mut guest = Guest::new();
    let (_host, port) = guest.connect_from_host();
    let chunk = vec![6; 60 * 1024];
    for _ in 0..100 {
        guest.send_data(port, PORT, 0, &chunk);
        let (_, fullest) = guest.device.connections.buffered();
        assert!(fullest <= 256 * 1024);
    }
    assert!(guest.device.connections.is_empty());
}

#[test]
fn what_was_sent_before_a_reset_is_not_lost() {
    let mut guest = Guest::new();
    let (mut host, port) = guest.connect_from_host();
    let chunk = vec![6; 60 * 1024];
    let mut sent = 0;
    while guest.device.connections.buffered().0 == 0 {
        guest.send_data(port, PORT, 0, &chunk);
        sent += chunk.len();
    }
    guest.shutdown(port, PORT, SHUTDOWN_BOTH);
    guest.send(port, PORT, Operation::Reset);
    // The ports are free again, while the rest still drains.
    let mut read = 0;
    let mut buffer = [0; 8192];
    loop {
        match host.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => guest.turn(),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(read, sent);
    assert!(guest.device.connections.is_empty());
}

#[test]
fn connections_are_bounded() {
    const LIMIT: usize = 20;
    let mut guest = Guest::new();
    guest.device.connections.limit = LIMIT;
    let path = guest.directory.path().join("vsock.sock_1");
    let listener = UnixListener::bind(path).unwrap();
    let mut hosts = Vec::new();
    for port in 0..LIMIT as u32 {
        guest.send(1, port, Operation::Request);
        guest.expect(Operation::Response);
        hosts.push(listener.accept().unwrap());
    }
    guest.send(1, LIMIT as u32, Operation::Request);
    guest.expect(Operation::Reset);
    // A host waits until there is room.
    let mut host = UnixStream::connect(guest.socket()).unwrap();
    writeln!(host, "CONNECT {PORT}").unwrap();
    guest.expect_nothing();
    guest.send(1, 0, Operation::Reset);
    guest.expect(Operation::Request);
    guest.device.reset();
    assert!(guest.device.connections.is_empty());
    assert!(at_end(&host));
}
