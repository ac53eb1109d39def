//! A machine without an engine: our monitor, or QEMU's microvm on KVM, with the
//! same kernel, initial root, devices and disk, started and seen ready.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use anyhow::{Context, Result, bail};
use dctl_vmm::config::{DiskConfig, VmConfig, VsockConfig};
use guest_protocol::{GUEST_CID, POWER_BUTTON_PORT, READY_PORT};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};

use crate::Options;

/// Memory of the machines that are compared.
pub(crate) const MEMORY_MIB: u32 = 512;

/// What runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Monitor {
    /// `dctl vmm`.
    Ours,
    /// `qemu-system-x86_64 -M microvm -accel kvm` as it comes, but for ACPI, which the
    /// guest's kernel does not have.
    Qemu,
    /// The same without the PC's timers, clock, interrupt controller and serial port.
    QemuBare,
    /// The same with a console of one port: by default it has 31, which cost it
    /// hundreds of exits.
    QemuOnePort,
}

impl Monitor {
    /// QEMU's options: a machine of its kind, and its console.
    fn of_qemu(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Ours => None,
            Self::Qemu => Some((MICROVM, CONSOLE)),
            Self::QemuBare => Some((BARE_MICROVM, CONSOLE)),
            Self::QemuOnePort => Some((BARE_MICROVM, ONE_PORT_CONSOLE)),
        }
    }
}

/// A machine that is ready. Dropped, it is gone.
pub(crate) struct Machine {
    child: Child,
    /// The way to the agent of a machine of ours.
    agent: Option<PathBuf>,
    /// From the monitor's start until the agent's call.
    pub(crate) ready_after: Duration,
    /// VM exits until then, of this machine alone.
    pub(crate) exits: u64,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// Starts one on `disk` in `folder` and waits until the agent is ready.
    pub(crate) fn start(
        options: &Options,
        monitor: Monitor,
        cpus: u8,
        folder: &Path,
        disk: &Path,
    ) -> Result<Self> {
        let (mut command, ready) = match monitor.of_qemu() {
            None => ours(options, cpus, folder, disk)?,
            Some((machine, console)) => (
                qemu(options, cpus, disk, machine, console),
                listen_on_vsock()?,
            ),
        };
        let log = fs::File::create(folder.join("monitor.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let before = exits()?;
        let start = Instant::now();
        let child = command.spawn().context("cannot start the monitor")?;
        let agent = matches!(monitor, Monitor::Ours).then(|| folder.join("vsock.sock"));
        let mut machine = Self {
            child,
            agent,
            ready_after: Duration::ZERO,
            exits: 0,
        };
        let mut event = [PollFd::new(
            std::os::fd::AsFd::as_fd(&ready),
            PollFlags::POLLIN,
        )];
        let arrived = poll(&mut event, PollTimeout::try_from(120_000)?)?;
        machine.ready_after = start.elapsed();
        machine.exits = exits()?.saturating_sub(before);
        if arrived == 0 || machine.child.try_wait()?.is_some() {
            let log = fs::read_to_string(folder.join("monitor.log")).unwrap_or_default();
            bail!("the machine did not get ready: {log}");
        }
        Ok(machine)
    }

    /// The agent of a machine of ours.
    pub(crate) fn agent(&self) -> Option<Agent> {
        self.agent.clone().map(Agent::new)
    }

    /// The monitor's process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the monitor to end by itself.
    pub(crate) fn wait(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

/// As the `kvm` driver has it.
fn command_line() -> String {
    "console=hvc0 loglevel=1 panic=-1 reboot=k random.trust_cpu=on cryptomgr.notests \
     no_timer_check tsc=reliable noreplace-smp rcupdate.rcu_expedited=1 \
     sysctl.vm.compaction_proactiveness=0"
        .to_owned()
}

fn ours(options: &Options, cpus: u8, folder: &Path, disk: &Path) -> Result<(Command, OwnedFd)> {
    let config = VmConfig {
        kernel: options.guest.join("vmlinux"),
        initramfs: options.guest.join("initramfs.cpio"),
        command_line: command_line(),
        cpus,
        memory_mib: MEMORY_MIB,
        disks: vec![DiskConfig {
            path: disk.to_path_buf(),
            read_only: false,
            journal: None,
        }],
        vsock: VsockConfig {
            cid: GUEST_CID,
            socket: folder.join("vsock.sock"),
        },
        shares: None,
        control_socket: folder.join("control.sock"),
        console_log: folder.join("console.log"),
        power_button_port: POWER_BUTTON_PORT,
        lock_file: folder.join("lock"),
    };
    let ready = config.vsock.host_port_socket(READY_PORT);
    // The one of the round before.
    let _ = fs::remove_file(&ready);
    let ready = UnixListener::bind(ready)?;
    let file = folder.join("config.json");
    fs::write(&file, serde_json::to_vec(&config)?)?;
    let mut command = Command::new(&options.dctl);
    command.arg("vmm").arg("--config").arg(file);
    Ok((command, ready.into()))
}

const MICROVM: &str = "microvm,acpi=off";
const BARE_MICROVM: &str =
    "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,x-option-roms=off";
const CONSOLE: &str = "virtio-serial-device";
const ONE_PORT_CONSOLE: &str = "virtio-serial-device,max_ports=1";

/// The same machine on QEMU: a `machine` of its kind, and its `console`.
fn qemu(options: &Options, cpus: u8, disk: &Path, machine: &str, console: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "kvm", "-cpu", "host"])
        .args(["-machine", machine])
        .args(["-smp", &cpus.to_string(), "-m", &MEMORY_MIB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none"])
        .arg("-kernel")
        .arg(options.guest.join("vmlinux"))
        .arg("-initrd")
        .arg(options.guest.join("initramfs.cpio"))
        .args(["-append", &command_line()])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .arg("-drive")
        .arg(format!(
            "id=disk,if=none,format=raw,discard=unmap,file={}",
            disk.display()
        ))
        .args(["-device", "virtio-blk-device,drive=disk"])
        .arg("-device")
        .arg(format!("vhost-vsock-device,guest-cid={GUEST_CID}"))
        .args(["-device", "virtio-rng-device"])
        .args(["-device", "virtio-balloon-device,free-page-reporting=on"])
        .args(["-chardev", "null,id=console", "-device", console])
        .args(["-device", "virtconsole,chardev=console"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]);
    command
}

fn listen_on_vsock() -> Result<OwnedFd> {
    let listener = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(
        listener.as_raw_fd(),
        &VsockAddr::new(libc_any_cid(), READY_PORT),
    )
    .context("cannot listen on vsock; are vhost_vsock and its modules there?")?;
    listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}

/// `VMADDR_CID_ANY`: any of the host's own context ids.
fn libc_any_cid() -> u32 {
    u32::MAX
}

/// A data disk that the agent has formatted, to start from: the first boot of a
/// machine is not what is measured.
pub(crate) fn formatted_disk(options: &Options, folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("formatted.raw");
    fs::File::create(&disk)?.set_len(8 << 30)?;
    let machine = Machine::start(options, Monitor::Ours, 1, folder, &disk)?;
    // The power button, over the monitor's vsock.
    let mut stream = std::os::unix::net::UnixStream::connect(folder.join("vsock.sock"))?;
    std::io::Write::write_all(
        &mut stream,
        format!("CONNECT {POWER_BUTTON_PORT}\n").as_bytes(),
    )?;
    machine.wait()?;
    Ok(disk)
}

/// A sparse copy of a disk.
pub(crate) fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--"])
        .args([from, to])
        .status()?;
    if !status.success() {
        bail!("cp failed: {status}");
    }
    Ok(())
}

/// All VM exits that KVM has counted for the machines that run.
pub(crate) fn exits() -> Result<u64> {
    let path = "/sys/kernel/debug/kvm/exits";
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {path}; the benches run as root in the lab"))?;
    Ok(text.trim().parse()?)
}

/// Resident memory of a process in KiB: of the guest's memory (its largest
/// mapping), and of all the rest.
pub(crate) fn resident(process: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps"))?;
    let (mut largest, mut guest, mut rest) = (0, 0, 0);
    let mut size = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        match name {
            "Size:" => size = value.parse()?,
            "Rss:" => {
                let resident: u64 = value.parse()?;
                if size > largest {
                    // What was taken for the guest's belongs to the rest.
                    rest += guest;
                    (largest, guest) = (size, resident);
                } else {
                    rest += resident;
                }
            }
            _ => {}
        }
    }
    Ok((guest, rest))
}
