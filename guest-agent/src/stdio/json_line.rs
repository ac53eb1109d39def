//! Reading one entry of a container's log back.
//!
//! Entries are as [`json_entry`](super::json_entry) writes them but for those of an
//! older version or another program: the first are read by hand, at memory's speed
//! rather than a JSON reader's, all others as JSON.

use std::{borrow::Cow, collections::BTreeMap};

use memchr::memchr2;
use serde::Deserialize;

use super::Stream;

/// One entry, but for its output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) stream: Stream,
    /// RFC 3339.
    pub(super) time: Cow<'a, str>,
    /// A JSON object, or nothing.
    attributes: Cow<'a, str>,
}

/// An entry, as JSON.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    attrs: Option<BTreeMap<String, String>>,
}

impl<'a> Line<'a> {
    /// Reads an entry, and puts its output into `text`; `None` when it is none.
    pub(super) fn read(line: &'a [u8], text: &mut Vec<u8>) -> Option<Self> {
        Self::read_own(line, text).or_else(|| Self::read_json(line, text))
    }

    /// What was noted with it: `name=value,…`, values encoded as in a URL's query.
    pub(super) fn details(&self) -> String {
        let attributes: BTreeMap<String, String> =
            serde_json::from_str(&self.attributes).unwrap_or_default();
        let pairs: Vec<_> = attributes
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        pairs.join(",")
    }

    /// An entry as we write it.
    fn read_own(line: &'a [u8], text: &mut Vec<u8>) -> Option<Self> {
        text.clear();
        let rest = line.strip_prefix(b"{\"log\":\"")?;
        let rest = unescape(rest, text)?;
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stream, rest) = match rest {
            [b'o', b'u', b't', b'"', rest @ ..] => (Stream::Stdout, rest),
            [b'e', b'r', b'r', b'"', rest @ ..] => (Stream::Stderr, rest),
            _ => return None,
        };
        let time = rest
            .strip_prefix(b",\"time\":\"")?
            .strip_suffix(b"\"}\n")
            .filter(|time| memchr2(b'"', b'\\', time).is_none())?;
        Some(Self {
            stream,
            time: Cow::Borrowed(std::str::from_utf8(time).ok()?),
            attributes: Cow::Borrowed(""),
        })
    }

    fn read_json(line: &'a [u8], text: &mut Vec<u8>) -> Option<Self> {
        let entry: Entry<'a> = serde_json::from_slice(line).ok()?;
        text.clear();
        text.extend_from_slice(entry.log.as_bytes());
        let attributes = entry
            .attrs
            .map(|attributes| serde_json::to_string(&attributes));
        Some(Self {
            stream: match &*entry.stream {
                "stderr" => Stream::Stderr,
                _ => Stream::Stdout,
            },
            time: entry.time,
            attributes: Cow::Owned(attributes.transpose().ok()?.unwrap_or_default()),
        })
    }
}

/// Appends the JSON string that ends at the first unescaped quote to `text`, and
/// returns what follows it; `None` for an escape that we do not write.
fn unescape<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let at = memchr2(b'"', b'\\', rest)?;
        let (plain, after) = rest.split_at(at);
        text.extend_from_slice(plain);
        match after {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'n', after @ ..] => {
                text.push(b'\n');
                rest = after;
            }
            [b'\\', b'r', after @ ..] => {
                text.push(b'\r');
                rest = after;
            }
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [b'\\', b'u', digits @ ..] => {
                let (digits, after) = digits.split_at_checked(4)?;
                let digits = std::str::from_utf8(digits).ok()?;
                // `from_str_radix` would take a sign; surrogates are no characters.
                let value = u32::from_str_radix(digits, 16).ok()?;
                let character = char::from_u32(value).filter(|_| !digits.starts_with('+'))?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return None,
        }
    }
}

/// Percent-encodes as Go's `url.QueryEscape`.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;

    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b' ' => encoded.push('+'),
            b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stdio::json_entry::{Note, encode_entry};

    fn written(output: &[u8]) -> Vec<u8> {
        let mut entries = Vec::new();
        let note = Note {
            attributes: "",
            time: "2026-11-21T08:00:00.000000001Z",
        };
        encode_entry(&mut entries, output, Stream::Stderr, note);
        entries
    }

    #[test]
    fn entries_of_others_are_read_as_json() {
        let mut text = Vec::new();
        let line =
            br#"{"time":"T","stream":"stdout","log":"a\/b\ud83e\udd80\t","attrs":{"a":"b"}}"#;
        let entry = Line::read(line, &mut text).unwrap();
        assert_eq!(text, "a/b\u{1f980}\t".as_bytes());
        assert_eq!((entry.stream, &*entry.time), (Stream::Stdout, "T"));
        assert_eq!(entry.details(), "a=b");
        for torn in [
            &b""[..],
            b"{\"log\":\"abc",
            b"{\"log\":\"a\\u+041\",\"stream\"",
            b"null\n",
        ] {
            assert_eq!(Line::read(torn, &mut text), None);
        }
    }

    proptest! {
        #[test]
        fn what_we_write_is_read_by_hand_as_by_json(output in any::<Vec<u8>>()) {
            let line = written(&output);
            let (mut own, mut json) = (Vec::new(), Vec::new());
            let read_own = Line::read_own(&line, &mut own);
            prop_assert!(read_own.is_some());
            prop_assert_eq!(read_own, Line::read_json(&line, &mut json));
            prop_assert_eq!(own, json);
        }

        #[test]
        fn any_line_is_read_or_passed_over(
            line in r#"\{"log":"([a-z\\"u0-9]|\\u[0-9a-f]{4}){0,20}","stream":"std(out|err)","time":".{0,5}"\}\n?"#,
        ) {
            let (mut both, mut json) = (Vec::new(), Vec::new());
            let read = Line::read(line.as_bytes(), &mut both);
            // What JSON reads, we read, and the same.
            if let Some(entry) = Line::read_json(line.as_bytes(), &mut json) {
                prop_assert_eq!(read, Some(entry));
                prop_assert_eq!(both, json);
            }
        }
    }
}
