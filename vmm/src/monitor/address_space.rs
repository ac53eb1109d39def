//! What a guest finds at ports and addresses that are not memory: virtio-mmio
//! devices, the I/O APIC, the power-off port and a keyboard controller's reset line. All else
//! reads as ones and ignores writes, in silence: a guest can read and write
//! nothing as often as it likes.

use std::sync::Arc;

use crate::kvm::layout;
use crate::kvm::machine::Machine;
use crate::kvm::vcpu::{Bus, End, Next};
use crate::transport::mmio::MmioTransport;

use super::lifecycle::Lifecycle;

/// The guest writes a byte 0 here after it has stopped everything (QEMU's
/// isa-debug-exit).
const POWER_OFF_PORT: u16 = 0xf4;
/// The keyboard controller's status and command port.
const KEYBOARD_CONTROLLER: u16 = 0x64;
/// The command that pulses its output line 0, which is the processor's reset.
const PULSE_RESET: u8 = 0xfe;

/// Ports and addresses of one machine.
pub(super) struct AddressSpace {
    /// Has the I/O APIC.
    pub(super) machine: Machine,
    /// In the order of their places, from [`layout::VIRTIO_MMIO`] up.
    pub(super) devices: Vec<Arc<MmioTransport>>,
    pub(super) lifecycle: Arc<Lifecycle>,
}

impl AddressSpace {
    /// The device that has `address`, and the offset in its registers.
    fn device(&self, address: u64) -> Option<(&MmioTransport, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_MMIO)?;
        let index = usize::try_from(offset / layout::VIRTIO_MMIO_SIZE).ok()?;
        let device = self.devices.get(index)?;
        Some((device, offset % layout::VIRTIO_MMIO_SIZE))
    }
}

/// The offset of `address` in the I/O APIC's registers.
fn io_apic_register(address: u64) -> Option<u64> {
    address
        .checked_sub(u64::from(layout::IO_APIC))
        .filter(|offset| *offset < layout::IO_APIC_SIZE)
}

impl Bus for AddressSpace {
    fn read_port(&self, port: u16, data: &mut [u8]) {
        // Linux waits for an empty input buffer before it writes a command.
        data.fill(if port == KEYBOARD_CONTROLLER { 0 } else { 0xff });
    }

    fn write_port(&self, port: u16, data: &[u8]) -> Option<End> {
        match (port, data.first()) {
            (POWER_OFF_PORT, Some(0)) => Some(End::PoweredOff),
            (KEYBOARD_CONTROLLER, Some(&PULSE_RESET)) => Some(End::Reset),
            _ => None,
        }
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.device(address) {
            device.read(offset, data);
        } else if let (Some(offset), Ok(data)) =
            (io_apic_register(address), <&mut [u8; 4]>::try_from(data))
        {
            *data = self.machine.read_io_apic(offset).to_le_bytes();
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> Option<End> {
        if let Some((device, offset)) = self.device(address) {
            device.write(offset, data);
        } else if let (Some(offset), Ok(data)) =
            (io_apic_register(address), <[u8; 4]>::try_from(data))
        {
            let written = self.machine.write_io_apic(offset, u32::from_le_bytes(data));
            return written.err().map(|error| End::Failed(error.to_string()));
        }
        None
    }

    fn kicked(&self) -> Next {
        self.lifecycle.kicked()
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::devices::rng::Rng;
    use crate::kvm::{memory, open};

    /// Nothing where KVM cannot be opened.
    fn space() -> Option<AddressSpace> {
        let kvm = open::open()
            .inspect_err(|error| eprintln!("skipped: {error}"))
            .ok()?;
        let memory = memory::allocate(1 << 20).unwrap();
        let interrupt = EventFd::new(0).unwrap();
        let device = Box::new(Rng::new());
        Some(AddressSpace {
            machine: Machine::new(&kvm, memory.clone(), 1, 2).unwrap(),
            devices: vec![MmioTransport::new(device, memory, interrupt).unwrap()],
            lifecycle: Arc::new(Lifecycle::new().unwrap()),
        })
    }

    fn read(space: &AddressSpace, address: u64) -> [u8; 4] {
        let mut data = [0; 4];
        space.read(address, &mut data);
        data
    }

    #[test]
    fn devices_answer_at_their_addresses_and_nothing_elsewhere() {
        let Some(space) = space() else { return };
        assert_eq!(&read(&space, layout::VIRTIO_MMIO), b"virt");
        for nothing in [
            layout::VIRTIO_MMIO - 4,
            layout::VIRTIO_MMIO + layout::VIRTIO_MMIO_SIZE,
            u64::from(layout::IO_APIC) + layout::IO_APIC_SIZE,
            u64::MAX - 3,
        ] {
            assert_eq!(read(&space, nothing), [0xff; 4]);
            assert_eq!(space.write(nothing, &[0; 4]), None);
        }
    }

    #[test]
    fn interrupts_are_routed_by_the_io_apic() {
        let Some(space) = space() else { return };
        let io_apic = u64::from(layout::IO_APIC);
        let write_register = |register: u32, value: u32| {
            assert_eq!(space.write(io_apic, &register.to_le_bytes()), None);
            assert_eq!(space.write(io_apic + 0x10, &value.to_le_bytes()), None);
            u32::from_le_bytes(read(&space, io_apic + 0x10))
        };
        assert_eq!(write_register(0x12, 0x31), 0x31);
        assert_eq!(write_register(0x12, 0x1_0031), 0x1_0031);
        // Of another width, or beyond its lines: nothing.
        assert_eq!(write_register(0x14, 0x31), 0);
        assert_eq!(space.write(io_apic + 0x10, &[0; 8]), None);
    }

    #[test]
    fn ports_do_what_they_are_for_and_no_more() {
        let Some(space) = space() else { return };
        assert_eq!(space.write_port(0xf4, &[0]), Some(End::PoweredOff));
        assert_eq!(space.write_port(0xf4, &[1]), None);
        assert_eq!(space.write_port(0x64, &[0xfe]), Some(End::Reset));
        assert_eq!(space.write_port(0x64, &[0xd1]), None);
        assert_eq!(space.write_port(0xf4, &[]), None);
        let mut data = [0; 4];
        space.read_port(0x3f8, &mut data);
        assert_eq!(data, [0xff; 4]);
        space.read_port(0x64, &mut data[..1]);
        assert_eq!(data[0], 0);
    }
}
