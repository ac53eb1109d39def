//! HTTP/1.1 on a unix socket, with nothing that hides what comes over it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// How long an answer may pause, and a stream go on.
const PAUSE: Duration = Duration::from_mins(3);
/// The most that is read of an answer, in bytes.
const MAX_BODY: u64 = 64 << 20;

/// How much of an answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Until {
    /// All of it.
    End,
    /// Its head alone: the body would not end.
    Head,
    /// So many lines of the body.
    Lines(usize),
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// What is sent on the connection after it was upgraded, before the direction is
    /// closed.
    pub(super) input: Vec<u8>,
    pub(super) until: Until,
}

impl Request {
    pub(super) fn new(method: &'static str, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            input: Vec::new(),
            until: Until::End,
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Raw {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends a request on a connection of its own.
pub(super) fn exchange(socket: &Path, request: &Request) -> io::Result<Raw> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PAUSE))?;
    stream.set_write_timeout(Some(PAUSE))?;
    let has = |wanted: &str| {
        let mut names = request.headers.iter().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let upgrades = has("upgrade");
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: docker\r\n",
        request.method, request.path
    );
    for (name, value) in &request.headers {
        head.extend([name.as_str(), ": ", value, "\r\n"]);
    }
    if !upgrades {
        head.push_str("Connection: close\r\n");
    }
    if request.method != "GET" && request.method != "HEAD" {
        let length = request.body.len().to_string();
        head.extend(["Content-Length: ", &length, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&request.body);
    stream.write_all(&bytes)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (status, headers) = read_head(&mut reader)?;
    let mut raw = Raw {
        status,
        headers,
        body: Vec::new(),
    };
    if request.method == "HEAD" || status == 204 || status == 304 || request.until == Until::Head {
        return Ok(raw);
    }
    if status == 101 {
        stream.write_all(&request.input)?;
        // A websocket has an end of its own.
        if raw.header("upgrade") != Some("websocket") {
            stream.shutdown(Shutdown::Write)?;
        }
        raw.body = read_to_end(reader)?;
        return Ok(raw);
    }
    let length = raw.header("content-length").map(str::to_owned);
    let chunked = raw.header("transfer-encoding") == Some("chunked");
    let mut body: Box<dyn Read> = match length {
        Some(length) => {
            let length: u64 = length.parse().map_err(io::Error::other)?;
            Box::new(reader.take(length))
        }
        None if chunked => Box::new(Chunks::new(reader)),
        None => Box::new(reader),
    };
    raw.body = match request.until {
        Until::Lines(count) => {
            let mut body = BufReader::new(body);
            let mut lines = Vec::new();
            for _ in 0..count {
                body.read_until(b'\n', &mut lines)?;
            }
            lines
        }
        _ => read_to_end(&mut body)?,
    };
    Ok(raw)
}

/// Reads to the end, which must come in time: a stream may go on for ever.
fn read_to_end(from: impl Read) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PAUSE;
    let (mut from, mut bytes) = (from.take(MAX_BODY), Vec::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        let Some(piece @ [_, ..]) = buffer.get(..length) else {
            return Ok(bytes);
        };
        bytes.extend_from_slice(piece);
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Status and headers.
fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The content of a body in chunks.
struct Chunks<R> {
    reader: R,
    /// What is left of the current chunk.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Chunks<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            left: 0,
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let line = read_line(&mut self.reader)?;
            self.left = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted) else {
            return Ok(0);
        };
        let length = self.reader.read(buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        if self.left == 0 {
            read_line(&mut self.reader)?;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let mut body = String::new();
        Chunks::new(&b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..])
            .read_to_string(&mut body)
            .expect("whole");
        assert_eq!(body, "abcde");
        let cut = Chunks::new(&b"3\r\nab"[..]).read_to_string(&mut body);
        assert!(cut.is_err());
    }

    #[test]
    fn a_head_is_read() {
        let head = b"HTTP/1.1 404 Not Found\r\nContent-Type: a\r\nX-Y:  z \r\n\r\nrest";
        let (status, headers) = read_head(&mut &head[..]).expect("whole");
        assert_eq!(status, 404);
        assert_eq!(headers[1], ("x-y".to_owned(), "z".to_owned()));
    }
}
