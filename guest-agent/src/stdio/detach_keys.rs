//! The key sequence that detaches a user from a terminal.

use guest_protocol::AgentError;

use crate::error::Result;

/// Docker's default: ctrl-p, ctrl-q.
const DEFAULT: &[u8] = &[0x10, 0x11];

/// Finds the sequence in what a user types.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many keys of the sequence were typed and held back.
    matched: usize,
}

impl DetachKeys {
    /// Reads Docker's syntax: single characters, `ctrl-` and a letter or one of
    /// `@[\]^_`, or `DEL`, with commas between. Empty for the default.
    ///
    /// # Errors
    /// When a key is not one of these.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let keys = if text.is_empty() {
            DEFAULT.to_vec()
        } else {
            text.split(',')
                .map(|key| {
                    parse_key(key).ok_or_else(|| {
                        AgentError::invalid(format!("Invalid detach keys ({text}) provided"))
                    })
                })
                .collect::<Result<_>>()?
        };
        Ok(Self { keys, matched: 0 })
    }

    /// Appends to `passed` what of `typed` goes on to the process. True when the
    /// sequence is complete; what follows it is dropped.
    pub(crate) fn filter(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        for &byte in typed {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0] && self.keys.len() > 1);
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        false
    }
}

fn parse_key(key: &str) -> Option<u8> {
    if key.eq_ignore_ascii_case("del") {
        return Some(127);
    }
    if let Some(control) = key.strip_prefix("ctrl-") {
        return match control.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [b'@'] => Some(0),
            [sign @ b'['..=b'_'] => Some(sign - b'[' + 27),
            _ => None,
        };
    }
    match key.as_bytes() {
        [byte] => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_sequence_detaches_across_reads() {
        let mut keys = DetachKeys::parse("").unwrap();
        let mut passed = Vec::new();
        assert!(!keys.filter(b"ls\x10", &mut passed));
        assert_eq!(passed, b"ls");
        assert!(keys.filter(b"\x11rest", &mut passed));
        assert_eq!(passed, b"ls");
    }

    #[test]
    fn a_broken_off_sequence_is_passed_on() {
        let mut keys = DetachKeys::parse("a,b,c").unwrap();
        let mut passed = Vec::new();
        assert!(!keys.filter(b"abxaabd", &mut passed));
        assert_eq!(passed, b"abxaabd");
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        assert_eq!(
            DetachKeys::parse("ctrl-a,x,DEL,ctrl-@,ctrl-_")
                .unwrap()
                .keys,
            [1, b'x', 127, 0, 31]
        );
        assert!(DetachKeys::parse("ctrl-ä").is_err());
        assert!(DetachKeys::parse("ctrl-p,").is_err());
    }

    proptest! {
        #[test]
        fn without_the_first_key_all_passes(typed in proptest::collection::vec(0x20u8.., 0..200)) {
            let mut keys = DetachKeys::parse("").unwrap();
            let mut passed = Vec::new();
            for part in typed.chunks(7) {
                prop_assert!(!keys.filter(part, &mut passed));
            }
            prop_assert_eq!(passed, typed);
        }
    }
}
