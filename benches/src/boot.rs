//! From the monitor's start to the agent's call, and what it took.

use anyhow::{Context, Result};
use guest_protocol::methods::MachineInfo;

use crate::Options;
use crate::agent::Agent;
use crate::statistics::{compare, median};
use crate::vm::{self, MEMORY_MIB, Machine, Monitor};

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let formatted = vm::formatted_disk(options, folder.path())?;
    let disk = folder.path().join("disk.raw");
    let mut measured = MONITORS.map(|_| Measured::default());
    // In turns, so that what else the machine does meets all alike.
    for _ in 0..options.rounds {
        for (monitor, measured) in MONITORS.into_iter().zip(&mut measured) {
            vm::copy_disk(&formatted, &disk)?;
            let machine = Machine::start(options, monitor, 1, folder.path(), &disk)?;
            let (guest, monitor) = vm::resident(machine.process())?;
            if let Some(agent) = machine.agent() {
                measured.inside.push(inside(&agent)?);
            }
            measured.times.push(machine.ready_after.as_secs_f64() * 1e3);
            measured.exits.push(machine.exits as f64);
            measured.guest.push(guest as f64 / 1024.0);
            measured.monitor.push(monitor as f64 / 1024.0);
        }
    }
    let [ours, qemu, bare, one_port] = &measured;
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    for (peer, theirs) in [
        ("QEMU's microvm", qemu),
        ("QEMU without a PC's devices", bare),
        ("and a console of one port", one_port),
    ] {
        compare(
            "start to agent ready",
            middle(&ours.times)?,
            peer,
            middle(&theirs.times)?,
            "ms",
            0.4,
        );
        compare(
            "VM exits until then",
            middle(&ours.exits)?,
            peer,
            middle(&theirs.exits)?,
            "exits",
            0.5,
        );
    }
    println!(
        "  of it the guest's own, from its kernel's start: {:.0} ms, which is {:.2} of QEMU's whole \
         start",
        middle(&ours.inside)?,
        middle(&ours.inside)? / middle(&one_port.times)?
    );
    println!(
        "  monitor's own memory: {:.1} MiB (at most 8), QEMU {:.1} MiB",
        middle(&ours.monitor)?,
        middle(&qemu.monitor)?
    );
    println!(
        "  guest memory in use when ready: {:.0} MiB of {MEMORY_MIB}",
        middle(&ours.guest)?
    );
    Ok(())
}

/// Milliseconds from the kernel's start to the agent's call, by the guest's clock. What
/// the kernel does itself costs as much under either monitor, but for its devices.
fn inside(agent: &Agent) -> Result<f64> {
    let stages = agent.call(MachineInfo {})?.boot_stages;
    let (_, ready) = stages.last().context("the guest tells of no boot")?;
    Ok(*ready as f64)
}

/// What is compared; ours first.
const MONITORS: [Monitor; 4] = [
    Monitor::Ours,
    Monitor::Qemu,
    Monitor::QemuBare,
    Monitor::QemuOnePort,
];

#[derive(Default)]
struct Measured {
    times: Vec<f64>,
    inside: Vec<f64>,
    exits: Vec<f64>,
    guest: Vec<f64>,
    monitor: Vec<f64>,
}
