//! A message to a container's name server. Whatever it holds: no panic, and a reply
//! that is one to it and no longer than it may be.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/networks/dns/message.rs"]
#[allow(dead_code)]
mod message;

use message::{Code, Question, Record, Unanswerable};

/// What fits into no small reply.
const ADDRESSES: u8 = 100;

fuzz_target!(|input: (u16, &[u8])| {
    let (limit, message) = input;
    let question = match Question::parse(message) {
        Ok(question) => question,
        Err(Unanswerable::Ignored) => return,
        Err(Unanswerable::Refused(reply)) => {
            assert_eq!(reply[..2], message[..2]);
            return;
        }
    };
    let limit = question
        .limit
        .min(usize::from(limit).max(message::SMALLEST_LIMIT));
    let addresses = (0..ADDRESSES).map(|last| Record::Address(IpAddr::from([10, 0, 0, last])));
    let mut records: Vec<Record> = addresses.collect();
    if let Some(name) = &question.name {
        records.insert(0, Record::Name(name.clone()));
    }
    for reply in [
        question.answer(&records, limit),
        question.fail(Code::ServerFailure),
        question.truncated(),
    ] {
        assert!(question.is_answered_by(&reply));
        assert!(reply.len() <= limit);
        // Sent back, it is no question.
        assert_eq!(Question::parse(&reply), Err(Unanswerable::Ignored));
    }
    let _ = question.address();
});
