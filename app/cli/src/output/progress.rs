//! Progress of a pull: a line for each layer, redrawn in place on a terminal;
//! plain lines elsewhere.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
};

use serde::Deserialize;

use super::human;

/// One message of the API's progress stream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    /// Which layer, or the tag.
    pub(crate) id: String,
    /// What happens to it.
    pub(crate) status: String,
    /// Free text, instead of all other fields.
    pub(crate) stream: String,
    /// How far it is.
    #[serde(rename = "progressDetail")]
    pub(crate) progress: Option<Detail>,
    /// Why it failed.
    #[serde(rename = "errorDetail")]
    pub(crate) error_detail: Option<ErrorDetail>,
    /// The same, in an older field.
    pub(crate) error: String,
}

/// How far something is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Detail {
    /// Bytes so far.
    pub(crate) current: u64,
    /// Bytes in all; zero when nobody knows.
    pub(crate) total: u64,
}

/// Why something failed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorDetail {
    /// In words.
    pub(crate) message: String,
}

impl Message {
    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.error_detail {
            Some(detail) if !detail.message.is_empty() => Some(&detail.message),
            _ if !self.error.is_empty() => Some(&self.error),
            _ => None,
        }
    }
}

/// Writes messages as they come.
#[derive(Debug)]
pub(crate) struct Progress<W> {
    output: W,
    /// Width of the terminal; `None` for plain lines.
    width: Option<usize>,
    /// Which line each id has, counted from the first.
    lines: HashMap<String, usize>,
}

impl<W: Write> Progress<W> {
    /// For a terminal of `width` columns, or for plain lines.
    pub(crate) fn new(output: W, width: Option<usize>) -> Self {
        Self {
            output,
            width,
            lines: HashMap::new(),
        }
    }

    /// Shows one message.
    pub(crate) fn show(&mut self, message: &Message) -> io::Result<()> {
        if !message.stream.is_empty() {
            write!(self.output, "{}", human::printable(&message.stream))?;
            return self.output.flush();
        }
        let id = human::printable(&message.id);
        let status = human::printable(&message.status);
        let detail = message.progress.filter(|detail| detail.current > 0);
        let Some(width) = self.width else {
            if detail.is_some() {
                return Ok(());
            }
            return if id.is_empty() {
                writeln!(self.output, "{status}")
            } else {
                writeln!(self.output, "{id}: {status}")
            };
        };
        if id.is_empty() {
            // What has no line of its own ends the block of lines.
            self.lines.clear();
            writeln!(self.output, "{status}")?;
            return self.output.flush();
        }
        let mut line = format!("{id}: {status}");
        if let Some(detail) = detail {
            let room = width.saturating_sub(line.chars().count() + 1);
            let _ = write!(line, " {}", bar(detail, room));
        }
        // A line that wraps would be counted as one.
        let line: String = line.chars().take(width.saturating_sub(1)).collect();
        let count = self.lines.len();
        if let Some(index) = self.lines.get(&id) {
            let up = count - index;
            write!(self.output, "\x1b[{up}A\x1b[2K\r{line}\x1b[{up}B\r")?;
        } else {
            self.lines.insert(id, count);
            writeln!(self.output, "\x1b[2K\r{line}")?;
        }
        self.output.flush()
    }
}

/// `[====>    ]  1.2MB/3.4MB`, without the bar when there is no room.
fn bar(detail: Detail, room: usize) -> String {
    const WIDTH: usize = 50;
    let current = human::size(detail.current, 4);
    if detail.total == 0 || detail.current > detail.total {
        return current;
    }
    let numbers = format!("{current:>8}/{}", human::size(detail.total, 4));
    if room < WIDTH + 4 + numbers.len() {
        return numbers;
    }
    let share = u128::from(detail.current) * WIDTH as u128 / u128::from(detail.total);
    let done = usize::try_from(share).unwrap_or(WIDTH).min(WIDTH);
    let head = if done < WIDTH { ">" } else { "" };
    let open = WIDTH.saturating_sub(done + head.len());
    format!("[{}{head}{}] {numbers}", "=".repeat(done), " ".repeat(open))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(id: &str, status: &str, current: u64, total: u64) -> Message {
        Message {
            id: id.into(),
            status: status.into(),
            progress: (total > 0).then_some(Detail { current, total }),
            ..Message::default()
        }
    }

    fn show(width: Option<usize>, messages: &[Message]) -> String {
        let mut progress = Progress::new(Vec::new(), width);
        for message in messages {
            progress.show(message).unwrap();
        }
        String::from_utf8(progress.output).unwrap()
    }

    #[test]
    fn plain_lines_leave_out_the_numbers() {
        let messages = [
            message("latest", "Pulling from library/busybox", 0, 0),
            message("abc", "Downloading", 5, 10),
            message("abc", "Pull complete", 0, 0),
            message("", "Status: Downloaded", 0, 0),
        ];
        assert_eq!(
            show(None, &messages),
            "latest: Pulling from library/busybox\nabc: Pull complete\nStatus: Downloaded\n"
        );
    }

    #[test]
    fn lines_on_a_terminal_are_redrawn() {
        let messages = [
            message("a", "Waiting", 0, 0),
            message("b", "Waiting", 0, 0),
            message("a", "Downloading", 5, 10),
        ];
        let bar = format!("[{}>{}]       5B/10B", "=".repeat(25), " ".repeat(24));
        assert_eq!(
            show(Some(100), &messages),
            format!(
                "\x1b[2K\ra: Waiting\n\x1b[2K\rb: Waiting\n\x1b[2A\x1b[2K\ra: Downloading {bar}\x1b[2B\r"
            )
        );
    }

    #[test]
    fn failures_are_found_in_both_fields() {
        let old: Message = serde_json::from_str(r#"{"error":"x"}"#).unwrap();
        assert_eq!(old.failure(), Some("x"));
        let both: Message =
            serde_json::from_str(r#"{"errorDetail":{"message":"y"},"error":"x"}"#).unwrap();
        assert_eq!(both.failure(), Some("y"));
        assert_eq!(Message::default().failure(), None);
    }

    proptest! {
        #[test]
        fn any_numbers_fit(current in any::<u64>(), total in any::<u64>(), width in 0_usize..120) {
            let text = show(Some(width), &[message("id", "Downloading", current, total)]);
            let line = text.trim_start_matches("\x1b[2K\r").trim_end();
            prop_assert!(line.chars().count() <= width.max(1));
        }
    }
}
