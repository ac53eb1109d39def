//! The device between real unix sockets and a hand-made driver in real guest memory.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::{
    connections::MAX_CONNECTIONS,
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

/// One connection in the stress test, as both ends see it.
struct Stream {
    host: UnixStream,
    port: u32,
    host_wrote: u64,
    guest_got: u64,
    guest_sent: u64,
    host_read: u64,
    window: u32,
    forwarded: u32,
}

/// The byte at an offset of a stream.
fn byte(stream: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 9) ^ stream as u64) as u8
}

#[derive(Debug, Clone, Copy)]
enum Act {
    HostWrites(u16),
    HostReads(u16),
    GuestSends(u16),
    GuestTakes(u8),
    Turn,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        any::<u16>().prop_map(Act::HostWrites),
        any::<u16>().prop_map(Act::HostReads),
        any::<u16>().prop_map(Act::GuestSends),
        any::<u8>().prop_map(Act::GuestTakes),
        Just(Act::Turn),
    ]
}

impl Stream {
    fn host_writes(&mut self, stream: usize, count: u16) {
        let data: Vec<u8> = (0..u64::from(count))
            .map(|i| byte(stream, self.host_wrote + i))
            .collect();
        if let Ok(count) = self.host.write(&data) {
            self.host_wrote += count as u64;
        }
    }

    fn host_reads(&mut self, stream: usize, count: u16) {
        let mut data = vec![0; count.into()];
        if let Ok(count) = self.host.read(&mut data) {
            for byte_read in &data[..count] {
                assert_eq!(*byte_read, byte(stream, self.host_read));
                self.host_read += 1;
            }
        }
    }

    fn guest_sends(&mut self, stream: usize, count: u16, guest: &mut Guest) {
        let in_flight = (self.guest_sent as u32).wrapping_sub(self.forwarded);
        let count = u32::from(count).min(self.window - in_flight);
        let data: Vec<u8> = (0..u64::from(count))
            .map(|i| byte(stream, self.guest_sent + i))
            .collect();
        self.guest_sent += u64::from(count);
        guest.send_data(self.port, PORT, self.guest_got as u32, &data);
    }
}

/// The guest takes packets and hands them to their streams.
fn guest_takes(guest: &mut Guest, streams: &mut [Stream], ports: &HashMap<u32, usize>, most: u8) {
    for _ in 0..most {
        let Some((header, payload)) = guest.take() else {
            return;
        };
        let index = ports[&header.source_port];
        let stream = &mut streams[index];
        assert_eq!(header.buffer_size, stream.window);
        stream.forwarded = header.forwarded;
        match header.operation {
            Operation::ReadWrite => {
                for byte_got in payload {
                    assert_eq!(byte_got, byte(index, stream.guest_got));
                    stream.guest_got += 1;
                }
            }
            Operation::CreditRequest => {
                let mut update = Guest::header(stream.port, PORT, Operation::CreditUpdate);
                update.forwarded = stream.guest_got as u32;
                guest.send_raw(&update, &[]);
            }
            Operation::CreditUpdate => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// In whatever order the ends act, bytes are neither lost nor mixed up, and what is
    /// kept stays within what was promised.
    #[test]
    fn streams_carry_all_bytes(acts in prop::collection::vec((0..3_usize, act()), 50..400)) {
        let mut guest = Guest::new();
        let mut streams: Vec<Stream> = (0..3)
            .map(|_| {
                let (host, port) = guest.connect_from_host();
                Stream {
                    host,
                    port,
                    host_wrote: 0,
                    guest_got: 0,
                    guest_sent: 0,
                    host_read: 0,
                    window: 256 * 1024,
                    forwarded: 0,
                }
            })
            .collect();
        let ports = streams.iter().enumerate().map(|(i, s)| (s.port, i)).collect();
        for (index, act) in acts {
            let stream = &mut streams[index];
            match act {
                Act::HostWrites(count) => stream.host_writes(index, count),
                Act::HostReads(count) => stream.host_reads(index, count),
                Act::GuestSends(count) => stream.guest_sends(index, count, &mut guest),
                Act::GuestTakes(most) => guest_takes(&mut guest, &mut streams, &ports, most),
                Act::Turn => guest.turn(),
            }
            let (_, fullest) = guest.device.connections.buffered();
            prop_assert!(fullest <= 256 * 1024);
        }
        let until = Instant::now() + Duration::from_mins(1);
        while streams.iter().any(|s| s.guest_got < s.host_wrote || s.host_read < s.guest_sent) {
            prop_assert!(Instant::now() < until, "bytes are stuck");
            guest.turn();
            guest_takes(&mut guest, &mut streams, &ports, u8::MAX);
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.host_reads(index, u16::MAX);
                // Credit for what was taken.
                stream.guest_sends(index, 0, &mut guest);
            }
        }
    }

    /// Any packets: no panic, and nothing grows without bound.
    #[test]
    fn survives_any_packets(packets in prop::collection::vec(
        (prop::sample::select(vec![0, 1, 7000, 1 << 30, (1 << 30) + 1, u32::MAX]),
         prop::sample::select(vec![0, PORT, u32::MAX]),
         0..9_u16, any::<u32>(), any::<u32>(), 0..3_u32, any::<u16>(), any::<bool>()),
        1..300,
    )) {
        let mut guest = Guest::new();
        let listener = UnixListener::bind(guest.directory.path().join("vsock.sock_7000")).unwrap();
        let mut host = UnixStream::connect(guest.socket()).unwrap();
        writeln!(host, "CONNECT {PORT}").unwrap();
        for (host_port, guest_port, code, buffer_size, forwarded, flags, length, take) in packets {
            let mut header = Guest::header(host_port, guest_port, Operation::Reset);
            header.buffer_size = buffer_size;
            header.forwarded = forwarded;
            header.flags = flags;
            header.length = u32::from(length);
            let mut bytes = header.encode();
            bytes[30..32].copy_from_slice(&code.to_le_bytes());
            let payload = vec![0; length.into()];
            guest.send_raw(&Header::decode(&bytes), &payload);
            guest.turn();
            if take {
                guest.take();
            }
            let (all, fullest) = guest.device.connections.buffered();
            prop_assert!(fullest <= 256 * 1024 && all <= 76 << 20);
            prop_assert!(guest.device.connections.resets_waiting() <= 128 + MAX_CONNECTIONS);
        }
        drop(listener);
    }
}
