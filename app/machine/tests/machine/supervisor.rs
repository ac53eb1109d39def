//! QEMU's supervisor as a process: its exit codes and its control socket.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dctl_machine::assets;
use dctl_vmm::{
    config::{DiskConfig, VmConfig, VsockConfig},
    control::{Client, RunState},
    exit::Reason,
};
use libtest_mimic::Trial;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    home::{Home, SOON},
    trial,
};

/// A guest that never becomes ready and hears no power button: busybox, asleep. (The
/// kernel gives init what it does not know; QEMU appends what must not come after
/// `--`.)
const SLEEP: &str = "console=hvc0 loglevel=1 panic=-1 reboot=t no_timer_check tsc=reliable \
    rdinit=/bin/busybox sleep 1000";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("supervisor::panic_is_told_with_its_line", panic),
        trial("supervisor::control_socket", control),
        trial("supervisor::lock_and_configuration", refused),
        trial("supervisor::a_kernel_that_is_none", bad_kernel),
    ]
}

fn config(home: &Home, command_line: &str) -> VmConfig {
    let guest = assets::guest(&home.paths).unwrap();
    let file = |name: &str| home.path().join(name);
    fs::File::create(file("disk"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    VmConfig {
        kernel: guest.kernel,
        initramfs: guest.initramfs,
        command_line: command_line.to_owned(),
        cpus: 1,
        memory_mib: 256,
        disks: vec![DiskConfig {
            path: file("disk"),
            read_only: false,
            journal: None,
        }],
        vsock: VsockConfig {
            cid: 3,
            socket: file("vsock.sock"),
        },
        shares: None,
        control_socket: file("control.sock"),
        console_log: file("console.log"),
        power_button_port: 1026,
        lock_file: file("lock"),
    }
}

/// A supervisor; killed if the test forgets it.
struct Supervisor {
    child: Child,
    log: PathBuf,
}

impl Supervisor {
    fn start(home: &Home, name: &str, config: &VmConfig) -> Self {
        let path = home.path().join(format!("{name}.json"));
        let log = home.path().join(format!("{name}.log"));
        fs::write(&path, serde_json::to_vec(config).unwrap()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["qemu".as_ref(), "--config".as_ref(), path.as_os_str()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Its exit code's reason, and what it said.
    fn ended(&mut self) -> (Option<Reason>, String) {
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let limit = SOON.try_into().unwrap();
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        assert_eq!(ready, 1, "it did not end: {log}");
        let code = self.child.wait().unwrap().code().unwrap();
        (Reason::from_code(code as u8), log)
    }

    /// Its control socket, as soon as it is there.
    fn control(&mut self, socket: &Path) -> Client {
        let until = Instant::now() + SOON;
        loop {
            match Client::connect(socket, SOON) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn panic(home: Home) {
    let command_line =
        "console=hvc0 loglevel=1 panic=-1 reboot=t no_timer_check tsc=reliable rdinit=/none";
    let config = config(&home, command_line);
    let (reason, log) = Supervisor::start(&home, "a", &config).ended();
    assert_eq!(reason, Some(Reason::GuestPanic), "{log}");
    assert!(log.contains("Kernel panic - not syncing"), "{log}");
    let console = fs::read_to_string(&config.console_log).unwrap();
    assert!(console.contains("Kernel panic - not syncing"), "{console}");
    assert!(!config.control_socket.exists());
}

/// State, pause, resume, balloon; a power button that nobody hears, then force.
async fn control(home: Home) {
    let config = config(&home, SLEEP);
    let mut supervisor = Supervisor::start(&home, "a", &config);
    let mut client = supervisor.control(&config.control_socket);
    let state = client.state().unwrap();
    assert_eq!(state.run_state, RunState::Running);
    assert_eq!(state.process_id, supervisor.child.id());
    assert_eq!((state.cpus, state.memory_mib), (1, 256));
    client.pause().unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::Paused);
    client.resume().unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::Running);
    assert_eq!(client.balloon().unwrap().balloon_bytes, 0);

    client.pause().unwrap();
    let pressed = Instant::now();
    client.power_off(Duration::from_millis(300)).unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::PoweringOff);
    assert!(client.pause().is_err());
    let (reason, log) = supervisor.ended();
    assert_eq!(reason, Some(Reason::Forced), "{log}");
    assert!(pressed.elapsed() >= Duration::from_millis(300));
}

async fn refused(home: Home) {
    let config = config(&home, SLEEP);
    let mut first = Supervisor::start(&home, "a", &config);
    first.control(&config.control_socket).state().unwrap();
    let (reason, log) = Supervisor::start(&home, "b", &config).ended();
    assert_eq!(reason, Some(Reason::Locked), "{log}");
    // The first is none the worse for it.
    first.control(&config.control_socket).state().unwrap();

    let bad = VmConfig {
        cpus: 0,
        lock_file: home.path().join("other-lock"),
        ..config
    };
    let (reason, log) = Supervisor::start(&home, "c", &bad).ended();
    assert_eq!(reason, Some(Reason::BadConfiguration), "{log}");
}

/// QEMU's own message reaches whoever asks why.
async fn bad_kernel(home: Home) {
    let mut config = config(&home, SLEEP);
    config.kernel = home.path().join("kernel");
    fs::write(&config.kernel, b"not a kernel").unwrap();
    let (reason, log) = Supervisor::start(&home, "a", &config).ended();
    assert_eq!(reason, Some(Reason::Failed), "{log}");
    assert!(log.contains("QEMU ended"), "{log}");
    assert!(log.contains("kernel"), "{log}");
}
