//! A registry that answers as it is told, right or wrong.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use crate::images::{ImageParts, MANIFEST_TYPE, digest};

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent before the connection is closed; all
    /// when there are no more.
    sent: usize,
    /// Whether it stops there, with the connection open.
    stalls: bool,
}

impl Answer {
    /// A good answer.
    pub fn good(media_type: &str, body: &[u8]) -> Self {
        Self {
            status: "200 OK",
            headers: vec![("Content-Type", media_type.to_owned())],
            body: body.to_vec(),
            sent: usize::MAX,
            stalls: false,
        }
    }

    /// A refusal.
    pub fn refusal(status: &'static str, body: &str) -> Self {
        Self {
            status,
            ..Self::good("application/json", body.as_bytes())
        }
    }

    /// The same with a further header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same, but its connection closes after `sent` bytes of the body.
    #[must_use]
    pub fn truncated(mut self, sent: usize) -> Self {
        self.sent = sent;
        self
    }

    /// The same, but nothing comes after `sent` bytes of the body.
    #[must_use]
    pub fn stalled(mut self, sent: usize) -> Self {
        self.sent = sent;
        self.stalls = true;
        self
    }
}

/// A registry on a free port of this machine.
#[derive(Debug)]
pub struct HostileRegistry {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    /// Paths as they are asked for.
    asked: mpsc::Receiver<String>,
}

impl HostileRegistry {
    /// One that answers `/v2/` and refuses everything else.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let answers = Arc::new(Mutex::new(HashMap::new()));
        let (sender, asked) = mpsc::channel();
        let shared = Arc::clone(&answers);
        // Ends with the process: nothing else holds it.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, sender) = (Arc::clone(&shared), sender.clone());
                // A client that goes away is no fault of the test.
                thread::spawn(move || serve(&stream, &answers, &sender));
            }
        });
        let registry = Self {
            address,
            answers,
            asked,
        };
        registry.set("/v2/", Answer::good("application/json", b"{}"));
        registry
    }

    /// The name of `repository` here.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Answers `path` with `answer` from now on.
    pub fn set(&self, path: &str, answer: Answer) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_owned(), answer);
    }

    /// Serves an image, as `repository:latest`, with nothing wrong yet.
    pub fn serve(&self, repository: &str, image: &ImageParts) {
        let manifest = Answer::good(MANIFEST_TYPE, &image.manifest)
            .with_header("Docker-Content-Digest", &digest(&image.manifest));
        for version in ["latest", &digest(&image.manifest)] {
            let path = format!("/v2/{repository}/manifests/{version}");
            self.set(&path, manifest.clone());
        }
        for blob in image.layers.iter().chain([&image.configuration]) {
            let answer = Answer::good("application/octet-stream", blob);
            self.set(&Self::blob_path(repository, blob), answer);
        }
    }

    /// Where `blob` is asked for.
    pub fn blob_path(repository: &str, blob: &[u8]) -> String {
        format!("/v2/{repository}/blobs/{}", digest(blob))
    }

    /// Waits until somebody asks for `path`.
    ///
    /// # Panics
    /// If nobody does in time.
    #[track_caller]
    pub fn wait_for_request(&self, path: &str, within: Duration) {
        loop {
            let asked = self.asked.recv_timeout(within);
            if asked.expect("somebody asks for the path") == path {
                return;
            }
        }
    }
}

fn serve(
    stream: &TcpStream,
    answers: &Mutex<HashMap<String, Answer>>,
    asked: &mpsc::Sender<String>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
        }
        let mut words = request.split_whitespace();
        let is_head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default().to_owned();
        let answer = answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&path)
            .cloned()
            .unwrap_or_else(|| Answer::refusal("404 Not Found", r#"{"errors":[]}"#));
        // The test may have ended and taken the receiver with it.
        let _ = asked.send(path);
        write!(output, "HTTP/1.1 {}\r\n", answer.status)?;
        for (name, value) in &answer.headers {
            write!(output, "{name}: {value}\r\n")?;
        }
        write!(output, "Content-Length: {}\r\n\r\n", answer.body.len())?;
        if is_head {
            continue;
        }
        let sent = answer.sent.min(answer.body.len());
        output.write_all(&answer.body[..sent])?;
        output.flush()?;
        if answer.stalls {
            // Until the other side has enough.
            io::copy(&mut reader.by_ref().take(u64::MAX), &mut io::sink())?;
        }
        if sent < answer.body.len() {
            return Ok(());
        }
    }
}
