//! The main thread's work while QEMU runs: it answers on the control socket,
//! drains the console, presses the power button, and tells how it all ended.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    process::ExitStatus,
    time::{Duration, Instant},
};

use dctl_vmm::{
    config::VmConfig,
    control::{Answer, BalloonStatistics, Request, RunState, State},
    exit::Reason,
    monitor::{
        Outcome,
        control_server::{Connection, ControlSocket, MAX_CLIENTS},
        disks::Disks,
        power_button::PowerButton,
        shares::SharesHandle,
        signals::TerminationSignals,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde_json::{Value, json};

use super::{
    child::Qemu,
    console::{ConsoleLog, Messages},
    qmp::{Event, Qmp},
    servers::Servers,
};

/// What a guest gets after SIGTERM or SIGINT to power off in order.
const TERMINATION_PATIENCE: Duration = Duration::from_secs(10);
/// How often the guest is asked for its free memory, in seconds.
const STATISTICS_INTERVAL: u32 = 30;
/// The exit code of isa-debug-exit for a byte of zero.
const POWER_OFF_EXIT_CODE: i32 = 1;
/// When QEMU ends, its devices' connections may be seen to end first.
const END_TOGETHER: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// QEMU's value for a statistic that the guest did not give.
const NOT_GIVEN: u64 = u64::MAX;

/// One machine, while it runs.
pub(super) struct Session<'a> {
    config: &'a VmConfig,
    started: Instant,
    qemu: Qemu,
    qmp: Qmp,
    console: ConsoleLog,
    messages: Messages,
    disks: Disks,
    shares: SharesHandle,
    button: PowerButton,
    run_state: RunState,
    /// QEMU's CPUs have begun to run.
    began: bool,
    /// When a power-off becomes a forced one.
    deadline: Option<Instant>,
    /// Why QEMU shut down, if it said.
    shutdown: Option<String>,
    open: Open,
}

/// What QEMU has not closed yet.
struct Open {
    qmp: bool,
    console: bool,
    errors: bool,
}

/// What became ready.
#[derive(Clone, Copy)]
enum Ready {
    Ended,
    /// A device is served no more.
    Unserved,
    Qmp,
    Console,
    Errors,
    Signals,
    Control,
    Button,
    Client(u64),
}

impl<'a> Session<'a> {
    pub(super) fn new(
        config: &'a VmConfig,
        started: Instant,
        qemu: Qemu,
        console: ConsoleLog,
        (disks, shares): (Disks, SharesHandle),
        button: PowerButton,
    ) -> io::Result<Self> {
        Ok(Self {
            config,
            started,
            qmp: Qmp::new(qemu.qmp.try_clone()?),
            qemu,
            console,
            messages: Messages::default(),
            disks,
            shares,
            button,
            run_state: RunState::Running,
            began: false,
            deadline: None,
            shutdown: None,
            open: Open {
                qmp: true,
                console: true,
                errors: true,
            },
        })
    }

    /// Supervises the machine until it ends.
    pub(super) fn run(
        mut self,
        control: &ControlSocket,
        signals: &TerminationSignals,
        servers: &Servers,
    ) -> io::Result<Outcome> {
        let mut clients: BTreeMap<u64, Connection> = BTreeMap::new();
        let mut next_client = 0;
        loop {
            for ready in self.wait(control, signals, servers, &clients)? {
                match ready {
                    Ready::Ended => return self.ended(),
                    Ready::Unserved => {
                        let ended = PollFd::new(&self.qemu.pidfd, PollFlags::IN);
                        if poll(&mut [ended], Some(&END_TOGETHER))? != 0 {
                            return self.ended();
                        }
                        // Without its disk a guest hangs; why, the server says.
                        self.qemu.end()?;
                        return Ok(Outcome {
                            reason: Reason::Failed,
                            detail: Some("a device is served no more".to_owned()),
                        });
                    }
                    Ready::Qmp => self.read_qmp()?,
                    Ready::Console => {
                        self.open.console = self.console.read_from(&self.qemu.console)?;
                    }
                    Ready::Errors => self.read_errors()?,
                    Ready::Signals => {
                        signals.take()?;
                        let again = self.run_state == RunState::PoweringOff;
                        self.power_off(if again {
                            Duration::ZERO
                        } else {
                            TERMINATION_PATIENCE
                        });
                    }
                    Ready::Control => {
                        while let Some(connection) = control.accept()? {
                            if clients.len() < MAX_CLIENTS {
                                clients.insert(next_client, connection);
                                next_client += 1;
                            }
                        }
                    }
                    Ready::Button => self.button.read_answer(),
                    Ready::Client(id) => {
                        let over = clients
                            .get_mut(&id)
                            .is_some_and(|client| !client.serve(|request| self.answer(request)));
                        if over {
                            clients.remove(&id);
                        }
                    }
                }
            }
            if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                self.qemu.end()?;
                return Ok(Outcome {
                    reason: Reason::Forced,
                    detail: None,
                });
            }
            self.button.retry();
        }
    }

    fn wait(
        &self,
        control: &ControlSocket,
        signals: &TerminationSignals,
        servers: &Servers,
        clients: &BTreeMap<u64, Connection>,
    ) -> io::Result<Vec<Ready>> {
        let mut sources = vec![
            (Ready::Signals, signals.as_fd()),
            (Ready::Control, control.as_fd()),
        ];
        // What QEMU had to say comes before its end.
        if self.open.console {
            sources.push((Ready::Console, self.qemu.console.as_fd()));
        }
        if self.open.errors {
            sources.push((Ready::Errors, self.qemu.errors.as_fd()));
        }
        if self.open.qmp {
            sources.push((Ready::Qmp, self.qmp.as_fd()));
        }
        sources.push((Ready::Ended, self.qemu.pidfd.as_fd()));
        sources.push((Ready::Unserved, servers.as_fd()));
        sources.extend(
            self.button
                .connection()
                .map(|connection| (Ready::Button, connection)),
        );
        sources.extend(
            clients
                .iter()
                .map(|(id, client)| (Ready::Client(*id), client.as_fd())),
        );
        let mut descriptors: Vec<_> = sources
            .iter()
            .map(|(_, descriptor)| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        match poll(&mut descriptors, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(sources
            .iter()
            .zip(&descriptors)
            .filter(|(_, descriptor)| !descriptor.revents().is_empty())
            .map(|((ready, _), _)| *ready)
            .collect())
    }

    /// Until something is to be done without an event.
    fn timeout(&self) -> Option<Timespec> {
        let next = [self.deadline, self.button.retry_at()]
            .into_iter()
            .flatten()
            .min()?;
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent spinning.
        Timespec::try_from(left + Duration::from_millis(1)).ok()
    }

    fn read_qmp(&mut self) -> io::Result<()> {
        self.open.qmp = self.qmp.read()?;
        self.handle_events();
        if self.qmp.greeted()
            && self.open.qmp
            && let Err(error) = self.begin()
        {
            // The end of QEMU is an event of its own, and says more.
            eprintln!("QEMU's monitor: {error}");
        }
        Ok(())
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.qmp.next_event() {
            if let Event::Shutdown { reason } = event {
                self.shutdown = Some(reason);
            }
        }
    }

    /// Makes sure that QEMU takes commands. That it answers one says that it has set
    /// up the machine; its own failures all come before.
    fn begin(&mut self) -> io::Result<()> {
        if self.began {
            return Ok(());
        }
        self.qmp.execute("qmp_capabilities", Value::Null)?;
        self.qmp.execute("query-status", Value::Null)?;
        self.began = true;
        self.qmp.execute(
            "qom-set",
            json!({
                "path": "/machine/peripheral/balloon",
                "property": "guest-stats-polling-interval",
                "value": STATISTICS_INTERVAL,
            }),
        )?;
        self.handle_events();
        Ok(())
    }

    fn read_errors(&mut self) -> io::Result<()> {
        self.open.errors = self
            .messages
            .read_from(&mut self.qemu.errors, io::stderr())?;
        Ok(())
    }

    /// What QEMU wrote before its end.
    fn drain(&mut self) -> io::Result<()> {
        while self.open.console {
            self.open.console = self.console.read_from(&self.qemu.console)?;
        }
        while self.open.errors {
            self.read_errors()?;
        }
        while self.open.qmp {
            self.open.qmp = self.qmp.read()?;
        }
        self.handle_events();
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Answer {
        let answer = match request {
            Request::State => Ok(Answer::State(State {
                run_state: self.run_state,
                process_id: std::process::id(),
                cpus: self.config.cpus,
                memory_mib: self.config.memory_mib,
                uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                seccomp: false,
                landlock: false,
            })),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::Balloon => self.balloon().map(Answer::Balloon),
            Request::ResizeDisk { index } => Ok(self.disks.resize(index)),
            Request::AddExport(export) => Ok(self.shares.add(export)),
            Request::RemoveExport { name } => Ok(self.shares.remove(name)),
            Request::Exports => Ok(self.shares.names()),
            Request::PowerOff { timeout_ms } => {
                self.power_off(Duration::from_millis(timeout_ms));
                Ok(Answer::Done)
            }
        };
        self.handle_events();
        answer.unwrap_or_else(|error| Answer::Error {
            message: error.to_string(),
        })
    }

    fn pause(&mut self) -> io::Result<Answer> {
        match self.run_state {
            RunState::Running => {
                self.begin()?;
                self.qmp.execute("stop", Value::Null)?;
                self.run_state = RunState::Paused;
                Ok(Answer::Done)
            }
            RunState::Paused => Ok(Answer::Done),
            RunState::PoweringOff => Err(io::Error::other("the machine is powering off")),
        }
    }

    fn resume(&mut self) -> io::Result<Answer> {
        if self.run_state == RunState::Paused {
            self.qmp.execute("cont", Value::Null)?;
            self.run_state = RunState::Running;
        }
        Ok(Answer::Done)
    }

    fn balloon(&mut self) -> io::Result<BalloonStatistics> {
        let memory = u64::from(self.config.memory_mib) << 20;
        self.begin()?;
        let balloon = self.qmp.execute("query-balloon", Value::Null)?;
        let actual = balloon.get("actual").and_then(Value::as_u64);
        let statistics = self.qmp.execute(
            "qom-get",
            json!({"path": "/machine/peripheral/balloon", "property": "guest-stats"}),
        )?;
        let given = |name: &str| {
            let told = statistics.get("last-update")?.as_i64()? != 0;
            let value = statistics.get("stats")?.get(name)?.as_u64()?;
            (told && value != NOT_GIVEN).then_some(value)
        };
        Ok(BalloonStatistics {
            // QEMU does not count what free page reporting gave back.
            reported_bytes: 0,
            balloon_bytes: memory.saturating_sub(actual.unwrap_or(memory)),
            free_memory: given("stat-free-memory"),
            available_memory: given("stat-available-memory"),
        })
    }

    /// Asks the guest to power off; a later call can only shorten its time.
    fn power_off(&mut self, patience: Duration) {
        if let Err(error) = self.resume() {
            eprintln!("a paused machine cannot be resumed to power off: {error}");
        }
        self.run_state = RunState::PoweringOff;
        // Further than an Instant goes is as good as never.
        let deadline = Instant::now().checked_add(patience);
        self.deadline = match (self.deadline, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        if !patience.is_zero() {
            self.button.press();
        }
    }

    /// QEMU has ended.
    fn ended(&mut self) -> io::Result<Outcome> {
        let status = self.qemu.wait()?;
        self.drain()?;
        Ok(self.outcome(status))
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        let end = End {
            code: status.code(),
            status: status.to_string(),
            began: self.began,
            shutdown: self.shutdown.as_deref(),
            panic: self.console.panic_line(),
            message: self.messages.last(),
        };
        end.outcome()
    }
}

/// What is known when QEMU has ended.
struct End<'a> {
    code: Option<i32>,
    status: String,
    began: bool,
    shutdown: Option<&'a str>,
    panic: Option<String>,
    message: Option<&'a str>,
}

impl End<'_> {
    fn outcome(self) -> Outcome {
        let reason = match (self.code, self.shutdown) {
            (Some(POWER_OFF_EXIT_CODE), _) if self.began => Reason::PoweredOff,
            (Some(0), _) if self.panic.is_some() => Reason::GuestPanic,
            // Without a keyboard controller a reset is a triple fault: one cannot be
            // told from the other.
            (Some(0), Some("guest-reset")) => Reason::Reset,
            (Some(0), Some("guest-shutdown")) => Reason::PoweredOff,
            _ => Reason::Failed,
        };
        let detail = match reason {
            Reason::GuestPanic => self.panic,
            Reason::Failed => Some(format!(
                "QEMU ended ({}){}",
                self.status,
                self.message
                    .map(|message| format!(": {message}"))
                    .unwrap_or_default()
            )),
            _ => None,
        };
        Outcome { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: Option<i32>, began: bool) -> End<'static> {
        End {
            code,
            status: "exit status: 1".into(),
            began,
            shutdown: None,
            panic: None,
            message: Some("qemu-system-x86_64: no such file"),
        }
    }

    #[test]
    fn exit_code_1_is_a_power_off_only_once_the_guest_ran() {
        assert_eq!(end(Some(1), true).outcome().reason, Reason::PoweredOff);
        let failure = end(Some(1), false).outcome();
        assert_eq!(failure.reason, Reason::Failed);
        assert!(failure.to_string().contains("no such file"), "{failure}");
    }

    #[test]
    fn a_reset_after_a_panic_is_the_panic() {
        let reset = End {
            shutdown: Some("guest-reset"),
            ..end(Some(0), true)
        };
        assert_eq!(reset.outcome().reason, Reason::Reset);
        let panic = End {
            shutdown: Some("guest-reset"),
            panic: Some("Kernel panic - not syncing: x".into()),
            ..end(Some(0), true)
        };
        let panic = panic.outcome();
        assert_eq!(panic.reason, Reason::GuestPanic);
        assert!(panic.to_string().ends_with("not syncing: x"), "{panic}");
    }

    #[test]
    fn a_signal_is_a_failure_of_the_monitor() {
        assert_eq!(end(None, true).outcome().reason, Reason::Failed);
    }
}
