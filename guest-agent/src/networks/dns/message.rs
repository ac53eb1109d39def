//! DNS messages (RFC 1035), as far as a name server needs them that knows addresses and
//! passes all else on: one question in, a reply out.
//!
//! What comes in is a container's and hostile: everything is looked at with its bounds,
//! and names in questions are never followed anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a message's header.
const HEADER: usize = 12;

/// The largest message over UDP when a question does not say more.
pub(crate) const SMALLEST_LIMIT: usize = 512;

/// The longest name, in bytes, as it travels.
const LONGEST_NAME: usize = 255;

/// Types of records.
pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const AAAA: u16 = 28;
const OPT: u16 = 41;
const ANY: u16 = 255;

/// The class of everything.
const INTERNET: u16 = 1;

/// How long an answer may be remembered, in seconds; Docker's.
const TIME_TO_LIVE: u32 = 600;

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It was.
    Success = 0,
    /// It is none.
    Malformed = 1,
    /// Nobody could tell.
    ServerFailure = 2,
    /// It is something else than a question.
    NotImplemented = 4,
}

/// A message with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// All of it.
    pub(crate) message: &'a [u8],
    /// The name that it is about, without a dot at its end; `None` when it is none that
    /// a host can have.
    pub(crate) name: Option<String>,
    /// The type of records that are asked for.
    pub(crate) kind: u16,
    /// The largest message that its sender takes over UDP, in bytes.
    pub(crate) limit: usize,
    class: u16,
    /// Where the question ends.
    end: usize,
}

/// A message that has no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswerable {
    /// Nothing is to be said to it.
    Ignored,
    /// What is to be said.
    Refused(Vec<u8>),
}

/// A record of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An address.
    Address(IpAddr),
    /// The name of an address.
    Name(String),
}

impl<'a> Question<'a> {
    /// Reads a message.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Unanswerable> {
        // A reply to a reply would go on for ever.
        if message.len() < HEADER || message[2] & 0x80 != 0 {
            return Err(Unanswerable::Ignored);
        }
        let refuse = |code| Unanswerable::Refused(header(message, code, 0, 0).to_vec());
        if message[2] & 0x78 != 0 {
            return Err(refuse(Code::NotImplemented));
        }
        if number(message, 4) != Some(1) {
            return Err(refuse(Code::Malformed));
        }
        Self::read(message).ok_or_else(|| refuse(Code::Malformed))
    }

    fn read(message: &'a [u8]) -> Option<Self> {
        let (name, after) = read_name(message, HEADER)?;
        let kind = number(message, after)?;
        let class = number(message, after + 2)?;
        let end = after + 4;
        Some(Self {
            message,
            name,
            kind,
            class,
            limit: extended_limit(message, end).unwrap_or(SMALLEST_LIMIT),
            end,
        })
    }

    /// Whether it asks for records of this type.
    pub(crate) fn asks_for(&self, kind: u16) -> bool {
        self.class == INTERNET && (self.kind == kind || self.kind == ANY)
    }

    /// The address whose name it asks for.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        if !self.asks_for(PTR) {
            return None;
        }
        reverse_address(self.name.as_deref()?)
    }

    /// A reply with these records, or as many of them as `limit` bytes have room for.
    pub(crate) fn answer(&self, records: &[Record], limit: usize) -> Vec<u8> {
        let mut reply = self.reply(Code::Success);
        let mut count: u16 = 0;
        for record in records {
            let before = reply.len();
            let written = write_record(&mut reply, record);
            if written.is_none() || reply.len() > limit {
                reply.truncate(before);
            }
            if written.is_none() {
                continue;
            }
            if reply.len() == before {
                reply[2] |= 0x02;
                break;
            }
            count = count.saturating_add(1);
        }
        reply[6..8].copy_from_slice(&count.to_be_bytes());
        reply
    }

    /// A reply without records.
    pub(crate) fn fail(&self, code: Code) -> Vec<u8> {
        self.reply(code)
    }

    /// A reply that says to ask over TCP.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut reply = self.reply(Code::Success);
        reply[2] |= 0x02;
        reply
    }

    /// Whether `reply` is one to this question's message.
    pub(crate) fn is_answered_by(&self, reply: &[u8]) -> bool {
        reply.len() >= HEADER && reply.get(..2) == self.message.get(..2) && reply[2] & 0x80 != 0
    }

    fn reply(&self, code: Code) -> Vec<u8> {
        let mut reply = header(self.message, code, 1, 0).to_vec();
        reply.extend_from_slice(&self.message[HEADER..self.end]);
        reply
    }
}

/// `None` when it cannot be said in a message.
fn write_record(reply: &mut Vec<u8>, record: &Record) -> Option<()> {
    // The name is the question's.
    reply.extend_from_slice(&[0xc0, HEADER as u8]);
    let mut push = |kind: u16, data: &[u8]| -> Option<()> {
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&INTERNET.to_be_bytes());
        reply.extend_from_slice(&TIME_TO_LIVE.to_be_bytes());
        reply.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend_from_slice(data);
        Some(())
    };
    match record {
        Record::Address(IpAddr::V4(address)) => push(A, &address.octets()),
        Record::Address(IpAddr::V6(address)) => push(AAAA, &address.octets()),
        Record::Name(name) => push(PTR, &write_name(name)?),
    }
}

/// The header of a reply to `message`, which has one.
fn header(message: &[u8], code: Code, questions: u8, answers: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&message[..2]);
    // A reply; what was asked for is done, recursion included.
    header[2] = 0x80 | (message[2] & 0x79);
    header[3] = 0x80 | code as u8;
    header[5] = questions;
    header[7] = answers;
    header
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The name that begins at `at`, and where it ends. Pointers have no place in a
/// question.
fn read_name(message: &[u8], at: usize) -> Option<(Option<String>, usize)> {
    let mut name = String::new();
    let mut usable = true;
    let mut next = at;
    loop {
        let length = usize::from(*message.get(next)?);
        next += 1;
        if length == 0 {
            break;
        }
        if length > 63 {
            return None;
        }
        let label = message.get(next..next + length)?;
        next += length;
        if next - at > LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        // A dot in a label would look like two of them.
        usable &= label
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        name.extend(label.iter().map(|byte| char::from(*byte)));
    }
    Some((usable.then_some(name), next))
}

fn write_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=63).contains(&length) {
            return None;
        }
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= LONGEST_NAME).then_some(bytes)
}

/// The size that a question's sender takes (EDNS, RFC 6891): of the first additional
/// record, where everybody puts it.
fn extended_limit(message: &[u8], end: usize) -> Option<usize> {
    let none_between = number(message, 6) == Some(0) && number(message, 8) == Some(0);
    let is_option =
        *message.get(end)? == 0 && number(message, end + 1)? == OPT && number(message, 10)? > 0;
    if !none_between || !is_option {
        return None;
    }
    Some(usize::from(number(message, end + 3)?).max(SMALLEST_LIMIT))
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<u8> = octets
            .split('.')
            .map(|octet| octet.parse().ok())
            .collect::<Option<_>>()?;
        octets.reverse();
        let octets: [u8; 4] = octets.try_into().ok()?;
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').collect();
    if nibbles.len() != 32 {
        return None;
    }
    let mut bits: u128 = 0;
    for nibble in nibbles.iter().rev() {
        let [digit] = nibble.as_bytes() else {
            return None;
        };
        bits = (bits << 4) | u128::from(char::from(*digit).to_digit(16)?);
    }
    Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: u16, more: &[u8]) -> Vec<u8> {
        let mut message = vec![
            0xab,
            0xcd,
            1,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(!more.is_empty()),
        ];
        message.extend(write_name(name).unwrap());
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(more);
        message
    }

    fn addresses(count: u8) -> Vec<Record> {
        (0..count)
            .map(|last| Record::Address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))))
            .collect()
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = question("Web.net", A, &[]);
        let question = Question::parse(&message).unwrap();
        assert_eq!(question.name.as_deref(), Some("Web.net"));
        assert!(question.asks_for(A) && !question.asks_for(AAAA));
        let reply = question.answer(&addresses(1), SMALLEST_LIMIT);
        assert_eq!(
            &reply[..12],
            [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(&reply[12..message.len()], &message[12..]);
        assert_eq!(
            &reply[message.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 0, 0, 0]
        );
        assert!(question.is_answered_by(&reply));
        assert!(!question.is_answered_by(&message));
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_missing() {
        let message = question("web", A, &[]);
        let read = Question::parse(&message).unwrap();
        let reply = read.answer(&addresses(100), SMALLEST_LIMIT);
        assert!(reply.len() <= SMALLEST_LIMIT && reply[2] & 0x02 != 0);
        let count = usize::from(number(&reply, 6).unwrap());
        assert_eq!(reply.len(), message.len() + count * 16);
        let more = question("web", A, &[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let read = Question::parse(&more).unwrap();
        assert_eq!(read.limit, 4096);
        let reply = read.answer(&addresses(100), read.limit);
        assert_eq!((reply[2] & 0x02, number(&reply, 6)), (0, Some(100)));
    }

    #[test]
    fn names_of_addresses_are_asked_for() {
        let asked = |name: &str| {
            let message = question(name, PTR, &[]);
            Question::parse(&message).unwrap().address()
        };
        assert_eq!(
            asked("2.0.17.172.in-addr.arpa"),
            Some("172.17.0.2".parse().unwrap())
        );
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.F.ip6.arpa";
        assert_eq!(asked(six), Some("fd00::2".parse().unwrap()));
        for none in [
            "0.17.172.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "x.ip6.arpa",
            "web",
        ] {
            assert_eq!(asked(none), None, "{none}");
        }
        let message = question("2.0.17.172.in-addr.arpa", PTR, &[]);
        let reply = Question::parse(&message)
            .unwrap()
            .answer(&[Record::Name("web.net".into())], SMALLEST_LIMIT);
        assert!(reply.ends_with(b"\x03web\x03net\x00"));
        // A container's name may be longer than a label.
        let long = Record::Name(format!("{}.net", "x".repeat(80)));
        let reply = Question::parse(&message)
            .unwrap()
            .answer(&[long], SMALLEST_LIMIT);
        assert_eq!((reply.len(), number(&reply, 6)), (message.len(), Some(0)));
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let good = question("web", A, &[]);
        let refused = |message: &[u8]| match Question::parse(message) {
            Err(Unanswerable::Refused(reply)) => Some(reply[3] & 0x0f),
            Err(Unanswerable::Ignored) => None,
            Ok(question) => panic!("{question:?}"),
        };
        let mut reply = good.clone();
        reply[2] |= 0x80;
        assert_eq!(refused(&reply), None);
        assert_eq!(refused(&good[..11]), None);
        let mut update = good.clone();
        update[2] |= 0x28;
        assert_eq!(refused(&update), Some(4));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(refused(&two), Some(1));
        assert_eq!(refused(&good[..good.len() - 1]), Some(1));
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert_eq!(refused(&pointer), Some(1));
        let mut dotted = good;
        dotted[13] = b'.';
        assert_eq!(Question::parse(&dotted).unwrap().name, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in 0_usize..2000) {
            match Question::parse(&bytes) {
                Ok(question) => {
                    let reply = question.answer(&addresses(40), limit);
                    prop_assert!(reply.len() <= limit.max(question.end));
                    prop_assert!(question.is_answered_by(&reply));
                    prop_assert!(question.is_answered_by(&question.truncated()));
                    let _ = question.address();
                }
                Err(Unanswerable::Refused(reply)) => prop_assert_eq!(&reply[..2], &bytes[..2]),
                Err(Unanswerable::Ignored) => {}
            }
        }

        #[test]
        fn names_survive(labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,63}", 1..4)) {
            let name = labels.join(".");
            let message = question(&name, A, &[]);
            prop_assert_eq!(Question::parse(&message).unwrap().name, Some(name));
        }
    }
}
