//! Runs one virtual machine from its configuration to its end, in this process.
//!
//! [`run`] takes the machine's lock, makes guest memory and devices, loads the
//! kernel, gives up what it does not need any more ([`crate::sandbox`]), starts a
//! thread for the disks, one for the other devices and one for each virtual CPU,
//! and supervises them until the machine ends.
//!
//! What any monitor has, whatever runs its CPUs ([`control_server`], [`disks`], [`lock`],
//! [`power_button`], [`signals`]), QEMU's supervisor in `app/machine` uses, too.
//!
//! Called by `crate::command`. This is where the parts are put together; it does
//! no virtio and no KVM of its own. The parts that have nothing to do with KVM are
//! public: the supervisor of QEMU in `app/machine` keeps the same lock, serves the
//! same control socket and presses the same power button.

mod address_space;
pub mod control_server;
mod cpus;
mod device_set;
pub mod disks;
mod lifecycle;
pub mod lock;
pub mod power_button;
pub mod shares;
pub mod signals;
mod supervisor;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::Mode;

use crate::config::VmConfig;
use crate::control::RunState;
use crate::exit::Reason;
use crate::kvm::machine::Machine;
use crate::kvm::vcpu::End;
use crate::kvm::{boot, layout, memory, open};
use crate::sandbox::{self, FileConfinement};
use crate::transport::worker::Worker;
use address_space::AddressSpace;
use control_server::ControlSocket;
use cpus::Cpus;
use device_set::DeviceSet;
use lifecycle::Lifecycle;
use lock::{LockError, MachineLock};
use power_button::PowerButton;
use shares::{Shares, SharesHandle};
use signals::TerminationSignals;
use supervisor::{Ended, Facts, Supervisor};

/// Virtual CPUs that were told to stop have so long, before the process ends
/// without them.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How a machine ended, for an exit code and a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: Reason,
    /// What more there is to say, in one line.
    pub detail: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}

/// A machine that could not be run.
#[derive(Debug)]
struct Failure {
    reason: Reason,
    detail: String,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason,
            detail: Some(failure.detail),
        }
    }
}

/// For `map_err`: the monitor itself failed to do something.
fn failed<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure {
        reason: Reason::Failed,
        detail: format!("cannot {what}: {error}"),
    }
}

/// Runs the machine that the configuration file describes; see [`run`].
pub fn run_file(file: &Path) -> Outcome {
    let started = Instant::now();
    match VmConfig::read(file) {
        Ok(config) => run_since(&config, started),
        Err(error) => Outcome {
            reason: Reason::BadConfiguration,
            detail: Some(error.to_string()),
        },
    }
}

/// Runs a machine to its end.
///
/// The process becomes that machine's monitor and should end with it: limits,
/// signal handlers and the sandbox stay in force after the return.
pub fn run(config: &VmConfig) -> Outcome {
    run_since(config, Instant::now())
}

fn run_since(config: &VmConfig, started: Instant) -> Outcome {
    try_run(config, started).unwrap_or_else(Outcome::from)
}

fn try_run(config: &VmConfig, started: Instant) -> Result<Outcome, Failure> {
    config.check().map_err(|error| Failure {
        reason: Reason::BadConfiguration,
        detail: error.to_string(),
    })?;
    prepare_process().map_err(failed("prepare the process"))?;
    let signals = TerminationSignals::block().map_err(failed("handle signals"))?;
    let _lock = take_lock(config)?;

    let kvm = open::open().map_err(|error| Failure {
        reason: Reason::KvmUnavailable,
        detail: error.to_string(),
    })?;
    let memory =
        memory::allocate(u64::from(config.memory_mib) << 20).map_err(failed("map guest memory"))?;
    let devices = device_set::count(config)?;
    let interrupt_lines = layout::interrupt_lines(devices);
    let command_line = config.command_line.clone() + &device_set::command_line(devices);
    let entry = boot::load(
        &memory,
        &boot::Sources {
            kernel: &config.kernel,
            initramfs: &config.initramfs,
            command_line: &command_line,
            cpus: config.cpus,
            interrupt_lines,
        },
    )
    .map_err(|error| Failure {
        reason: Reason::BadConfiguration,
        detail: error.to_string(),
    })?;

    let unavailable = |error: crate::kvm::Error| Failure {
        reason: Reason::KvmUnavailable,
        detail: error.to_string(),
    };
    let filters = sandbox::Filters::new().map_err(failed("compile the seccomp filters"))?;
    let confinement = FileConfinement::new().map_err(failed("compile a seccomp filter"))?;
    let Shares {
        device: shares_device,
        handle: shares,
    } = share_files(config, &confinement)?;
    let machine =
        Machine::new(&kvm, memory.clone(), config.cpus, interrupt_lines).map_err(unavailable)?;
    let devices = DeviceSet::new(config, shares_device, &machine, &memory)?;
    let control = ControlSocket::bind(&config.control_socket).map_err(|error| Failure {
        reason: Reason::BadConfiguration,
        detail: format!(
            "cannot make the control socket {}: {error}",
            config.control_socket.display()
        ),
    })?;
    let vcpus = (0..config.cpus)
        .map(|id| machine.create_vcpu(id, entry))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unavailable)?;

    // Before the file system is given up: these threads go on opening files.
    let shares_worker = devices
        .shares
        .iter()
        .map(|transport| {
            let confinement = confinement.clone();
            Worker::spawn("shares", vec![Arc::clone(transport)], move || {
                confinement.enter()
            })
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed("start the device of shared files"))?;
    let socket_directories = [&config.control_socket, &config.vsock.socket];
    let landlock =
        sandbox::restrict_file_system(socket_directories.iter().filter_map(|path| path.parent()))
            .map_err(failed("restrict the file system"))?;

    let lifecycle = Arc::new(Lifecycle::new().map_err(failed("make an event"))?);
    let (disks, others) = devices.transports.split_at(devices.disks.len());
    let others = others
        .get(..others.len() - shares_worker.len())
        .unwrap_or_default();
    // A disk may block; vsock must answer fast.
    let workers = [("disks", disks), ("devices", others)]
        .into_iter()
        .filter(|(_, transports)| !transports.is_empty())
        .map(|(name, transports)| {
            let filter = filters.devices.clone();
            Worker::spawn(name, transports.to_vec(), move || filter.apply())
        })
        .chain(shares_worker.into_iter().map(Ok))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed("start the devices"))?;
    let space = Arc::new(AddressSpace {
        machine,
        devices: devices.transports.clone(),
        lifecycle: Arc::clone(&lifecycle),
    });
    let cpus =
        Cpus::start(vcpus, &space, &filters.vcpu).map_err(failed("start the virtual CPUs"))?;
    filters
        .main
        .apply()
        .map_err(failed("confine the main thread"))?;

    let mut supervisor = Supervisor {
        facts: Facts {
            cpus: config.cpus,
            memory_mib: config.memory_mib,
            started,
            landlock,
        },
        lifecycle,
        cpus,
        workers,
        balloon: devices.balloon,
        disks: devices.disks,
        shares,
        button: PowerButton::new(config.vsock.socket.clone(), config.power_button_port),
        run_state: RunState::Running,
        deadline: None,
    };
    let ended = supervisor.run(&control, &signals);
    stop(supervisor)?;
    let panic = devices.panic.lines().into_iter().next();
    ended
        .map(|ended| outcome(ended, panic))
        .map_err(failed("supervise the machine"))
}

/// What holds for the whole process, before anything is opened.
fn prepare_process() -> io::Result<()> {
    // SAFETY: tells the allocator to use one arena for all threads: they allocate
    // little, and each arena of its own would keep memory of its own.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    std::panic::set_hook(Box::new(|panic| {
        // A thread that panicked would leave a machine that half works.
        let _ = writeln!(io::stderr(), "{}: {panic}", Reason::Failed);
        std::process::exit(i32::from(Reason::Failed.code()));
    }));
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    sandbox::limit_process()?;
    sandbox::handle_violations()
}

/// The server of shared files, if the machine has any.
fn share_files(config: &VmConfig, confinement: &FileConfinement) -> Result<Shares, Failure> {
    let Some(wanted) = &config.shares else {
        return Ok(Shares {
            device: None,
            handle: SharesHandle::none(),
        });
    };
    Shares::start(wanted, &config.vsock, confinement).map_err(failed("share files"))
}

fn take_lock(config: &VmConfig) -> Result<MachineLock, Failure> {
    let path = config.lock_file.display();
    MachineLock::take(&config.lock_file).map_err(|error| match error {
        LockError::Held => Failure {
            reason: Reason::Locked,
            detail: format!("another monitor holds {path}"),
        },
        LockError::Io(error) => Failure {
            reason: Reason::BadConfiguration,
            detail: format!("cannot lock {path}: {error}"),
        },
    })
}

/// Stops virtual CPUs, then devices, whose last writes go to the disk.
fn stop(supervisor: Supervisor) -> Result<(), Failure> {
    let Supervisor {
        lifecycle,
        cpus,
        workers,
        ..
    } = supervisor;
    lifecycle.order_stop();
    cpus.kick();
    // A KVM that does not let go of a thread ends with the process.
    if lifecycle.wait_ended(cpus.count(), STOP_PATIENCE) {
        cpus.join().map_err(failed("stop the virtual CPUs"))?;
    }
    for worker in workers {
        worker.stop().map_err(failed("run the devices"))?;
    }
    Ok(())
}

fn outcome(ended: Ended, panic: Option<String>) -> Outcome {
    let (reason, detail) = match ended {
        // No virtual CPU stops before it is told to.
        Ended::Forced | Ended::ByGuest(End::Stopped) => (Reason::Forced, None),
        Ended::ByGuest(End::PoweredOff) => (Reason::PoweredOff, None),
        Ended::ByGuest(End::Reset | End::TripleFault) if panic.is_some() => {
            (Reason::GuestPanic, panic)
        }
        Ended::ByGuest(End::Reset) => (Reason::Reset, None),
        Ended::ByGuest(End::TripleFault) => (Reason::TripleFault, None),
        Ended::ByGuest(End::KvmInternalError(detail)) => (Reason::KvmInternalError, Some(detail)),
        Ended::ByGuest(End::Failed(detail)) => (Reason::Failed, Some(detail)),
    };
    Outcome { reason, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_after_a_panic_is_the_panic() {
        let line = "Kernel panic - not syncing: x".to_owned();
        let panicked = outcome(Ended::ByGuest(End::Reset), Some(line.clone()));
        assert_eq!(panicked.reason, Reason::GuestPanic);
        assert!(panicked.to_string().ends_with(&line));
        assert_eq!(
            outcome(Ended::ByGuest(End::Reset), None).reason,
            Reason::Reset
        );
        assert_eq!(
            outcome(Ended::ByGuest(End::PoweredOff), Some(line)).reason,
            Reason::PoweredOff
        );
    }
}
