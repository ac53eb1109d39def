//! The device under any order of acts, and under any packets.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    super::{Header, connections::MAX_CONNECTIONS, packet::Operation},
    Guest, PORT,
};

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
