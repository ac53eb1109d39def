//! A command on a terminal of its own: a real pseudo-terminal, whose controlling
//! process the command is, as in a user's window.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::command::contains;

/// A command that runs on a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    /// Our end.
    screen: File,
    /// Reads what is shown, until this is set.
    reader: JoinHandle<()>,
    closed: Arc<AtomicBool>,
    pieces: mpsc::Receiver<Vec<u8>>,
    /// Everything that was shown.
    shown: Vec<u8>,
    /// How much of it has been looked at.
    seen: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of `rows` and `columns`.
    ///
    /// # Panics
    /// If there is no terminal to be had or the command does not start.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&screen).expect("the terminal is ours");
        unlockpt(&screen).expect("the terminal is ours");
        let name = ptsname(&screen, Vec::new()).expect("the terminal has a name");
        set_size(&screen, rows, columns);
        // setsid makes the command a session's leader; --ctty gives it its
        // standard input as the controlling terminal.
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(command.get_program());
        leader.args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(variable, value),
                None => leader.env_remove(variable),
            };
        }
        let side = || {
            let path = name.to_str().expect("a terminal's path is ASCII");
            let file = File::options().read(true).write(true).open(path);
            Stdio::from(file.expect("the terminal opens"))
        };
        let child = leader
            .env("TERM", "xterm")
            .current_dir("/")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid starts");
        let screen = File::from(screen);
        let (sender, pieces) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let reader = {
            let screen = screen.try_clone().expect("a descriptor more");
            let closed = Arc::clone(&closed);
            thread::spawn(move || read_screen(screen, &sender, &closed))
        };
        Self {
            child,
            screen,
            reader,
            closed,
            pieces,
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// Types `text`.
    ///
    /// # Panics
    /// If the terminal does not take it.
    pub fn type_text(&mut self, text: &str) {
        self.screen
            .write_all(text.as_bytes())
            .expect("the terminal takes it");
    }

    /// Waits until the terminal shows `text`, after all that was waited for before.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let fresh = &self.shown[self.seen..];
            if contains(fresh, text.as_bytes()) {
                let at = fresh
                    .windows(text.len())
                    .position(|window| window == text.as_bytes());
                self.seen += at.unwrap_or_default() + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.shown.extend(piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!(
                    "the terminal did not show {text:?}; it shows\n{}",
                    String::from_utf8_lossy(&self.shown)
                ),
            }
        }
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// If the terminal does not take it.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.screen, rows, columns);
    }

    /// Waits until the command ends; its exit code, or 128 and the signal's number.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> i32 {
        let code = wait(&mut self.child, within);
        self.stop_reading();
        let Some(code) = code else {
            self.shown.extend(self.pieces.try_iter().flatten());
            panic!(
                "the command did not end; the terminal shows\n{}",
                String::from_utf8_lossy(&self.shown)
            );
        };
        code
    }

    /// Closes the terminal, as a user closes a window: the kernel hangs up on the
    /// command. Waits until that ends.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn close(mut self, within: Duration) {
        self.stop_reading();
        let Self {
            mut child, screen, ..
        } = self;
        drop(screen);
        if wait(&mut child, within).is_none() {
            // Both fail when it has ended by now.
            let _ = child.kill();
            let _ = child.wait();
            panic!("the command goes on without its terminal");
        }
    }

    fn stop_reading(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let reader = std::mem::replace(&mut self.reader, thread::spawn(|| {}));
        reader.join().expect("the reader does not panic");
    }
}

/// Passes on what the terminal shows until it is hung up or `closed`.
fn read_screen(mut screen: File, sender: &mpsc::Sender<Vec<u8>>, closed: &AtomicBool) {
    const LOOK_EVERY: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut buffer = [0; 4096];
    while !closed.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(&screen, PollFlags::IN)];
        match poll(&mut ready, Some(&LOOK_EVERY)) {
            Ok(1..) => {}
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        // An error is how a terminal says that its last user has gone.
        match screen.read(&mut buffer) {
            Ok(length @ 1..) if sender.send(buffer[..length].to_vec()).is_ok() => {}
            _ => return,
        }
    }
}

/// Waits for `child`; `None` when the time is over before it ends.
fn wait(child: &mut Child, within: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            let signal = status.signal().unwrap_or_default();
            return Some(status.code().unwrap_or(128 + signal));
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("the terminal takes a size");
}
