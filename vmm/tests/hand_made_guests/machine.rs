//! A machine whose kernel is a few bytes of code, run by the monitor's binary.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dctl_vmm::config::{VmConfig, VsockConfig};
use dctl_vmm::control::{Client, ClientError};
use dctl_vmm::exit::Reason;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether this machine's KVM can be opened. Says so if not.
pub(crate) fn kvm_opens() -> bool {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: /dev/kvm cannot be opened: {error}");
            false
        }
    }
}

/// A machine that is not started yet, in a directory of its own.
pub(crate) struct Machine {
    directory: std::rc::Rc<tempfile::TempDir>,
    config: VmConfig,
}

/// How a monitor's process ended.
pub(crate) struct Ended {
    pub(crate) reason: Reason,
    /// All that it wrote to standard error.
    pub(crate) line: String,
    /// The most memory that was resident, guest memory included, in bytes.
    pub(crate) peak_memory: u64,
}

impl Machine {
    /// A machine whose boot CPU runs `code`, in 64-bit mode.
    pub(crate) fn new(code: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("vmlinux"), kernel(code)).unwrap();
        fs::write(path("initramfs"), b"").unwrap();
        let config = VmConfig {
            kernel: path("vmlinux"),
            initramfs: path("initramfs"),
            command_line: String::new(),
            cpus: 1,
            memory_mib: 32,
            disks: Vec::new(),
            vsock: VsockConfig {
                cid: 3,
                socket: path("vsock.sock"),
            },
            shares: None,
            control_socket: path("control.sock"),
            console_log: path("console.log"),
            power_button_port: 1026,
            lock_file: path("lock"),
        };
        Self {
            directory: directory.into(),
            config,
        }
    }

    pub(crate) fn cpus(self, cpus: u8) -> Self {
        self.configure(|config| config.cpus = cpus)
    }

    pub(crate) fn configure(mut self, change: impl FnOnce(&mut VmConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ended {
        self.start_again().wait()
    }

    /// Starts it, and waits until its control socket is served.
    pub(crate) fn start(&self) -> Running {
        let running = self.start_again();
        running.wait_for("the control socket", |running| running.try_client().is_ok());
        running
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn start_again(&self) -> Running {
        let file = self.directory.path().join("config.json");
        fs::write(&file, serde_json::to_vec(&self.config).unwrap()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dctl-vmm"))
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running {
            child,
            config: self.config.clone(),
            _directory: std::rc::Rc::clone(&self.directory),
        }
    }
}

/// A monitor's process. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    config: VmConfig,
    _directory: std::rc::Rc<tempfile::TempDir>,
}

impl Running {
    pub(crate) fn config(&self) -> &VmConfig {
        &self.config
    }

    pub(crate) fn control_socket(&self) -> &Path {
        &self.config.control_socket
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn try_client(&self) -> Result<Client, ClientError> {
        let mut client = Client::connect(self.control_socket(), PATIENCE)?;
        client.state()?;
        Ok(client)
    }

    /// A client; the socket is served.
    pub(crate) fn client(&self) -> Client {
        self.wait_for("a client's place", |running| running.try_client().is_ok());
        self.try_client().unwrap()
    }

    /// Waits until `reached`, for which there is no event to wait for.
    pub(crate) fn wait_for(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Processor time of all its threads so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process_id())).unwrap();
        tasks
            .map(|task| {
                let path = task.unwrap().path().join("schedstat");
                let text = fs::read_to_string(path).unwrap();
                let first = text.split_whitespace().next().unwrap();
                Duration::from_nanos(first.parse().unwrap())
            })
            .sum()
    }

    /// What the kernel says of each of its threads (`/proc/<pid>/task/*/status`).
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process_id())).unwrap();
        tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .collect()
    }

    pub(crate) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: i32) {
        let process = i32::try_from(self.process_id()).unwrap();
        // SAFETY: a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Waits for its end, and kills it if that takes too long.
    pub(crate) fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let mut peak_memory = 0;
        let status = loop {
            peak_memory = peak_memory.max(self.resident_memory());
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the monitor did not end");
            thread::sleep(Duration::from_millis(2));
        };
        let mut line = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut line).unwrap();
        let reason = status
            .code()
            .and_then(|code| Reason::from_code(u8::try_from(code).unwrap()))
            .unwrap_or_else(|| panic!("{status}: {line}"));
        Ended {
            reason,
            line,
            peak_memory,
        }
    }

    /// The most memory that was resident so far, in bytes; 0 when it has ended.
    fn resident_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()));
        status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
            .map_or(0, |kib: u64| kib << 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already waited for, or in the way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An ELF file that loads `code` at 16 MiB and starts it there.
fn kernel(code: &[u8]) -> Vec<u8> {
    const ENTRY: u64 = 0x100_0000;
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let put16 = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    put16(&mut file, 2); // ET_EXEC
    put16(&mut file, 62); // EM_X86_64
    file.extend(1_u32.to_le_bytes());
    for value in [ENTRY, 64, 0] {
        file.extend(value.to_le_bytes()); // entry, program headers, sections
    }
    file.extend(0_u32.to_le_bytes());
    for value in [64, 56, 1, 0, 0, 0] {
        put16(&mut file, value);
    }
    file.extend(1_u32.to_le_bytes()); // PT_LOAD
    file.extend(5_u32.to_le_bytes()); // readable, executable
    let length = code.len() as u64;
    for value in [HEADERS, ENTRY, ENTRY, length, length, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(code);
    file
}
