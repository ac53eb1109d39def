//! Requests to the engine's API, as simple as a client can be, so that what is
//! measured is the engine.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

use crate::command::LONG;

/// A connection that is kept from request to request.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Itself, if the status says that all is well.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "status {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self
    }
}

impl Connection {
    /// Connects to an engine's socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LONG))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Makes a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails, or the answer is no HTTP.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.send(method, path, "", body)?;
        let (status, length) = self.head()?;
        let body = match length {
            _ if method == "HEAD" || status == 204 || status == 304 => Vec::new(),
            Length::Known(length) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                body
            }
            Length::Chunked => self.chunks()?,
            Length::ToTheEnd => {
                let mut body = Vec::new();
                self.stream.read_to_end(&mut body)?;
                body
            }
        };
        Ok(Answer { status, body })
    }

    /// Makes a request whose answer is the connection itself.
    ///
    /// # Errors
    /// When the connection fails, or is not given over.
    pub fn hijack(mut self, path: &str, body: &str) -> io::Result<BufReader<UnixStream>> {
        self.send(
            "POST",
            path,
            "Connection: Upgrade\r\nUpgrade: tcp\r\n",
            body,
        )?;
        match self.head()? {
            (101, _) => Ok(self.stream),
            (status, _) => Err(io::Error::other(format!("{path}: status {status}"))),
        }
    }

    /// Sends a request, and reads the head of its answer, whose body is still to come.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn begin(&mut self, method: &str, path: &str, body: &str) -> io::Result<u16> {
        self.send(method, path, "", body)?;
        Ok(self.head()?.0)
    }

    fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<()> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn head(&mut self) -> io::Result<(u16, Length)> {
        let malformed = |line: &str| io::Error::other(format!("no HTTP: {line:?}"));
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| malformed(&line))?;
        let mut length = Length::ToTheEnd;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, length));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let value = value.trim().parse().map_err(|_| malformed(&line))?;
                    length = Length::Known(value);
                }
                "transfer-encoding" => length = Length::Chunked,
                _ => {}
            }
        }
    }

    /// The body of an answer that [`Connection::begin`] has begun, in chunks.
    ///
    /// # Errors
    /// When the connection fails, or the body is no chunks.
    pub fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = u64::from_str_radix(&line, 16)
                .map_err(|_| io::Error::other(format!("no chunk: {line:?}")))?;
            let read = (&mut self.stream).take(length).read_to_end(&mut body)?;
            if read as u64 != length || !self.line()?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

/// How an answer's body ends.
enum Length {
    Known(usize),
    Chunked,
    ToTheEnd,
}
