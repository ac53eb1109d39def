//! A `dctl` with a home of its own.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::command::{Finished, LONG, Running, run};

/// Names the program under test.
const PROGRAM_VARIABLE: &str = "DCTL_BIN";

/// Says what goes with an installation: a script that waits for the end of its
/// input, which comes when the test process ends, however it ends. It takes the
/// home and the program.
const CLEANER: &str = r#"
cat > /dev/null
DCTL_HOME="$1" timeout 60 "$2" machine stop
for process in /proc/[0-9]*; do
    if tr '\0' '\n' < "$process/environ" 2> /dev/null | grep -qxF "DCTL_HOME=$1"; then
        kill -9 "${process#/proc/}"
    fi
done
rm -rf "$1"
"#;

/// A `dctl`, its home, and everything that it starts there. When the test process
/// ends, the machine is powered off, the engine ended and the home removed.
#[derive(Debug)]
pub struct Installation {
    program: PathBuf,
    home: PathBuf,
    /// Its standard input is what keeps it waiting.
    _cleaner: Child,
}

/// Where dctl remembers, below its home, that it has asked.
const ASKED: &str = "data/docker-context-offered";

/// A process of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The engine.
    Engine,
    /// The machine's monitor: ours or the one around QEMU.
    Monitor,
}

impl Installation {
    /// One that nobody has used yet.
    ///
    /// # Panics
    /// If there is no program to test, or the home cannot be made.
    pub fn new() -> Self {
        let program = program();
        // Short: sockets' paths have to fit into 107 bytes.
        let home = tempfile::Builder::new()
            .prefix("dctl-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp")
            .keep();
        // At a terminal the first `run` asks about Docker's client; see
        // [`Installation::forget_that_it_was_asked`].
        fs::create_dir(home.join("data")).expect("a directory in the home");
        fs::write(home.join(ASKED), "").expect("a file in the home");
        let cleaner = Command::new("sh")
            .args(["-c", CLEANER, "cleaner"])
            .args([&home, &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What ends the tests (an interrupt from the terminal) must not end it.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self {
            program,
            home,
            _cleaner: cleaner,
        }
    }

    /// Has the first `run` at a terminal ask whether docker shall use dctl.
    ///
    /// # Panics
    /// If that was done before.
    pub fn forget_that_it_was_asked(&self) {
        fs::remove_file(self.home.join(ASKED)).expect("a file in the home");
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("run/docker.sock")
    }

    /// Writes the registries' credentials that `dctl` finds.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write_docker_config(&self, json: &str) {
        let directory = self.home.join(".docker");
        fs::create_dir_all(&directory).expect("a directory in the home");
        let mut file = fs::File::create(directory.join("config.json")).expect("a file in the home");
        file.write_all(json.as_bytes())
            .expect("a write to the home");
    }

    /// `dctl` with `arguments`, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("DCTL_HOME", &self.home)
            .env("HOME", &self.home)
            .env_remove("DOCKER_CONFIG")
            .env_remove("DCTL_HOST")
            .current_dir("/");
        command
    }

    /// Runs `dctl` with `arguments` and nothing on its standard input.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn dctl(&self, arguments: &[&str]) -> Finished {
        self.dctl_with_input(arguments, b"")
    }

    /// Runs `dctl` with `arguments` and `input` on its standard input.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn dctl_with_input(&self, arguments: &[&str], input: &[u8]) -> Finished {
        run(&mut self.command(arguments), input, LONG)
    }

    /// Starts `dctl` with `arguments`.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// One field of what `dctl inspect` says, by a Go template.
    ///
    /// # Panics
    /// If there is no such thing.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.dctl(&["inspect", "--format", template, name])
            .success()
            .text()
    }

    /// Process ids of a part; several when the part has several processes.
    ///
    /// # Panics
    /// If `/proc` cannot be read.
    pub fn processes(&self, part: Part) -> Vec<Pid> {
        let mark = format!("DCTL_HOME={}", self.home.display());
        let commands: &[&str] = match part {
            Part::Engine => &["engine"],
            Part::Monitor => &["vmm", "qemu"],
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is there") {
            let Ok(entry) = entry else { continue };
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(id) = id.and_then(Pid::from_raw) else {
                continue;
            };
            // A process can end between these; then it is none of ours.
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let is_ours = read("environ")
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes());
            let line = read("cmdline");
            let command = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            if is_ours && commands.iter().any(|name| name.as_bytes() == command) {
                found.push(id);
            }
        }
        found
    }

    /// Bytes of memory that all processes of the installation have: engine, monitor
    /// and QEMU. What two of them share counts twice.
    ///
    /// # Panics
    /// If `/proc` cannot be read.
    pub fn resident_memory(&self) -> u64 {
        let mark = format!("DCTL_HOME={}", self.home.display());
        let mut bytes = 0;
        for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
            // Not a process, or one that has ended since.
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let is_ours = read("environ")
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes());
            if !is_ours {
                continue;
            }
            let status = read("status");
            let status = String::from_utf8_lossy(&status);
            let resident = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
            bytes += resident.map_or(0, |kib| kib.parse().unwrap_or(0)) * 1024;
        }
        bytes
    }

    /// Kills a part of the installation without a warning, and waits until it is
    /// gone.
    ///
    /// # Panics
    /// If it does not run, or does not go.
    #[track_caller]
    pub fn kill(&self, part: Part) {
        let processes: Vec<_> = self
            .processes(part)
            .into_iter()
            .map(|id| pidfd_open(id, PidfdFlags::empty()).expect("the process is there"))
            .collect();
        assert!(!processes.is_empty(), "{part:?} does not run");
        for process in &processes {
            pidfd_send_signal(process, Signal::KILL).expect("the process is there");
        }
        // Readable when all of it is gone, what it had open included.
        for process in &processes {
            let mut event = [PollFd::new(process, PollFlags::IN)];
            let within = Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            let ended = poll(&mut event, Some(&within)).expect("poll");
            assert_eq!(ended, 1, "{part:?} does not end");
        }
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until `condition` is true, looking often.
///
/// # Panics
/// If it is not in time.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program under test: as the variable says, or what cargo built last.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os(PROGRAM_VARIABLE).filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository.join("target"), PathBuf::from);
    let built = ["release", "debug"].map(|profile| target.join(profile).join("dctl"));
    match built.iter().find(|path| path.exists()) {
        Some(path) => path.clone(),
        None => panic!("there is no dctl to test: run `cargo xtask test end-to-end`"),
    }
}
