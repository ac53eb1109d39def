//! DNS messages (RFC 1035): what is read of a question, and the answers to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds for which an answer of the C library may be kept, which does not say.
const TIME_TO_LIVE: u32 = 5;

/// Longest name in a message, in bytes, and longest label.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;

/// Most records in an answer: they fit into a message.
const MOST_RECORDS: usize = 256;

const HEADER: usize = 12;
const INTERNET: u16 = 1;

/// Types of records.
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// How a question was answered, unless with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The question was not understood.
    FormatError = 1,
    /// Nobody could answer it.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// An address of the name.
    Address(IpAddr),
    /// A name of the address.
    Pointer(String),
}

/// What is asked of the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordType {
    /// Addresses of IPv4, or of IPv6.
    Address(bool),
    /// The name of an address.
    Pointer(IpAddr),
}

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header([u8; HEADER]);

/// A message with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question<'a> {
    header: Header,
    /// As it is in the message: name, type and class.
    bytes: &'a [u8],
    labels: Vec<&'a [u8]>,
    kind: u16,
    class: u16,
}

impl Header {
    /// The beginning of an answer without anything in it.
    fn answer(self, code: u8, questions: u16, records: u16) -> Vec<u8> {
        let mut message = self.0.to_vec();
        // An answer, and recursion is to be had; what was asked for stays.
        message[2] = self.0[2] & 0b0111_1001 | 0x80;
        message[3] = 0x80 | code;
        message[4..6].copy_from_slice(&questions.to_be_bytes());
        message[6..8].copy_from_slice(&records.to_be_bytes());
        message[8..].fill(0);
        message
    }

    /// The answer that says why there is none.
    pub(super) fn refuse(self, code: Code) -> Vec<u8> {
        self.answer(code as u8, 0, 0)
    }
}

impl<'a> Question<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is none with one question; with its header, if it is one that asks.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Option<Header>> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(None);
        };
        if header[2] & 0x80 != 0 {
            return Err(None);
        }
        let parse = || {
            let standard = header[2] & 0x78 == 0;
            let one = header[4..6] == [0, 1];
            if !standard || !one {
                return None;
            }
            let (labels, length) = labels(rest)?;
            let kind = rest.get(length..)?.first_chunk::<4>()?;
            Some(Self {
                header: Header(*header),
                bytes: rest.get(..length + 4)?,
                labels,
                kind: u16::from_be_bytes([kind[0], kind[1]]),
                class: u16::from_be_bytes([kind[2], kind[3]]),
            })
        };
        parse().ok_or(Some(Header(*header)))
    }

    /// What is asked for, if the C library knows it.
    pub(super) fn record_type(&self) -> Option<RecordType> {
        match (self.class, self.kind) {
            (INTERNET, A) => Some(RecordType::Address(false)),
            (INTERNET, AAAA) => Some(RecordType::Address(true)),
            (INTERNET, PTR) => self.pointed_to().map(RecordType::Pointer),
            _ => None,
        }
    }

    /// The name, without the dot at its end. None when it is the root, or none that
    /// has a text: the C library must read what was asked, not something else.
    pub(super) fn name(&self) -> Option<String> {
        let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.' && *byte != b'%';
        if self.labels.is_empty() || !self.labels.iter().all(|label| label.iter().all(plain)) {
            return None;
        }
        String::from_utf8(self.labels.join(&b'.')).ok()
    }

    /// The address that a name below `in-addr.arpa` or `ip6.arpa` is about.
    fn pointed_to(&self) -> Option<IpAddr> {
        let text = |label: &&'a [u8]| str::from_utf8(label).ok();
        let name: Vec<&str> = self.labels.iter().map(text).collect::<Option<_>>()?;
        let (number, suffix) = name.split_at_checked(name.len().checked_sub(2)?)?;
        if !suffix[1].eq_ignore_ascii_case("arpa") {
            return None;
        }
        if suffix[0].eq_ignore_ascii_case("in-addr") {
            let mut octets = [0; 4];
            if number.len() != octets.len() {
                return None;
            }
            for (octet, text) in octets.iter_mut().rev().zip(number) {
                *octet = text.parse().ok()?;
            }
            return Some(Ipv4Addr::from(octets).into());
        }
        if !suffix[0].eq_ignore_ascii_case("ip6") || number.len() != 32 {
            return None;
        }
        let mut address = 0_u128;
        for text in number.iter().rev() {
            let mut digits = text.chars();
            let digit = digits.next()?.to_digit(16)?;
            if digits.next().is_some() {
                return None;
            }
            address = address << 4 | u128::from(digit);
        }
        Some(Ipv6Addr::from(address).into())
    }

    /// The answer with these records, or that says why there are none.
    pub(super) fn answer(&self, records: Result<Vec<Record>, Code>) -> Vec<u8> {
        let (code, mut records) = match records {
            Ok(records) => (0, records),
            Err(code) => (code as u8, Vec::new()),
        };
        records.truncate(MOST_RECORDS);
        let mut message = self.header.answer(code, 1, records.len() as u16);
        message.extend_from_slice(self.bytes);
        for record in records {
            let (kind, data) = match record {
                Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Record::Pointer(name) => (PTR, encoded(&name)),
            };
            // The name is where the question has it.
            message.extend_from_slice(&[0xc0, HEADER as u8]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&INTERNET.to_be_bytes());
            message.extend_from_slice(&TIME_TO_LIVE.to_be_bytes());
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(&data);
        }
        message
    }
}

/// The labels of a name, and how many bytes it takes with its end.
fn labels(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let mut labels = Vec::new();
    let mut at = 0;
    while at < LONGEST_NAME {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels, at));
        }
        // Longer ones are pointers, which no question has.
        if length > LONGEST_LABEL {
            return None;
        }
        labels.push(bytes.get(at..at + length)?);
        at += length;
    }
    None
}

/// A name as a message has it; the root for one that cannot be.
fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > LONGEST_LABEL {
            return vec![0];
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > LONGEST_NAME {
        return vec![0];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encoded(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let bytes = question("example.test", A);
        let question = Question::parse(&bytes).unwrap();
        assert_eq!(question.name().as_deref(), Some("example.test"));
        assert_eq!(question.record_type(), Some(RecordType::Address(false)));
        let address = "192.0.2.1".parse().unwrap();
        let answer = question.answer(Ok(vec![Record::Address(address)]));
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(answer[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..bytes.len()], bytes[12..]);
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 1];
        assert_eq!(answer[bytes.len()..], record);
        let none = question.answer(Err(Code::NoSuchName));
        assert_eq!(none[3], 0x83);
        assert_eq!(none.len(), bytes.len());
    }

    #[test]
    fn addresses_are_read_backwards() {
        let of = |name: &str| {
            let bytes = question(name, PTR);
            Question::parse(&bytes).unwrap().record_type()
        };
        let pointer = |address: &str| Some(RecordType::Pointer(address.parse().unwrap()));
        assert_eq!(of("7.2.0.192.in-addr.arpa"), pointer("192.0.2.7"));
        let mut name = "1.".to_owned();
        name.push_str(&"0.".repeat(23));
        name.push_str("8.b.d.0.1.0.0.2.ip6.arpa");
        assert_eq!(of(&name), pointer("2001:db8::1"));
        for name in [
            "2.0.192.in-addr.arpa",
            "256.2.0.192.in-addr.arpa",
            "x.ip6.arpa",
            "arpa",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_question_has_a_header_or_nothing() {
        let mut bytes = question("a", A);
        assert_eq!(Question::parse(&bytes[..11]), Err(None));
        let header = Question::parse(&bytes[..14]).unwrap_err().unwrap();
        assert_eq!(header.refuse(Code::FormatError)[3], 0x81);
        bytes[2] |= 0x80;
        assert_eq!(Question::parse(&bytes), Err(None));
    }

    #[test]
    fn a_name_with_more_than_text_is_none() {
        let mut bytes = question("abc", A);
        for byte in [b'.', 0, 0xff, b'%'] {
            bytes[13] = byte;
            assert_eq!(Question::parse(&bytes).unwrap().name(), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(question) = Question::parse(&bytes) {
                let _ = (question.record_type(), question.name());
                prop_assert!(question.answer(Ok(Vec::new())).len() <= bytes.len());
            }
        }

        #[test]
        fn any_name_is_encoded(name in "[a-z.]{0,300}") {
            let bytes = encoded(&name);
            prop_assert!(labels(&bytes).is_some());
        }
    }
}
