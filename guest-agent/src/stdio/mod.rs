//! The stdio of a container's or exec's process, from its start to its end.
//!
//! One [`Stdio`] serves one run of one process. It owns the agent's ends of the
//! pipes or the terminal's master ([`ends`]), pumps what the process writes into the log and
//! to every attached connection, and brings attached connections' bytes to its
//! stdin. Containers and execs use it; it knows neither.
//!
//! Backpressure is Docker's: an attached connection that is slow to read has a
//! bounded queue, and when that is full the process's writes block. Nothing is
//! dropped.

pub(crate) mod console;
pub(crate) mod detach_keys;
mod ends;
pub(crate) mod file;
mod json_entry;
mod json_line;
pub(crate) mod json_log;
pub(crate) mod log_files;
pub(crate) mod log_reader;
mod output;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::Instant,
};

pub(crate) use self::ends::{AgentEnds, ProcessEnds, null, open_terminal};
use self::{
    detach_keys::DetachKeys,
    ends::set_size,
    file::AsyncFile,
    json_log::LogWriter,
    output::{Output, PAUSE, Pace},
};
use crate::hangup::Hangup;

/// Bytes read from a process at once.
const CHUNK: usize = 64 * 1024;

/// A chunk up to this long is copied for who is attached, so that the buffer that was
/// read into serves again.
const SMALL: usize = CHUNK / 4;

/// Chunks that wait for one attached connection.
const QUEUE: usize = 8;

/// How long the output of a process that ended may be open and silent.
const LINGER: Duration = Duration::from_secs(2);

/// How long a process may take for what a host typed that is gone.
const LEFTOVER: Duration = Duration::from_secs(5);

/// Bytes of the header before each chunk of a stream that is no terminal's.
const HEADER: usize = 8;

/// One of a process's output streams; the values are those of Docker's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or the terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// Which streams a connection joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Carry stdin.
    pub(crate) stdin: bool,
    /// Carry stdout.
    pub(crate) stdout: bool,
    /// Carry stderr.
    pub(crate) stderr: bool,
}

/// How an attached connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachEnd {
    /// The process's output ended.
    Output,
    /// The user typed the detach keys.
    Detached,
    /// The connection failed.
    Gone,
}

/// How a process's stdio is to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// A terminal rather than pipes.
    pub(crate) tty: bool,
    /// Stdin can be attached; otherwise it is `/dev/null`.
    pub(crate) open_stdin: bool,
    /// Stdin ends with the first connection that was attached to it.
    pub(crate) stdin_once: bool,
}

/// The stdio of one run.
#[derive(Debug)]
pub(crate) struct Stdio {
    shape: Shape,
    state: Mutex<State>,
    /// `None` until the process is there; the file inside goes when stdin ends.
    stdin: watch::Sender<Option<Arc<tokio::sync::Mutex<Option<AsyncFile>>>>>,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    attached: Vec<Attached>,
    log: Option<LogWriter>,
    terminal: Option<AsyncFile>,
    size: Option<(u16, u16)>,
    pumps: usize,
    /// Pumps that wait for an attached connection to take a chunk.
    delivering: usize,
}

#[derive(Debug)]
struct Attached {
    streams: Streams,
    queue: mpsc::Sender<Bytes>,
}

/// A connection's place among the readers of a process's output.
#[derive(Debug)]
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Bytes>,
    streams: Streams,
    /// What is written comes in frames.
    framed: bool,
}

impl Subscription {
    /// The same, with or without frames; as it came, a terminal's output has none.
    pub(crate) fn framed(self, framed: bool) -> Self {
        Self { framed, ..self }
    }

    /// What the process writes next; `None` when its output has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.queue.recv().await?;
        Some(chunk.slice(HEADER..))
    }
}

impl Stdio {
    /// Stdio for a process that is yet to be started. Connections can attach
    /// already.
    pub(crate) fn new(shape: Shape) -> Arc<Self> {
        Arc::new(Self {
            shape,
            state: Mutex::default(),
            stdin: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        })
    }

    /// Whether it is a terminal.
    pub(crate) fn tty(&self) -> bool {
        self.shape.tty
    }

    /// Starts to carry bytes, with `log` as one of the readers.
    pub(crate) fn start(self: &Arc<Self>, ends: AgentEnds, log: Option<LogWriter>) {
        let AgentEnds {
            stdin,
            outputs,
            terminal,
        } = ends;
        {
            let mut state = self.lock();
            state.log = log;
            state.pumps = outputs.len();
            if let (Some(terminal), Some((height, width))) = (&terminal, state.size) {
                set_size(terminal, height, width);
            }
            state.terminal = terminal;
        }
        self.stdin
            .send_replace(Some(Arc::new(tokio::sync::Mutex::new(stdin))));
        for (stream, source) in outputs {
            let stdio = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = stdio.pump(source, stream).await {
                    tracing::warn!("reading a process's output failed: {error}");
                }
                stdio.pump_ended();
            });
        }
    }

    /// Ends it without a process: the start failed, or there will be none.
    /// Attached connections end.
    pub(crate) fn cancel(&self) {
        self.end(&mut self.lock());
    }

    /// Waits until all output was read and handed on.
    pub(crate) async fn ended(&self) {
        // An error means that the sender is gone, and with it the process.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// As [`ended`](Self::ended), for a process that has ended: gives up when what
    /// it left behind keeps its output open but writes nothing for
    /// [`LINGER`].
    pub(crate) async fn drain(&self) {
        while tokio::time::timeout(LINGER, self.ended()).await.is_err() {
            if self.lock().delivering == 0 {
                self.cancel();
            }
        }
    }

    /// Sets the terminal's size now, or at the start when there is none yet.
    pub(crate) fn resize(&self, height: u16, width: u16) {
        let mut state = self.lock();
        state.size = Some((height, width));
        if let Some(terminal) = &state.terminal {
            set_size(terminal, height, width);
        }
    }

    /// Takes a place among the readers: what the process writes from now on reaches it.
    pub(crate) fn subscribe(&self, streams: Streams) -> Subscription {
        self.subscribe_after(streams, |_| ()).1
    }

    /// As [`subscribe`](Self::subscribe), after `look` looked at the log: no byte is in
    /// both, none is lost between them.
    pub(crate) fn subscribe_after<T>(
        &self,
        streams: Streams,
        look: impl FnOnce(Option<&LogWriter>) -> T,
    ) -> (T, Subscription) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let mut state = self.lock();
        let seen = look(state.log.as_ref());
        if !*self.ended.borrow() {
            state.attached.push(Attached {
                streams,
                queue: sender,
            });
        }
        let subscription = Subscription {
            queue,
            streams,
            framed: !self.shape.tty,
        };
        (seen, subscription)
    }

    /// Has `look` look at the log while nothing is written to it. There is no writer
    /// before the run and after it.
    pub(crate) fn look_at_log<T>(&self, look: impl FnOnce(Option<&LogWriter>) -> T) -> T {
        look(self.lock().log.as_ref())
    }

    /// Carries bytes between a connection and the process until its output ends,
    /// the user detaches, or the connection fails or is `gone`.
    pub(crate) async fn attach<R, W>(
        &self,
        subscription: Subscription,
        reader: &mut R,
        writer: &mut W,
        mut detach_keys: DetachKeys,
        gone: &Hangup,
    ) -> AttachEnd
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Subscription {
            mut queue,
            streams,
            framed,
        } = subscription;
        let output = async move {
            while let Some(chunk) = queue.recv().await {
                let bytes = if framed { &chunk[..] } else { &chunk[HEADER..] };
                if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                    // Its reader is gone, which ends the input; what was typed still counts.
                    // Nobody waits for this one any more.
                    drop(queue);
                    return std::future::pending().await;
                }
            }
            AttachEnd::Output
        };
        let typed = async {
            streams.stdin
                && self.shape.open_stdin
                && self.carry_stdin(reader, &mut detach_keys).await
        };
        let input = async {
            let detached = tokio::select! {
                detached = typed => detached,
                // What was typed before still counts, if the process takes it soon.
                () = gone.wait_and_linger(LEFTOVER) => false,
            };
            if detached {
                return AttachEnd::Detached;
            }
            gone.wait().await;
            AttachEnd::Gone
        };
        let end = tokio::select! {
            end = output => end,
            end = input => end,
        };
        if end == AttachEnd::Gone && streams.stdin {
            // Where input waited for a process that does not take it.
            let _ = tokio::time::timeout(LEFTOVER, self.end_stdin_once()).await;
        }
        end
    }

    /// Closes a stdin that is for one client, as that one has gone.
    async fn end_stdin_once(&self) {
        let stdin = self.stdin.borrow().clone();
        if let Some(stdin) = stdin
            && self.shape.stdin_once
            && !self.shape.tty
        {
            stdin.lock().await.take();
        }
    }

    /// Brings a connection's bytes to stdin until either ends. True when the user
    /// typed the detach keys.
    async fn carry_stdin<R>(&self, reader: &mut R, detach_keys: &mut DetachKeys) -> bool
    where
        R: AsyncRead + Unpin,
    {
        let mut started = self.stdin.subscribe();
        let Ok(Some(stdin)) = started
            .wait_for(Option::is_some)
            .await
            .map(|stdin| stdin.clone())
        else {
            return false;
        };
        let mut buffer = vec![0; 16 * 1024];
        let mut typed = Vec::new();
        loop {
            let length = match reader.read(&mut buffer).await {
                Ok(length) if length > 0 => length,
                // A connection that fails has no more input either.
                _ => break,
            };
            let mut bytes = &buffer[..length];
            let mut detached = false;
            if self.shape.tty {
                typed.clear();
                detached = detach_keys.filter(bytes, &mut typed);
                bytes = &typed;
            }
            let mut stdin = stdin.lock().await;
            let Some(file) = stdin.as_mut() else {
                return detached;
            };
            // The process closed its stdin: nobody reads what is typed.
            if file.write_all(bytes).await.is_err() {
                return detached;
            }
            if detached {
                return true;
            }
        }
        self.end_stdin_once().await;
        false
    }

    async fn pump(&self, source: Output, stream: Stream) -> io::Result<()> {
        let mut pace = Pace::new(Instant::now());
        loop {
            source.readable().await?;
            // Idle processes hold no buffer.
            let mut buffer = Vec::new();
            loop {
                buffer.clear();
                buffer.reserve_exact(HEADER + CHUNK);
                buffer.extend_from_slice(&[0; HEADER]);
                let length = match source.read(&mut buffer)? {
                    None => break,
                    Some(0) => return Ok(()),
                    Some(length) => length,
                };
                self.hand_on(&mut buffer, stream).await;
                if length == CHUNK || self.tty() {
                    // However much there is, others get their turn.
                    tokio::task::yield_now().await;
                } else if pace.pause_after(length, Instant::now()) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Brings what was read to the log and to everybody else, once they take it.
    /// `buffer` begins with room for a header; what is in it afterwards is nobody's.
    async fn hand_on(&self, buffer: &mut Vec<u8>, stream: Stream) {
        let length = buffer.len() - HEADER;
        let readers = self.record(&buffer[HEADER..], stream);
        if readers.is_empty() {
            return;
        }
        buffer[0] = stream as u8;
        buffer[4..HEADER].copy_from_slice(&(length as u32).to_be_bytes());
        let chunk = if length <= SMALL {
            Bytes::copy_from_slice(buffer)
        } else {
            Bytes::from(std::mem::take(buffer))
        };
        self.lock().delivering += 1;
        for queue in readers {
            // A reader that went away is dropped when the next chunk comes.
            let _ = queue.send(chunk.clone()).await;
        }
        self.lock().delivering -= 1;
    }

    /// Logs what came, and says who else gets it.
    fn record(&self, bytes: &[u8], stream: Stream) -> Vec<mpsc::Sender<Bytes>> {
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            log.write(stream, bytes);
        }
        state
            .attached
            .retain(|attached| !attached.queue.is_closed());
        state
            .attached
            .iter()
            .filter(|attached| match stream {
                Stream::Stdout => attached.streams.stdout,
                Stream::Stderr => attached.streams.stderr,
            })
            .map(|attached| attached.queue.clone())
            .collect()
    }

    fn pump_ended(&self) {
        let mut state = self.lock();
        state.pumps = state.pumps.saturating_sub(1);
        if state.pumps == 0 {
            self.end(&mut state);
        }
    }

    fn end(&self, state: &mut State) {
        state.attached.clear();
        state.terminal = None;
        // Dropping the writer brings an unfinished last line into the log.
        state.log = None;
        self.stdin.send_replace(None);
        self.ended.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
