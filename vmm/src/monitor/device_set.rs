//! The machine's devices: made from its configuration, put behind virtio-mmio
//! registers, and connected to interrupts and notifications.

use std::fmt::{Display, Write};
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::disks::Disks;
use super::{Failure, failed};
use crate::config::{ShareTransport, VmConfig};
use crate::devices::VirtioDevice;
use crate::devices::balloon::{Balloon, BalloonHandle};
use crate::devices::block::Block;
use crate::devices::console::{Console, PanicReport};
use crate::devices::fs::Fs;
use crate::devices::rng::Rng;
use crate::devices::vsock::Vsock;
use crate::exit::Reason;
use crate::kvm::machine::Machine;
use crate::kvm::{GuestMemory, layout};
use crate::transport::mmio::MmioTransport;

/// Console, vsock, rng, balloon and shared files; what is left is for disks.
const DEVICES_BESIDE_DISKS: usize = 5;

/// A machine's devices.
pub(super) struct DeviceSet {
    /// Disks first, in their order, then the others, shared files last.
    pub(super) transports: Vec<Arc<MmioTransport>>,
    /// The device of shared files, if there is one: also the last of `transports`.
    pub(super) shares: Option<Arc<MmioTransport>>,
    pub(super) disks: Disks,
    pub(super) balloon: BalloonHandle,
    pub(super) panic: Arc<PanicReport>,
}

impl DeviceSet {
    /// Makes them, and connects them to `machine`.
    pub(super) fn new(
        config: &VmConfig,
        shares: Option<Fs>,
        machine: &Machine,
        memory: &GuestMemory,
    ) -> Result<Self, Failure> {
        let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
        let mut disks = Disks::default();
        for disk in &config.disks {
            let device = Block::open(disk).map_err(unusable)?;
            disks.push(device.handle());
            devices.push(Box::new(device));
        }
        let console = Console::new(&config.console_log).map_err(unusable)?;
        let panic = console.panic_report();
        let balloon = Balloon::new().map_err(failed("make the balloon"))?;
        let balloon_handle = balloon.handle();
        devices.push(Box::new(console));
        devices.push(Box::new(Vsock::new(&config.vsock).map_err(|error| {
            unusable(format!(
                "cannot make the vsock device at {}: {error}",
                config.vsock.socket.display()
            ))
        })?));
        devices.push(Box::new(Rng::new()));
        devices.push(Box::new(balloon));
        let has_shares = shares.is_some();
        devices.extend(shares.map(|device| Box::new(device) as Box<dyn VirtioDevice>));

        let transports: Vec<_> = (0..)
            .zip(devices)
            .map(|(slot, device)| {
                connect(slot, device, machine, memory).map_err(failed("connect a device"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shares: transports.last().filter(|_| has_shares).cloned(),
            transports,
            disks,
            balloon: balloon_handle,
            panic,
        })
    }
}

/// What the kernel's command line must say for Linux to find `devices` devices.
pub(super) fn command_line(devices: usize) -> String {
    (0..devices as u32).fold(String::new(), |mut line, slot| {
        // Writing to a string does not fail.
        let _ = write!(
            line,
            " virtio_mmio.device=4K@{:#x}:{}",
            address(slot),
            irq(slot)
        );
        line
    })
}

/// The number of devices that a configuration asks for.
pub(super) fn count(config: &VmConfig) -> Result<usize, Failure> {
    let most = layout::MAX_DEVICES - DEVICES_BESIDE_DISKS;
    match config.disks.len() {
        disks if disks <= most => {
            let shares = config.shares.as_ref().map(|shares| &shares.transport);
            let has_device = matches!(shares, Some(ShareTransport::VirtioFs { .. }));
            Ok(disks + DEVICES_BESIDE_DISKS - usize::from(!has_device))
        }
        disks => Err(unusable(format!(
            "a machine has at most {most} disks, not {disks}"
        ))),
    }
}

fn address(slot: u32) -> u64 {
    layout::VIRTIO_MMIO + u64::from(slot) * layout::VIRTIO_MMIO_SIZE
}

fn irq(slot: u32) -> u32 {
    layout::FIRST_IRQ + slot
}

fn connect(
    slot: u32,
    device: Box<dyn VirtioDevice>,
    machine: &Machine,
    memory: &GuestMemory,
) -> io::Result<Arc<MmioTransport>> {
    let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    machine
        .connect_interrupt(&interrupt, irq(slot))
        .map_err(io::Error::other)?;
    let transport = MmioTransport::new(device, memory.clone(), interrupt)?;
    for (queue, event) in (0..).zip(transport.queue_events()) {
        machine
            .connect_notification(
                event,
                address(slot) + layout::VIRTIO_MMIO_QUEUE_NOTIFY,
                queue,
            )
            .map_err(io::Error::other)?;
    }
    Ok(transport)
}

fn unusable<E: Display>(error: E) -> Failure {
    Failure {
        reason: Reason::BadConfiguration,
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_announced_at_its_place() {
        assert_eq!(
            command_line(2),
            " virtio_mmio.device=4K@0xd0000000:1 virtio_mmio.device=4K@0xd0001000:2"
        );
        assert!(irq(layout::MAX_DEVICES as u32 - 1) <= layout::LAST_IRQ);
    }
}
