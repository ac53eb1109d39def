//! Detach keys: `ctrl-p,ctrl-q`, and the filter that looks for them in what is
//! typed.

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    /// As the user wrote it.
    text: String,
    /// The bytes that a terminal sends for it.
    keys: Vec<u8>,
}

impl Default for DetachKeys {
    /// `ctrl-p,ctrl-q`.
    fn default() -> Self {
        Self {
            text: "ctrl-p,ctrl-q".into(),
            keys: vec![0x10, 0x11],
        }
    }
}

impl DetachKeys {
    /// Parses keys that are joined by commas: a character, or `ctrl-` and one of
    /// `a` to `z`, `@`, `[`, `\`, `]`, `^`, `_`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys = text
            .split(',')
            .map(|key| {
                Self::key(key).ok_or_else(|| {
                    format!("invalid detach keys ({text}): unknown key '{key}': use a character or ctrl-<a-z, @, [, \\, ], ^, _>")
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            keys,
        })
    }

    /// As the user wrote it, for the engine.
    pub(crate) fn as_text(&self) -> &str {
        &self.text
    }

    fn key(key: &str) -> Option<u8> {
        if let [single] = key.as_bytes() {
            return Some(*single);
        }
        let [control] = key.strip_prefix("ctrl-")?.as_bytes() else {
            return None;
        };
        match control {
            b'a'..=b'z' => Some(control - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        }
    }
}

/// What became of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Send these on.
    Forward(Vec<u8>),
    /// Send these on, then detach.
    Detach(Vec<u8>),
}

/// Looks for detach keys. Bytes that may begin the sequence are held back until
/// it is clear that they don't.
#[derive(Debug)]
pub(crate) struct DetachFilter {
    keys: DetachKeys,
    matched: usize,
}

impl DetachFilter {
    /// A filter for `keys`.
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes what was typed.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> Typed {
        let keys = &self.keys.keys;
        let mut forward = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            // On a mismatch, the longest end of what was seen that still begins
            // the sequence stays held back; the rest goes on.
            let mut held = keys[..self.matched].to_vec();
            held.push(byte);
            let kept = (0..=held.len().min(keys.len()))
                .rev()
                .find(|&length| held.ends_with(&keys[..length]))
                .unwrap_or(0);
            forward.extend_from_slice(&held[..held.len() - kept]);
            self.matched = kept;
            if self.matched == keys.len() {
                self.matched = 0;
                return Typed::Detach(forward);
            }
        }
        Typed::Forward(forward)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_parsed() {
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys::default());
        assert_eq!(
            DetachKeys::parse("ctrl-p,ctrl-q").unwrap(),
            DetachKeys::default()
        );
        assert_eq!(
            DetachKeys::parse("a,ctrl-@,ctrl-_").unwrap().keys,
            [b'a', 0, 31]
        );
        assert!(DetachKeys::parse("ctrl-").is_err());
        assert!(DetachKeys::parse("ctrl-A").is_err());
        assert!(DetachKeys::parse("ab").is_err());
        assert!(DetachKeys::parse("a,,b").is_err());
    }

    #[test]
    fn a_sequence_in_two_reads_detaches() {
        let mut filter = DetachFilter::new(DetachKeys::default());
        assert_eq!(filter.filter(b"ls\x10"), Typed::Forward(b"ls".to_vec()));
        assert_eq!(filter.filter(b"\x11x"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn a_broken_sequence_is_sent_on() {
        let mut filter = DetachFilter::new(DetachKeys::default());
        assert_eq!(filter.filter(b"\x10"), Typed::Forward(Vec::new()));
        assert_eq!(filter.filter(b"\x10"), Typed::Forward(vec![0x10]));
        assert_eq!(filter.filter(b"a"), Typed::Forward(vec![0x10, b'a']));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_first_sequence_is_found(
            keys in proptest::collection::vec(0_u8..3, 1..4),
            typed in proptest::collection::vec(0_u8..3, 0..40),
            size in 1_usize..5,
        ) {
            let first = typed
                .windows(keys.len())
                .position(|window| window == keys);
            let mut filter = DetachFilter::new(DetachKeys {
                text: String::new(),
                keys: keys.clone(),
            });
            let mut forwarded = Vec::new();
            let mut detached = false;
            for chunk in typed.chunks(size) {
                match filter.filter(chunk) {
                    Typed::Forward(bytes) => forwarded.extend(bytes),
                    Typed::Detach(bytes) => {
                        forwarded.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            if let Some(position) = first {
                prop_assert!(detached);
                prop_assert_eq!(&forwarded[..], &typed[..position]);
            } else {
                prop_assert!(!detached);
                prop_assert!(typed.starts_with(&forwarded));
                prop_assert!(typed.len() - forwarded.len() < keys.len());
            }
        }
    }
}
