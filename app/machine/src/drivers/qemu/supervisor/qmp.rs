//! The QEMU Machine Protocol: JSON lines, here over a socket that QEMU inherits.
//!
//! QEMU is the user's own program, yet what it sends is parsed as if it were not:
//! bounded, and without trust in its order.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest line; QEMU's greeting and answers here are far below.
const MAX_LINE: usize = 256 * 1024;
/// QEMU answers from its main loop.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One line of QEMU's.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Greeting,
    Return {
        id: Option<u64>,
        value: Value,
    },
    Error {
        id: Option<u64>,
        description: String,
    },
    Event {
        name: String,
        data: Value,
    },
}

/// What happened to the machine, of what is listened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It was shut down, or reset itself; QEMU's word for why.
    Shutdown { reason: String },
    /// Something else.
    Other,
}

/// A connection to QEMU's monitor.
pub(super) struct Qmp {
    stream: UnixStream,
    partial: Vec<u8>,
    messages: VecDeque<Message>,
    next_id: u64,
    greeted: bool,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            messages: VecDeque::new(),
            next_id: 0,
            greeted: false,
        }
    }

    /// Reads what has come; false when QEMU has closed the connection.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => return Ok(true),
                io::ErrorKind::ConnectionReset => return Ok(false),
                _ => return Err(error),
            },
        };
        self.feed(buffer.get(..length).unwrap_or_default())?;
        Ok(true)
    }

    /// The next thing that happened, of what was read.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        while let Some(message) = self.messages.pop_front() {
            match message {
                Message::Greeting => self.greeted = true,
                Message::Event { name, data } if name == "SHUTDOWN" => {
                    let reason = data.get("reason").and_then(Value::as_str);
                    return Some(Event::Shutdown {
                        reason: reason.unwrap_or_default().to_owned(),
                    });
                }
                Message::Event { .. } => return Some(Event::Other),
                // An answer that came too late for whoever asked.
                Message::Return { .. } | Message::Error { .. } => {}
            }
        }
        None
    }

    /// Whether QEMU has said its greeting: commands can be given.
    pub(super) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Gives a command and waits for its return. Events that come meanwhile stay
    /// for [`Self::next_event`].
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({"execute": command, "id": id});
        if let (Some(object), Value::Object(_)) = (line.as_object_mut(), &arguments) {
            object.insert("arguments".to_owned(), arguments);
        }
        self.stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        self.stream.write_all(format!("{line}\n").as_bytes())?;

        let deadline = Instant::now() + ANSWER_WITHIN;
        let answer = loop {
            if let Some(answer) = self.take_answer(id) {
                break answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.read() {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        };
        answer.map_err(|description| io::Error::other(format!("{command}: {description}")))
    }

    fn take_answer(&mut self, wanted: u64) -> Option<Result<Value, String>> {
        let at = self.messages.iter().position(|message| match message {
            Message::Return { id, .. } | Message::Error { id, .. } => *id == Some(wanted),
            Message::Greeting | Message::Event { .. } => false,
        })?;
        match self.messages.remove(at)? {
            Message::Return { value, .. } => Some(Ok(value)),
            Message::Error { description, .. } => Some(Err(description)),
            Message::Greeting | Message::Event { .. } => None,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = tail.get(1..).unwrap_or_default();
            self.extend(head)?;
            let line = std::mem::take(&mut self.partial);
            if !line.trim_ascii().is_empty() {
                self.messages.push_back(parse(&line)?);
            }
        }
        self.extend(bytes)
    }

    fn extend(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.partial.len() + bytes.len() > MAX_LINE {
            return Err(invalid("a line of QEMU's is too long"));
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What a line of the protocol can have; which of them says what it is.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<ErrorLine>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct ErrorLine {
    desc: String,
}

fn parse(line: &[u8]) -> io::Result<Message> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| invalid(&format!("a line of QEMU's is not understood: {error}")))?;
    let id = line.id.as_ref().and_then(Value::as_u64);
    match line {
        Line {
            greeting: Some(_), ..
        } => Ok(Message::Greeting),
        Line {
            error: Some(error), ..
        } => Ok(Message::Error {
            id,
            description: error.desc,
        }),
        Line {
            event: Some(name),
            data,
            ..
        } => Ok(Message::Event { name, data }),
        Line {
            value: Some(value), ..
        } => Ok(Message::Return { id, value }),
        _ => Err(invalid("a line of QEMU's says nothing")),
    }
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONVERSATION: &str = concat!(
        "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n",
        "{\"return\": {}, \"id\": 0}\r\n",
        "{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 1}\r\n",
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n",
    );

    fn qmp() -> (Qmp, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Qmp::new(ours), theirs)
    }

    #[test]
    fn answers_go_to_whoever_asked_and_events_stay() {
        let (mut qmp, mut qemu) = qmp();
        qemu.write_all(CONVERSATION.as_bytes()).unwrap();
        assert!(qmp.read().unwrap());
        assert_eq!(qmp.execute("a", Value::Null).unwrap(), json!({}));
        let error = qmp.execute("b", json!({"x": 1})).unwrap_err();
        assert_eq!(error.to_string(), "b: no");
        assert_eq!(qmp.next_event(), Some(Event::Other));
        assert!(qmp.greeted());
        assert_eq!(
            qmp.next_event(),
            Some(Event::Shutdown {
                reason: "guest-reset".into()
            })
        );
        assert_eq!(qmp.next_event(), None);
        let mut asked = [0; 1024];
        let length = qemu.read(&mut asked).unwrap();
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        let lines: Vec<Value> = asked
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0], json!({"execute": "a", "id": 0}));
        assert_eq!(
            lines[1],
            json!({"execute": "b", "id": 1, "arguments": {"x": 1}})
        );
    }

    #[test]
    fn an_end_instead_of_an_answer_is_an_error() {
        let (mut qmp, qemu) = qmp();
        qemu.shutdown(std::net::Shutdown::Write).unwrap();
        let error = qmp.execute("a", Value::Null).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (mut qmp, _qemu) = qmp();
        qmp.feed(&vec![b'x'; MAX_LINE]).unwrap();
        assert!(qmp.feed(b"x").is_err());
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_reads_the_same(cut in 0..CONVERSATION.len()) {
            let (mut whole, _a) = qmp();
            whole.feed(CONVERSATION.as_bytes()).unwrap();
            let (mut pieces, _b) = qmp();
            pieces.feed(&CONVERSATION.as_bytes()[..cut]).unwrap();
            pieces.feed(&CONVERSATION.as_bytes()[cut..]).unwrap();
            prop_assert_eq!(pieces.messages, whole.messages);
        }

        #[test]
        fn nothing_that_is_sent_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut qmp, _qemu) = qmp();
            if qmp.feed(&bytes).is_ok() {
                while qmp.next_event().is_some() {}
            }
        }
    }
}
