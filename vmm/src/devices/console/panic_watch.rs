//! Watches console output for a Linux kernel panic and keeps what it says.

use std::sync::{Arc, Mutex, PoisonError};

/// What every panic message begins with (`kernel/panic.c`).
const MARK: &str = "Kernel panic - not syncing";

/// The longest line that is kept; the rest of a longer one is not looked at.
const MAX_LINE: usize = 1024;

/// The most lines that are kept, the panic's own included.
const MAX_LINES: usize = 32;

/// A kernel panic, if there was one.
#[derive(Debug, Default)]
pub struct PanicReport {
    lines: Mutex<Vec<String>>,
}

impl PanicReport {
    /// Whether the guest's kernel has panicked.
    pub fn panicked(&self) -> bool {
        !self.lock().is_empty()
    }

    /// The panic's line and those printed after it so far; control characters are
    /// replaced. Empty when there was none.
    pub fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts output into lines, wherever writes end.
#[derive(Debug, Default)]
pub(super) struct PanicWatch {
    line: Vec<u8>,
    /// The line that is being printed is in the report already.
    line_reported: bool,
    report: Arc<PanicReport>,
}

impl PanicWatch {
    pub(super) fn report(&self) -> Arc<PanicReport> {
        Arc::clone(&self.report)
    }

    pub(super) fn observe(&mut self, text: &[u8]) {
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = match piece {
                [content @ .., b'\n'] => (content, true),
                content => (content, false),
            };
            let room = MAX_LINE - self.line.len().min(MAX_LINE);
            self.line.extend(content.iter().take(room));
            // A panic counts from its first words on: the guest may be gone before
            // the line ends.
            self.report_line();
            if ended {
                self.line.clear();
                self.line_reported = false;
            }
        }
    }

    fn report_line(&mut self) {
        let mut lines = self.report.lock();
        if lines.is_empty() && !contains(&self.line, MARK.as_bytes()) {
            return;
        }
        let text = printable(&self.line);
        if self.line_reported {
            if let Some(last) = lines.last_mut() {
                *last = text;
            }
        } else if lines.len() < MAX_LINES && !text.is_empty() {
            lines.push(text);
            self.line_reported = true;
        }
    }
}

fn contains(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|window| window == mark)
}

fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &str = "[    0.1] Linux version 6.12\r\n\
        [    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n\
        [    1.0] CPU: 0 UID: 0\x1b[31m PID: 1\r\n\r\n\
        [    1.1] Rebooting";

    #[test]
    fn ordinary_output_is_no_panic() {
        let mut watch = PanicWatch::default();
        watch.observe(b"Kernel panic - not\nsyncing\nnot syncing\n");
        assert!(!watch.report().panicked());
        assert!(watch.report().lines().is_empty());
    }

    proptest! {
        /// However the output is cut into writes, the report is the same.
        #[test]
        fn found_across_writes(cuts in prop::collection::vec(0..OUTPUT.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(OUTPUT.len());
            let mut watch = PanicWatch::default();
            let mut from = 0;
            for to in cuts {
                watch.observe(&OUTPUT.as_bytes()[from..to]);
                from = to;
            }
            let report = watch.report();
            prop_assert!(report.panicked());
            prop_assert_eq!(report.lines(), vec![
                "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs".to_owned(),
                "[    1.0] CPU: 0 UID: 0\u{fffd}[31m PID: 1".to_owned(),
                "[    1.1] Rebooting".to_owned(),
            ]);
        }

        #[test]
        fn bounded(text in prop::collection::vec(any::<u8>(), 0..5000), times in 1..20_usize) {
            let mut watch = PanicWatch::default();
            watch.observe(MARK.as_bytes());
            for _ in 0..times {
                watch.observe(&text);
            }
            prop_assert!(watch.line.len() <= MAX_LINE);
            prop_assert!(watch.report().lines().len() <= MAX_LINES);
        }
    }
}
