//! Any bytes between host and agent: frames, and what is in them.
#![no_main]

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use guest_protocol::{
    container::Event,
    frame::{self, FrameError, Reply},
    machine::Info,
    methods::{LayerWanted, Request, WaitResult},
};
use libfuzzer_sys::fuzz_target;

/// Reads a frame from bytes that are all there: never pending.
fn read<T: serde::de::DeserializeOwned>(stream: &mut &[u8]) -> Result<T, FrameError> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(frame::read(stream)).poll(&mut context) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("a slice is always ready"),
    }
}

fuzz_target!(|input: &[u8]| {
    let mut stream = input;
    loop {
        let before = stream.len();
        match read::<Request>(&mut stream) {
            Ok(request) => {
                let encoded = frame::encode(&request).expect("it came in a frame");
                let mut again = encoded.as_slice();
                let back: Request = read(&mut again).expect("what was written is read");
                assert_eq!(back.name(), request.name());
                assert!(again.is_empty());
            }
            // The next frame may be one.
            Err(FrameError::Malformed(_)) => assert!(stream.len() < before),
            Err(_) => break,
        }
    }
    let _ = read::<Reply<Info>>(&mut &*input);
    let _ = read::<Reply<LayerWanted>>(&mut &*input);
    let _ = read::<Reply<WaitResult>>(&mut &*input);
    let _ = read::<Event>(&mut &*input);
    // Without the length, which a fuzzer rarely gets right.
    let _ = frame::decode::<Request>(input);
    let _ = frame::decode::<Reply<Vec<Info>>>(input);
});
