//! Cuts a byte stream into lines of bounded length.

use super::MAX_LINE;

/// A line longer than [`MAX_LINE`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

/// Holds what has come of a line that is not complete yet, and no more than
/// [`MAX_LINE`] bytes of it.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the bytes that came next and calls `line` with each line that they
    /// complete, without its line break. It stops early when `line` returns false.
    ///
    /// # Errors
    /// [`LineTooLong`]: the stream is of no use any more.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), LineTooLong> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = tail.get(1..).unwrap_or_default();
            if self.partial.len() + head.len() > MAX_LINE {
                return Err(LineTooLong);
            }
            let go_on = if self.partial.is_empty() {
                line(head)
            } else {
                self.partial.extend_from_slice(head);
                let go_on = line(&self.partial);
                self.partial.clear();
                go_on
            };
            if !go_on {
                return Ok(());
            }
        }
        if self.partial.len() + bytes.len() > MAX_LINE {
            return Err(LineTooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a stream is cut into pieces, its lines are the same.
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            lines in proptest::collection::vec("[a-z]{0,40}", 0..20),
            cuts in proptest::collection::vec(1_usize..50, 1..40),
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let mut seen = Vec::new();
            let mut splitter = Lines::default();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, next) = rest.split_at((*cut).min(rest.len()));
                rest = next;
                splitter.feed(piece, |line| {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                    true
                }).unwrap();
            }
            prop_assert_eq!(seen, lines);
        }

        /// No more than the longest line is ever held.
        #[test]
        fn memory_is_bounded(pieces in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..3000), 0..8)) {
            let mut splitter = Lines::default();
            for piece in pieces {
                if splitter.feed(&piece, |line| { assert!(line.len() <= MAX_LINE); true }).is_err() {
                    break;
                }
                prop_assert!(splitter.partial.len() <= MAX_LINE);
            }
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_allowed_and_no_longer() {
        let mut longest = vec![b'x'; MAX_LINE];
        assert_eq!(Lines::default().feed(&longest, |_| true), Ok(()));
        longest.push(b'\n');
        let mut lines = 0;
        Lines::default()
            .feed(&longest, |_| {
                lines += 1;
                true
            })
            .unwrap();
        assert_eq!(lines, 1);
        assert_eq!(
            Lines::default().feed(&vec![b'x'; MAX_LINE + 1], |_| true),
            Err(LineTooLong)
        );
    }
}
