//! The main thread's work while the machine runs: it serves the control socket,
//! carries out pause, resume and power-off, and waits for the machine's end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::control_server::{Connection, ControlSocket, MAX_CLIENTS};
use super::cpus::Cpus;
use super::disks::Disks;
use super::lifecycle::Lifecycle;
use super::power_button::PowerButton;
use super::shares::SharesHandle;
use super::signals::TerminationSignals;
use crate::control::{Answer, Request, RunState, State};
use crate::devices::balloon::BalloonHandle;
use crate::kvm::vcpu::End;
use crate::transport::worker::Worker;

/// A virtual CPU leaves the guest in microseconds; a host that is out of breath
/// may take longer.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);
/// The guest answers with statistics at once, or is not going to.
const BALLOON_PATIENCE: Duration = Duration::from_millis(200);
/// What a guest gets after SIGTERM or SIGINT to power off in order.
const TERMINATION_PATIENCE: Duration = Duration::from_secs(10);

/// How the machine ended.
pub(super) enum Ended {
    /// A virtual CPU said so.
    ByGuest(End),
    /// Powered off by force.
    Forced,
}

/// What does not change about the machine.
pub(super) struct Facts {
    pub(super) cpus: u8,
    pub(super) memory_mib: u32,
    pub(super) started: Instant,
    pub(super) landlock: bool,
}

pub(super) struct Supervisor {
    pub(super) facts: Facts,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) cpus: Cpus,
    pub(super) workers: Vec<Worker>,
    pub(super) balloon: BalloonHandle,
    pub(super) disks: Disks,
    pub(super) shares: SharesHandle,
    pub(super) button: PowerButton,
    pub(super) run_state: RunState,
    /// When a power-off becomes a forced one.
    pub(super) deadline: Option<Instant>,
}

const ENDED: u64 = 0;
const SIGNALS: u64 = 1;
const CONTROL: u64 = 2;
const BUTTON: u64 = 3;
const WORKER: u64 = 4;
const FIRST_CLIENT: u64 = 5;

impl Supervisor {
    /// Supervises the machine until it ends.
    pub(super) fn run(
        &mut self,
        control: &ControlSocket,
        signals: &TerminationSignals,
    ) -> io::Result<Ended> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add_with = |source: &dyn AsFd, token, flags| {
            epoll::add(&epoll, source.as_fd(), EventData::new_u64(token), flags)
        };
        let add = |source: &dyn AsFd, token| add_with(source, token, EventFlags::IN);
        let lifecycle = Arc::clone(&self.lifecycle);
        add(&lifecycle.ended(), ENDED)?;
        add(&signals, SIGNALS)?;
        // By edge: a client that cannot be accepted, for want of file descriptors,
        // waits until the next one comes, and is not tried for ever.
        add_with(&control, CONTROL, EventFlags::IN | EventFlags::ET)?;

        for worker in &self.workers {
            // That it hangs up is told in any case.
            epoll::add(
                &epoll,
                worker.ended(),
                EventData::new_u64(WORKER),
                EventFlags::empty(),
            )?;
        }

        let mut clients: BTreeMap<u64, Connection> = BTreeMap::new();
        let mut next_client = FIRST_CLIENT;
        let mut events = Vec::with_capacity(MAX_CLIENTS + 4);
        loop {
            let timeout = self.timeout();
            match epoll::wait(
                &epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for Event { data, .. } in events.drain(..) {
                match data.u64() {
                    ENDED => {
                        return self
                            .lifecycle
                            .take_end()
                            .map(Ended::ByGuest)
                            .ok_or_else(|| {
                                io::Error::other("a virtual CPU stopped without a reason")
                            });
                    }
                    SIGNALS => {
                        signals.take()?;
                        let again = self.run_state == RunState::PoweringOff;
                        let patience = if again {
                            Duration::ZERO
                        } else {
                            TERMINATION_PATIENCE
                        };
                        self.power_off(patience);
                    }
                    CONTROL => {
                        while let Ok(Some(connection)) = control.accept() {
                            if clients.len() < MAX_CLIENTS {
                                add(&connection, next_client)?;
                                clients.insert(next_client, connection);
                                next_client += 1;
                            }
                        }
                    }
                    WORKER => return Err(io::Error::other("a device's thread ended")),
                    BUTTON => self.button.read_answer(),
                    token => {
                        let over = clients
                            .get_mut(&token)
                            .is_some_and(|client| !client.serve(|request| self.answer(request)));
                        if over {
                            // Closing it takes it out of epoll.
                            clients.remove(&token);
                        }
                    }
                }
            }
            if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                return Ok(Ended::Forced);
            }
            self.button.retry();
            if let Some(connection) = self.button.new_connection() {
                // By edge: once it has answered, it is kept and not read any more.
                let flags = EventFlags::IN | EventFlags::ET;
                epoll::add(&epoll, connection, EventData::new_u64(BUTTON), flags)?;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::State => Answer::State(State {
                run_state: self.run_state,
                process_id: std::process::id(),
                cpus: self.facts.cpus,
                memory_mib: self.facts.memory_mib,
                uptime_ms: u64::try_from(self.facts.started.elapsed().as_millis())
                    .unwrap_or(u64::MAX),
                seccomp: true,
                landlock: self.facts.landlock,
            }),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::Balloon => {
                // A guest that is paused cannot be asked.
                let patience = match self.run_state {
                    RunState::Paused => Duration::ZERO,
                    _ => BALLOON_PATIENCE,
                };
                Answer::Balloon(self.balloon.statistics(patience))
            }
            Request::ResizeDisk { index } => self.disks.resize(index),
            Request::AddExport(export) => self.shares.add(export),
            Request::RemoveExport { name } => self.shares.remove(name),
            Request::Exports => self.shares.names(),
            Request::PowerOff { timeout_ms } => {
                self.power_off(Duration::from_millis(timeout_ms));
                Answer::Done
            }
        }
    }

    fn pause(&mut self) -> Answer {
        match self.run_state {
            RunState::Paused => return Answer::Done,
            RunState::PoweringOff => {
                return Answer::Error {
                    message: "the machine is powering off".to_owned(),
                };
            }
            RunState::Running => {}
        }
        self.lifecycle.order_pause();
        self.cpus.kick();
        if self
            .lifecycle
            .wait_parked(self.cpus.count(), PAUSE_PATIENCE)
        {
            self.run_state = RunState::Paused;
            return Answer::Done;
        }
        self.lifecycle.resume();
        Answer::Error {
            message: format!(
                "a virtual CPU did not stop within {} s",
                PAUSE_PATIENCE.as_secs()
            ),
        }
    }

    fn resume(&mut self) -> Answer {
        if self.run_state == RunState::Paused {
            self.lifecycle.resume();
            self.run_state = RunState::Running;
        }
        Answer::Done
    }

    /// Asks the guest to power off; a later call can only shorten its time.
    fn power_off(&mut self, patience: Duration) {
        self.resume();
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
}
