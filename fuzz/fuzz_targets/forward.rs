//! What the engine reads from a guest on behalf of published ports: how connecting
//! went, datagrams, and what containers listen on in the machine's network.
#![no_main]

use std::{
    collections::BTreeSet,
    pin::pin,
    task::{Context, Poll, Waker},
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter, MAX_DATAGRAM},
    frame::{self, Reply},
    port::{Forwarding, ListeningSocket},
};
use libfuzzer_sys::fuzz_target;

/// What a future says of bytes that are all there: it is never pending.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a slice is always ready"),
    }
}

/// Datagrams that are written again are the bytes that they were read from.
fn datagrams(bytes: &[u8]) {
    let mut reader = DatagramReader::new(bytes);
    let mut again = Vec::new();
    loop {
        let payload = match ready(reader.next()) {
            Ok(Some(payload)) => payload,
            Ok(None) => break,
            Err(error) => unreachable!("a slice has no errors: {error}"),
        };
        assert!(payload.len() <= MAX_DATAGRAM);
        let mut writer = DatagramWriter::new(&mut again);
        ready(writer.write(payload)).expect("it was read");
    }
    assert!(bytes.starts_with(&again));
    // What is left is no whole datagram.
    let rest = &bytes[again.len()..];
    if let [high, low, payload @ ..] = rest {
        assert!(payload.len() < usize::from(u16::from_be_bytes([*high, *low])));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut stream = input;
    if let Ok(Reply::Ok(forwarding)) = ready(frame::read::<_, Reply<Forwarding>>(&mut stream)) {
        let frame = frame::encode(&forwarding).expect("it came in a frame");
        assert_eq!(frame::decode(&frame[4..]).ok(), Some(forwarding));
        datagrams(stream);
    }
    datagrams(input);
    let mut stream = input;
    while let Ok(sockets) = ready(frame::read::<_, BTreeSet<ListeningSocket>>(&mut stream)) {
        let frame = frame::encode(&sockets).expect("it came in a frame");
        assert_eq!(frame::decode(&frame[4..]).ok(), Some(sockets));
    }
});
