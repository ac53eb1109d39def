//! Tells whether this host's KVM can run a Linux, by running a guest of a few
//! milliseconds that does what a kernel does at its start.
//!
//! There are KVMs that open, answer every ioctl, and still cannot: one that
//! interprets kernel code in software runs it a thousand times too slow and
//! gives up at instructions every kernel uses. The verdict says so in one line.
//!
//! Run by drivers as a child process (`dctl vmm --probe`), so that a KVM that
//! hangs for good hangs nobody else. [`probe`] itself gives up after
//! [`TIME_LIMIT`]. How long a verdict holds is the caller's business.

mod guest;

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kvm::machine::Machine;
use crate::kvm::vcpu::{self, Bus, End, Kicker, Next, ThreadId};
use crate::kvm::{layout, memory, open, registers};

/// The guest has so long. It needs less than 10 ms where KVM is usable.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// After the guest was told to stop, its thread has so long.
const STOP_LIMIT: Duration = Duration::from_millis(200);
/// A kernel-mode loop step may take so long, in nanoseconds of processor time.
/// Hardware takes less than 1, hardware virtualisation that is itself emulated
/// some 10, KVM that interprets kernel code some 800.
const MAX_LOOP_STEP_NS: u64 = 200;
const MEMORY_BYTES: u64 = 4 << 20;

/// Whether KVM is usable here, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// A Linux guest can be expected to run well.
    pub usable: bool,
    /// One line for a user: what works, or what does not.
    pub reason: String,
    /// What was looked at, in order; those after the first failure were not
    /// reached.
    pub checks: Vec<Check>,
}

/// One thing that the probe looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it must be.
    pub passed: bool,
    /// A measurement or an error, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Looks at this host's KVM. Takes less than a second, whatever KVM does.
pub fn probe() -> Verdict {
    let mut checks = Vec::new();
    let failure = examine(&mut checks).err();
    Verdict {
        usable: failure.is_none(),
        reason: failure.unwrap_or_else(|| "KVM runs kernel code at full speed".to_owned()),
        checks,
    }
}

fn check(
    checks: &mut Vec<Check>,
    name: &str,
    result: Result<Option<String>, String>,
) -> Result<(), String> {
    let (passed, detail) = match &result {
        Ok(detail) => (true, detail.clone()),
        Err(error) => (false, Some(error.clone())),
    };
    checks.push(Check {
        name: name.to_owned(),
        passed,
        detail,
    });
    result.map(drop)
}

fn examine(checks: &mut Vec<Check>) -> Result<(), String> {
    let opened = open::open().map_err(|error| error.to_string());
    check(
        checks,
        "/dev/kvm",
        opened.as_ref().map(|_| None).map_err(Clone::clone),
    )?;
    let kvm = opened?;
    let prepared = prepare(&kvm);
    check(
        checks,
        "a virtual machine",
        prepared.as_ref().map(|_| None).map_err(Clone::clone),
    )?;
    let (machine, vcpu) = prepared?;
    let run = run(machine, vcpu)?;

    if let Some(step_ns) = run.progress.loop_step_ns() {
        let detail = format!("{step_ns} ns for each step");
        check(
            checks,
            guest::LOOP,
            if step_ns <= MAX_LOOP_STEP_NS {
                Ok(Some(detail))
            } else {
                Err(format!(
                    "this KVM interprets kernel code in software: {detail} of a loop, where \
                     hardware needs less than 1 (a virtual machine or container host without \
                     nested virtualisation?)"
                ))
            },
        )?;
    }
    let reached = run.progress.reached;
    for (stage, name) in guest::STAGES {
        if stage == guest::STAGE_LOOP {
            continue;
        }
        if stage < reached || run.finished() {
            check(checks, name, Ok(None))?;
        }
    }
    if run.finished() {
        return Ok(());
    }
    let name = guest::stage_name(reached);
    let what = match (&run.end, run.progress.fault) {
        (_, Some(guest::FAULT_WRONG_RESULT)) => "gave a wrong result".to_owned(),
        (_, Some(_)) => "raised an unexpected exception".to_owned(),
        (Some(End::Stopped) | None, None) => "did not end in time".to_owned(),
        (Some(End::KvmInternalError(detail) | End::Failed(detail)), None) => {
            format!("ended in an error of KVM's ({detail})")
        }
        (Some(End::TripleFault), None) => "ended in a triple fault".to_owned(),
        (Some(End::PoweredOff | End::Reset), None) => "ended too early".to_owned(),
    };
    check(
        checks,
        name,
        Err(format!(
            "this KVM cannot run a Linux kernel: in a guest, {name} {what}"
        )),
    )
}

fn prepare(kvm: &kvm_ioctls::Kvm) -> Result<(Machine, kvm_ioctls::VcpuFd), String> {
    vcpu::handle_kicks().map_err(|error| format!("cannot handle signals: {error}"))?;
    let memory =
        memory::allocate(MEMORY_BYTES).map_err(|error| format!("cannot map memory: {error}"))?;
    registers::write_tables(&memory).map_err(|error| error.to_string())?;
    guest::write(&memory).map_err(|error| error.to_string())?;
    let machine = Machine::new(kvm, memory, 1, 0).map_err(|error| error.to_string())?;
    let vcpu = machine
        .create_vcpu(0, guest::ENTRY)
        .map_err(|error| error.to_string())?;
    Ok((machine, vcpu))
}

/// What came of running the guest.
struct Run {
    progress: Progress,
    /// None if KVM hangs: even a kick did not bring its thread back.
    end: Option<End>,
}

impl Run {
    fn finished(&self) -> bool {
        self.end == Some(End::PoweredOff)
    }
}

/// What the guest has said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    reached: u8,
    fault: Option<u8>,
    /// Processor time of this thread when the loop began, and the shortest it
    /// took, in nanoseconds.
    loop_began: u64,
    loop_took: Option<u64>,
}

impl Progress {
    fn loop_step_ns(&self) -> Option<u64> {
        self.loop_took
            .map(|took| took / u64::from(guest::LOOP_STEPS))
    }
}

fn run(machine: Machine, mut vcpu: kvm_ioctls::VcpuFd) -> Result<Run, String> {
    let progress = Arc::new(Mutex::new(Progress::default()));
    let kicker = Kicker::new(&vcpu).map_err(|error| format!("cannot map a vCPU: {error}"))?;
    let (sender, receiver) = mpsc::channel();
    let bus = ProbeBus(Arc::clone(&progress));
    thread::Builder::new()
        .name("probe".to_owned())
        .stack_size(128 << 10)
        .spawn(move || {
            let _ = sender.send(Message::Started(ThreadId::current()));
            let end = vcpu::run(&mut vcpu, &bus);
            // A receiver that has gone has given up on this thread.
            let _ = sender.send(Message::Ended(end));
            drop(machine);
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;

    let mut thread_id = None;
    let mut limit = TIME_LIMIT;
    let mut told_to_stop = false;
    let end = loop {
        match receiver.recv_timeout(limit) {
            Ok(Message::Started(id)) => thread_id = Some(id),
            Ok(Message::Ended(end)) => break Some(end),
            Err(_) if told_to_stop => break None,
            Err(_) => {
                told_to_stop = true;
                limit = STOP_LIMIT;
                if let Some(id) = thread_id {
                    kicker.kick(id);
                }
            }
        }
    };
    let progress = *progress.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Run { progress, end })
}

enum Message {
    Started(ThreadId),
    Ended(End),
}

struct ProbeBus(Arc<Mutex<Progress>>);

impl Bus for ProbeBus {
    fn read_port(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write_port(&self, port: u16, data: &[u8]) -> Option<End> {
        let value = *data.first()?;
        if port == guest::FINISHED_PORT {
            return Some(End::PoweredOff);
        }
        if port != guest::STAGE_PORT {
            return None;
        }
        let now = thread_cpu_time_ns();
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if value >= guest::FAULT_WRONG_RESULT {
            progress.fault = Some(value);
            return Some(End::Stopped);
        }
        if progress.reached == guest::STAGE_LOOP {
            let took = now.saturating_sub(progress.loop_began);
            progress.loop_took = Some(progress.loop_took.map_or(took, |best| best.min(took)));
        }
        progress.reached = value;
        progress.loop_began = thread_cpu_time_ns();
        None
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if address == layout::VIRTIO_MMIO && data.len() == 4 {
            data.copy_from_slice(&guest::MMIO_VALUE.to_le_bytes());
        }
    }

    fn write(&self, _: u64, _: &[u8]) -> Option<End> {
        None
    }

    fn kicked(&self) -> Next {
        Next::Stop
    }
}

/// Processor time is not lengthened by others' use of a busy host.
fn thread_cpu_time_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Whatever this host has: the probe must come to a verdict, in time, that
    /// agrees with its checks.
    #[test]
    fn a_verdict_comes_in_time_and_with_a_reason() {
        let began = Instant::now();
        let verdict = probe();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(
            verdict.usable,
            verdict.checks.iter().all(|check| check.passed)
        );
        assert!(!verdict.checks.is_empty());
        if !verdict.usable {
            let last = verdict.checks.last().unwrap();
            assert_eq!(last.detail.as_deref(), Some(verdict.reason.as_str()));
        }
        assert!(!verdict.reason.is_empty() && !verdict.reason.contains('\n'));
    }
}
