//! Commands that must end in time.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long a command may take that boots a machine or moves an image. Software
/// CPUs on busy machines are slow; what hangs is found all the same.
pub const LONG: Duration = Duration::from_mins(4);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Its standard output as text, without blanks around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Its standard error as text, without blanks around it.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// Itself, if it ended with 0.
    ///
    /// # Panics
    /// If it did not, with all that it said.
    #[track_caller]
    pub fn success(self) -> Self {
        if !self.status.success() {
            panic!("{self}");
        }
        self
    }

    /// Itself, if it ended with `code` and its standard error holds `message`.
    ///
    /// # Panics
    /// If not, with all that it said.
    #[track_caller]
    pub fn fails_with(self, code: i32, message: &str) -> Self {
        if self.code() != code || !self.error().contains(message) {
            panic!("expected exit code {code} and {message:?}: {self}");
        }
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        write!(
            formatter,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code(),
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }
}

/// A command that runs. Killed when it goes out of scope.
#[derive(Debug)]
pub struct Running {
    child: Child,
    description: String,
    /// Pieces of both streams, as they come.
    pieces: mpsc::Receiver<Piece>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

#[derive(Debug)]
enum Piece {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

impl Running {
    /// Starts `command` with its three streams piped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let (sender, pieces) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        read_into(stdout, sender.clone(), Piece::Stdout);
        read_into(stderr, sender, Piece::Stderr);
        Self {
            child,
            description: describe(command),
            pieces,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input; `None` when it was taken before.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the process is there");
    }

    /// Waits until its standard output holds `text`.
    ///
    /// # Panics
    /// If it ends or the time is over before.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while !contains(&self.stdout, text.as_bytes()) {
            if !self.take_piece(deadline) {
                panic!(
                    "`{}` did not say {text:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.description,
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.stderr)
                );
            }
        }
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> Finished {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + within;
        while self.take_piece(deadline) {}
        // Its streams are at their end, or the time is over.
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                panic!(
                    "`{}` did not end within {within:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.description,
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.stderr)
                );
            }
            thread::sleep(Duration::from_millis(5));
        };
        Finished {
            command: self.description.clone(),
            status,
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
        }
    }

    /// Takes in what comes next; false at the end of both streams or the time.
    fn take_piece(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.pieces.recv_timeout(left) {
            Ok(Piece::Stdout(bytes)) => self.stdout.extend(bytes),
            Ok(Piece::Stderr(bytes)) => self.stderr.extend(bytes),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` with `input` on its standard input.
///
/// # Panics
/// If it cannot be started or does not end in time.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8], within: Duration) -> Finished {
    let mut running = Running::start(command);
    if let Some(mut stdin) = running.stdin() {
        let input = input.to_vec();
        // From a thread: it may say much before it reads all. It may also end
        // without reading, which is its own affair.
        thread::spawn(move || stdin.write_all(&input));
    }
    running.finish(within)
}

fn read_into(
    mut stream: impl Read + Send + 'static,
    sender: mpsc::Sender<Piece>,
    piece: fn(Vec<u8>) -> Piece,
) {
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                length => {
                    if sender.send(piece(buffer[..length].to_vec())).is_err() {
                        return Ok(());
                    }
                }
            }
        }
    });
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    format!(
        "{} {}",
        command.get_program().to_string_lossy(),
        words.join(" ")
    )
}

/// Whether `bytes` holds `part`.
pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
