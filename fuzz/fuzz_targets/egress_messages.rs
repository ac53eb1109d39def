//! What the engine reads from a guest that asks for the way out: requests, messages of
//! datagrams, DNS questions.

#![no_main]

use guest_protocol::{
    egress::{Message, Request},
    frame,
};
use libfuzzer_sys::fuzz_target;

/// The engine keeps it to itself: the module is taken as it is.
#[path = "../../app/engine/src/egress/resolve/message.rs"]
#[allow(dead_code)]
mod message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = frame::decode::<Request>(bytes) {
        let frame = frame::encode(&request).expect("it is short");
        assert_eq!(frame::decode::<Request>(&frame[4..]).ok(), Some(request));
    }
    if let Some(message) = Message::decode(bytes) {
        let mut again = Vec::new();
        if message.encode(&mut again).is_ok() {
            assert_eq!(again, bytes);
        }
    }
    if let Ok(question) = message::Question::parse(bytes) {
        if let Some(name) = question.name() {
            assert!(name.len() < 256 && !name.contains('\0'));
        }
        let _ = question.record_type();
        let records = [
            message::Record::Address([192, 0, 2, 1].into()),
            message::Record::Pointer("example.test".into()),
        ];
        // It is a message itself, and no question.
        let answer = question.answer(Ok(records.to_vec()));
        assert!(message::Question::parse(&answer).is_err());
    }
});
