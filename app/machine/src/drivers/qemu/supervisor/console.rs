//! The guest's console, and QEMU's own messages: both go to bounded places.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use dctl_vmm::devices::console::{Console, LogError, PanicReport};

/// The most that is kept of QEMU's last line.
const MAX_LINE: usize = 400;

/// Takes what the guest prints to its log, and notices a panic.
pub(super) struct ConsoleLog {
    console: Console,
    panic: Arc<PanicReport>,
}

impl ConsoleLog {
    pub(super) fn new(path: &Path) -> Result<Self, LogError> {
        let console = Console::new(path)?;
        Ok(Self {
            panic: console.panic_report(),
            console,
        })
    }

    /// Reads once; false at the end.
    pub(super) fn read_from(&mut self, mut source: impl Read) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match source.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.console.print(buffer.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(error) => over(error),
        }
    }

    /// The line in which the kernel panicked, if it did.
    pub(super) fn panic_line(&self) -> Option<String> {
        self.panic.lines().into_iter().next()
    }
}

/// Passes on what QEMU says, and keeps the last line.
#[derive(Default)]
pub(super) struct Messages {
    last: String,
    line: Vec<u8>,
}

impl Messages {
    /// Reads once; false at the end.
    pub(super) fn read_from(
        &mut self,
        mut source: impl Read,
        mut sink: impl io::Write,
    ) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let text = match source.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) => return over(error),
        };
        // A log that cannot be written is no reason to stop the machine.
        let _ = sink.write_all(text);
        for byte in text {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).trim().to_owned();
                if !line.is_empty() {
                    self.last = line;
                }
                self.line.clear();
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
        Ok(true)
    }

    /// The last line, if there was any.
    pub(super) fn last(&self) -> Option<&str> {
        Some(self.last.as_str()).filter(|line| !line.is_empty())
    }
}

/// A peer that was killed looks like one that closed.
fn over(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(true),
        io::ErrorKind::ConnectionReset => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_pass_through_and_the_last_line_is_kept() {
        let mut messages = Messages::default();
        let mut log = Vec::new();
        assert_eq!(messages.last(), None);
        for text in [&b"one\ntw"[..], b"o\n", b"\n  \n"] {
            assert!(messages.read_from(text, &mut log).unwrap());
        }
        assert!(!messages.read_from(&b""[..], &mut log).unwrap());
        assert_eq!(log, b"one\ntwo\n\n  \n");
        assert_eq!(messages.last(), Some("two"));
    }

    #[test]
    fn a_panic_is_noticed_across_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut console = ConsoleLog::new(&path).unwrap();
        assert!(console.read_from(&b"fine\nKernel pan"[..]).unwrap());
        assert_eq!(console.panic_line(), None);
        assert!(console.read_from(&b"ic - not syncing: why\n"[..]).unwrap());
        assert!(console.panic_line().unwrap().contains("why"));
        assert!(std::fs::read(&path).unwrap().starts_with(b"fine\n"));
    }
}
