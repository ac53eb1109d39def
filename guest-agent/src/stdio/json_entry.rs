//! One entry of a container's log, byte for byte as Docker's json-file driver
//! writes it.
//!
//! Output is bytes, JSON is text: what is not UTF-8 becomes `\ufffd`, one for each
//! byte. `<`, `>`, `&` and the line separators of JavaScript are escaped too.

use memchr::memchr;

use super::Stream;

/// The longest entry, in bytes of output; Docker's value.
pub(super) const LINE: usize = 16 * 1024;

/// What a byte becomes in a JSON string: itself, or an escape.
#[derive(Clone, Copy)]
struct Escape {
    text: [u8; 6],
    length: u8,
}

/// What a byte becomes that is not UTF-8.
const REPLACEMENT: Escape = Escape {
    text: *b"\\ufffd",
    length: 6,
};

/// The first byte of U+2028 and U+2029, and of others.
const SEPARATOR: u8 = 0xe2;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Of each byte by itself: beyond ASCII none is a character.
static ESCAPES: [Escape; 256] = {
    let mut escapes = [REPLACEMENT; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        escapes[byte] = match value {
            b'"' | b'\\' => short(value),
            b'\n' => short(b'n'),
            b'\r' => short(b'r'),
            0..0x20 | b'<' | b'>' | b'&' => {
                let (high, low) = (DIGITS[byte >> 4], DIGITS[byte & 15]);
                Escape {
                    text: [b'\\', b'u', b'0', b'0', high, low],
                    length: 6,
                }
            }
            0x80.. => REPLACEMENT,
            _ => plain(value),
        };
        byte += 1;
    }
    escapes
};

const fn plain(byte: u8) -> Escape {
    Escape {
        text: [byte, 0, 0, 0, 0, 0],
        length: 1,
    }
}

const fn short(letter: u8) -> Escape {
    Escape {
        text: [b'\\', letter, 0, 0, 0, 0],
        length: 2,
    }
}

/// What is noted with every entry of one write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note<'a> {
    /// A JSON object of labels and variables, as `--log-opt labels=…` asks; may be
    /// empty.
    pub(super) attributes: &'a str,
    /// RFC 3339.
    pub(super) time: &'a str,
}

/// Splits output into entries and appends them to `entries`. `partial` is the
/// stream's output that is not a whole entry yet, from one call to the next.
pub(super) fn encode(
    entries: &mut Vec<u8>,
    partial: &mut Vec<u8>,
    output: &[u8],
    stream: Stream,
    note: Note<'_>,
) {
    let mut rest = output;
    while !rest.is_empty() {
        let room = (LINE - partial.len()).min(rest.len());
        let newline = memchr(b'\n', &rest[..room]);
        let (piece, after) = rest.split_at(newline.map_or(room, |newline| newline + 1));
        rest = after;
        let whole = newline.is_some() || partial.len() + piece.len() == LINE;
        if !whole {
            partial.extend_from_slice(piece);
        } else if partial.is_empty() {
            encode_entry(entries, piece, stream, note);
        } else {
            partial.extend_from_slice(piece);
            encode_entry(entries, partial, stream, note);
            partial.clear();
        }
    }
}

/// Appends one entry.
pub(super) fn encode_entry(entries: &mut Vec<u8>, output: &[u8], stream: Stream, note: Note<'_>) {
    entries.extend_from_slice(b"{\"log\":\"");
    let mut string = JsonString::new(entries);
    if std::str::from_utf8(output).is_ok() {
        string.put_text(output);
    } else {
        string.put_bytes(output);
    }
    string.flush();
    entries.extend_from_slice(match stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\"",
        Stream::Stderr => b"\",\"stream\":\"stderr\"",
    });
    if !note.attributes.is_empty() {
        entries.extend_from_slice(b",\"attrs\":");
        entries.extend_from_slice(note.attributes.as_bytes());
    }
    entries.extend_from_slice(b",\"time\":\"");
    entries.extend_from_slice(note.time.as_bytes());
    entries.extend_from_slice(b"\"}\n");
}

/// The inside of a JSON string being appended. What is escaped is gathered, so
/// that a byte costs a store rather than a call.
struct JsonString<'a> {
    entries: &'a mut Vec<u8>,
    gathered: [u8; 512],
    length: usize,
}

impl<'a> JsonString<'a> {
    /// A run of unescaped bytes is copied as a whole when it is at least this long.
    const RUN: usize = 16;

    fn new(entries: &'a mut Vec<u8>) -> Self {
        Self {
            entries,
            gathered: [0; 512],
            length: 0,
        }
    }

    fn put(&mut self, escape: Escape) {
        if self.length + escape.text.len() > self.gathered.len() {
            self.flush();
        }
        self.gathered[self.length..][..escape.text.len()].copy_from_slice(&escape.text);
        self.length += usize::from(escape.length);
    }

    /// Appends what may be anything, which seldom comes in long runs.
    fn put_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let [byte, after @ ..] = rest {
            if (0xc2..=0xf4).contains(byte) {
                // The beginning of a character, perhaps.
                let length = match byte {
                    ..=0xdf => 2,
                    ..=0xef => 3,
                    _ => 4,
                };
                if let Some((character, after)) = rest.split_at_checked(length)
                    && std::str::from_utf8(character).is_ok()
                {
                    self.put_text(character);
                    rest = after;
                    continue;
                }
            }
            self.put(ESCAPES[usize::from(*byte)]);
            rest = after;
        }
    }

    /// Appends UTF-8.
    fn put_text(&mut self, text: &[u8]) {
        let mut rest = text;
        while let [byte, after @ ..] = rest {
            let plain_length = rest
                .iter()
                .position(|byte| match byte {
                    0x80.. => *byte == SEPARATOR,
                    _ => ESCAPES[usize::from(*byte)].length > 1,
                })
                .unwrap_or(rest.len());
            if plain_length >= Self::RUN {
                self.flush();
                let (run, after) = rest.split_at(plain_length);
                self.entries.extend_from_slice(run);
                rest = after;
            } else if plain_length > 0 {
                let (run, after) = rest.split_at(plain_length);
                for byte in run {
                    self.put(plain(*byte));
                }
                rest = after;
            } else if let [SEPARATOR, 0x80, last @ (0xa8 | 0xa9), after @ ..] = rest {
                let last = DIGITS[usize::from(last & 15)];
                self.put(Escape {
                    text: [b'\\', b'u', b'2', b'0', b'2', last],
                    length: 6,
                });
                rest = after;
            } else {
                self.put(match byte {
                    &SEPARATOR => plain(SEPARATOR),
                    byte => ESCAPES[usize::from(*byte)],
                });
                rest = after;
            }
        }
    }

    fn flush(&mut self) {
        self.entries
            .extend_from_slice(&self.gathered[..self.length]);
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTE: Note<'_> = Note {
        attributes: "",
        time: "T",
    };

    fn entries(output: &[u8]) -> String {
        let mut entries = Vec::new();
        encode_entry(&mut entries, output, Stream::Stderr, NOTE);
        String::from_utf8(entries).unwrap()
    }

    #[test]
    fn text_is_escaped_as_docker_escapes_it() {
        for (output, log) in [
            (&b"plain\n"[..], r"plain\n"),
            (
                b"\"a\\b\"\r\t\0\x1f\x7f",
                "\\\"a\\\\b\\\"\\r\\u0009\\u0000\\u001f\x7f",
            ),
            (b"<a>&", r"\u003ca\u003e\u0026"),
            (
                "ä€\u{2028}\u{2029}\u{2027}🦀".as_bytes(),
                "ä€\\u2028\\u2029\u{2027}🦀",
            ),
            (b"\xff\xe2\x80 \xe2", r"\ufffd\ufffd\ufffd \ufffd"),
            (b"", ""),
        ] {
            let expected = format!(r#"{{"log":"{log}","stream":"stderr","time":"T"}}"#) + "\n";
            assert_eq!(entries(output), expected);
        }
    }

    #[test]
    fn long_lines_become_entries_of_sixteen_kibibytes() {
        let output = [vec![b'a'; 2 * LINE], b"b\n".to_vec()].concat();
        let (mut entries, mut partial) = (Vec::new(), Vec::new());
        for chunk in output.chunks(10_000) {
            encode(&mut entries, &mut partial, chunk, Stream::Stdout, NOTE);
        }
        assert!(partial.is_empty());
        let lengths: Vec<_> = String::from_utf8(entries)
            .unwrap()
            .lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                entry["log"].as_str().unwrap().len()
            })
            .collect();
        assert_eq!(lengths, [LINE, LINE, 2]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_json_reads(
            pieces in proptest::collection::vec(
                prop_oneof![
                    any::<String>().prop_map(String::into_bytes),
                    any::<Vec<u8>>(),
                    // The beginning of a character.
                    any::<char>().prop_map(|character| {
                        let bytes = character.to_string().into_bytes();
                        bytes[..bytes.len().div_ceil(2)].to_vec()
                    }),
                ],
                0..6,
            ),
        ) {
            let output = pieces.concat();
            let entry: serde_json::Value = serde_json::from_str(&entries(&output)).unwrap();
            let mut expected = String::new();
            for chunk in output.utf8_chunks() {
                expected.push_str(chunk.valid());
                expected.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            prop_assert_eq!(entry["log"].as_str(), Some(expected.as_str()));
        }

        #[test]
        fn how_output_is_cut_into_reads_changes_nothing(
            lines in proptest::collection::vec((any::<u8>(), 0_usize..40_000), 0..4),
            cut in 1_usize..50_000,
        ) {
            let output: Vec<u8> = lines
                .iter()
                .flat_map(|(byte, length)| {
                    let mut line = vec![*byte; *length];
                    line.push(b'\n');
                    line
                })
                .collect();
            let encode_in = |size: usize| {
                let (mut entries, mut partial) = (Vec::new(), Vec::new());
                for chunk in output.chunks(size) {
                    encode(&mut entries, &mut partial, chunk, Stream::Stdout, NOTE);
                }
                (entries, partial)
            };
            prop_assert!(encode_in(cut) == encode_in(usize::MAX));
        }
    }
}
