//! `dctl qemu --config FILE`: one machine on QEMU, from its configuration to its
//! end, in this process.
//!
//! Disks and vsock are our own device code, served over vhost-user on threads of
//! this process; QEMU runs the CPUs and the rest as a child that cannot outlive
//! us. The main thread waits for events: of QEMU ([`qmp`], its console, its end),
//! of the control socket, of the power button. To the host all this looks like
//! `dctl vmm`: same sockets, same lock, same exit codes.

mod arguments;
mod child;
mod clock;
mod console;
mod qmp;
mod servers;
mod session;

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use dctl_vmm::{
    config::VmConfig,
    devices::{VirtioDevice, block::Block, vsock::Vsock},
    exit::Reason,
    monitor::{
        Outcome,
        control_server::ControlSocket,
        disks::Disks,
        lock::{LockError, MachineLock},
        power_button::PowerButton,
        shares::{Shares, SharesHandle},
        signals::TerminationSignals,
    },
    sandbox::{DeviceConfinement, FileConfinement},
    transport::vhost_user::{self, ConfigChange},
};
use rustix::fs::Mode;

use self::{
    arguments::BackEnds, child::Qemu, console::ConsoleLog, servers::Servers, session::Session,
};

/// Runs `dctl qemu` with these arguments (without the subcommand's name): `--config
/// FILE`, as for `dctl vmm`. Ends when the machine does, with a line on standard
/// error and the exit code of [`Reason`]. The process becomes the machine's monitor
/// and should end with it.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = Instant::now();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let outcome = match arguments.as_slice() {
        [option, file] if option == "--config" => VmConfig::read(Path::new(file))
            .map_err(bad_configuration)
            .and_then(|config| run(&config, started))
            .unwrap_or_else(|failure| failure.0),
        _ => bad_configuration("usage: dctl qemu --config FILE").0,
    };
    // Into the monitor's log; if that is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{outcome}");
    outcome.reason.into()
}

/// An outcome that came before the machine did.
struct Failure(Outcome);

impl Failure {
    fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self(Outcome {
            reason,
            detail: Some(detail.to_string()),
        })
    }
}

fn bad_configuration(error: impl fmt::Display) -> Failure {
    Failure::new(Reason::BadConfiguration, error)
}

/// For `map_err`: the supervisor itself could not do something.
fn failed<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(Reason::Failed, format_args!("cannot {what}: {error}"))
}

fn run(config: &VmConfig, started: Instant) -> Result<Outcome, Failure> {
    config.check().map_err(bad_configuration)?;
    exit_on_panic();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let signals = TerminationSignals::block().map_err(failed("handle signals"))?;
    let _lock = MachineLock::take(&config.lock_file).map_err(|error| match error {
        LockError::Held => Failure::new(
            Reason::Locked,
            format_args!("another monitor holds {}", config.lock_file.display()),
        ),
        LockError::Io(error) => bad_configuration(format_args!(
            "cannot lock {}: {error}",
            config.lock_file.display()
        )),
    })?;
    let program =
        super::find().ok_or_else(|| Failure::new(Reason::BadConfiguration, super::INSTALL))?;
    let console = ConsoleLog::new(&config.console_log).map_err(bad_configuration)?;
    let control = ControlSocket::bind(&config.control_socket).map_err(|error| {
        bad_configuration(format_args!(
            "cannot make the control socket {}: {error}",
            config.control_socket.display()
        ))
    })?;

    let mut servers = Servers::new().map_err(failed("serve devices"))?;
    let mut back_ends = BackEnds::default();
    let sockets = config.vsock.socket.parent().unwrap_or(Path::new("/"));
    let confinement =
        DeviceConfinement::new(sockets).map_err(failed("compile a seccomp filter"))?;
    let on_start = move || confinement.enter();
    let mut disks = Disks::default();
    for disk in &config.disks {
        let device = Block::open(disk).map_err(bad_configuration)?;
        disks.push(device.handle());
        let socket = serve(Box::new(device), config, &mut servers, on_start.clone())?;
        back_ends.disks.push(socket);
    }
    let device = Vsock::new(&config.vsock).map_err(bad_configuration)?;
    back_ends.vsock = Some(serve(Box::new(device), config, &mut servers, on_start)?);

    let mut shares = SharesHandle::none();
    if let Some(wanted) = &config.shares {
        let confinement = FileConfinement::new().map_err(failed("compile a seccomp filter"))?;
        let started =
            Shares::start(wanted, &config.vsock, &confinement).map_err(failed("share files"))?;
        if let Some(device) = started.device {
            let on_start = move || confinement.enter();
            back_ends.shares = Some(serve(Box::new(device), config, &mut servers, on_start)?);
        }
        shares = started.handle;
    }

    let qemu = Qemu::spawn(&program, config, back_ends).map_err(failed("start QEMU"))?;
    let button = PowerButton::new(config.vsock.socket.clone(), config.power_button_port);
    let outcome = Session::new(config, started, qemu, console, (disks, shares), button)
        .and_then(|session| session.run(&control, &signals, &servers))
        .map_err(failed("supervise the machine"))?;
    servers.wait().map_err(failed("serve the devices"))?;
    Ok(outcome)
}

/// Serves a device on threads of its own, which begin with `on_start`; returns QEMU's end
/// of the connection.
fn serve(
    device: Box<dyn VirtioDevice>,
    config: &VmConfig,
    servers: &mut Servers,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<UnixStream, Failure> {
    // A name for an instant: what connects is this process, and QEMU inherits it.
    let path = config.control_socket.with_file_name("vhost.sock");
    let connect = || -> io::Result<_> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let back_end = UnixStream::connect(&path)?;
        std::fs::remove_file(&path)?;
        let config_change = ConfigChange::default();
        let (qemu, front_end) = UnixStream::pair()?;
        config_change.relay(front_end, back_end)?;
        servers.add(vhost_user::serve(
            device,
            listener,
            config_change,
            on_start,
        )?)?;
        Ok(qemu)
    };
    connect().map_err(failed("serve a device"))
}

/// A thread that panicked would leave a machine that half works.
fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(io::stderr(), "{}: {panic}", Reason::Failed);
        std::process::exit(i32::from(Reason::Failed.code()));
    }));
}
