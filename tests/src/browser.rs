//! A page in a real browser: Chromium without a window, told what to do over a pipe in
//! the DevTools protocol.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Debian's program, in the package of the same name.
const PROGRAM: &str = "chromium-headless-shell";

/// How long the browser may take to answer.
const ANSWERS: Duration = Duration::from_mins(1);

/// Gives the browser its pipe: descriptors 3 and 4.
const START: &str = r#"exec "$@" 3<&0 4>&1 < /dev/null > /dev/null 2>&1"#;

/// A browser with one page. It ends when it goes out of scope.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: mpsc::Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    console: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a page at `address`.
    ///
    /// # Panics
    /// If the browser is not installed or does not answer.
    #[track_caller]
    pub fn open(address: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory for the browser");
        let mut child = Command::new("sh")
            .args(["-c", START, "sh", PROGRAM])
            // It refuses to be root in its own sandbox, as tests often are.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its processes end with the group's leader.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let commands = child.stdin.take().expect("stdin is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers
                .read_until(0, &mut message)
                .is_ok_and(|length| length > 0)
            {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap_or_default();
                message.clear();
                if sender.send(parsed).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            last_id: 0,
            session: None,
            console: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Runtime.enable", &json!({}));
        browser.call("Page.navigate", &json!({"url": address}));
        browser
    }

    /// The value of a JavaScript expression in the page; null while there is none, as
    /// between two pages.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", &parameters)["result"]["value"].take()
    }

    /// Waits until the page's text is `text`.
    ///
    /// # Panics
    /// If it is not in time.
    #[track_caller]
    pub fn wait_for_text(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let shown = self.evaluate("document.body.innerText");
            if shown.as_str().map(str::trim) == Some(text) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the page does not show {text:?} but {shown}; its console: {:#?}",
                self.console
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until something has said `text` on the page's console, and forgets what
    /// was said so far.
    ///
    /// # Panics
    /// If nothing does in time.
    #[track_caller]
    pub fn wait_for_console(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while !self.console.iter().any(|line| line.contains(text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else {
                panic!("nothing said {text:?} on the console: {:#?}", self.console);
            };
            self.note(&message);
        }
        self.console.clear();
    }

    /// Has the browser do something, and returns what it says.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut line = command.to_string().into_bytes();
        line.push(0);
        self.commands
            .write_all(&line)
            .unwrap_or_else(|error| panic!("{PROGRAM} does not run: {error}"));
        let deadline = Instant::now() + ANSWERS;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(mut message) = self.messages.recv_timeout(left) else {
                panic!("{PROGRAM} does not answer {method}");
            };
            if message["id"] == self.last_id {
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    /// Keeps what a page says on its console.
    fn note(&mut self, message: &Value) {
        if message["method"] == "Runtime.consoleAPICalled" {
            let words = message["params"]["args"].as_array().into_iter().flatten();
            let words: Vec<String> = words.map(|word| word["value"].to_string()).collect();
            self.console.push(words.join(" "));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        // Fails when it has ended, and then there is nothing to do.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}
