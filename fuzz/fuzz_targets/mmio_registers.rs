//! Any reads and writes of a device's registers, in any order.
#![no_main]

use dctl_fuzz::{Input, guest_memory};
use dctl_vmm::{
    devices::{VirtioDevice, balloon::Balloon, rng::Rng},
    transport::mmio::MmioTransport,
};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Status values on the way to a running device.
const STATUS: [u32; 8] = [0, 1, 3, 11, 15, 128, 64, 7];

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let memory = guest_memory(&[]);
    let device: Box<dyn VirtioDevice> = if input.number(1) & 1 == 0 {
        Box::new(Rng::new())
    } else {
        Box::new(Balloon::new().expect("there are file descriptors"))
    };
    let interrupt = EventFd::new(EFD_NONBLOCK).expect("there are file descriptors");
    let transport =
        MmioTransport::new(device, memory.clone(), interrupt).expect("there are file descriptors");
    let set = |register: u64, value: u32| transport.write(register, &value.to_le_bytes());
    while !input.is_empty() {
        match input.number(1) % 7 {
            0 => {
                let (offset, width) = (input.number(2), input.number(1) as usize % 9);
                transport.read(offset, &mut vec![0; width]);
            }
            1 => {
                let (offset, width) = (input.number(2), input.number(1) as usize % 9);
                let value = input.number(8);
                transport.write(offset, &value.to_le_bytes()[..width.min(8)]);
            }
            2 => set(0x70, STATUS[input.number(1) as usize % 8]),
            3 => {
                // The feature that must be, and maybe more.
                set(0x24, 1);
                set(0x20, 1);
                set(0x24, 0);
                set(0x20, input.number(4) as u32);
            }
            4 => {
                set(0x30, input.number(1) as u32 % 5);
                set(0x38, 16);
                set(0x80, 0);
                set(0x90, 0x100);
                set(0xa0, 0x140);
                set(0x44, 1);
            }
            5 => {
                // Into the rings.
                let at = GuestAddress(input.number(2) % 0x400);
                let length = input.number(1) as usize % 32;
                memory
                    .write_slice(input.bytes(length), at)
                    .expect("it is memory");
            }
            _ => {
                transport.process_queue(input.number(1) as usize % 5);
                transport.process_event();
            }
        }
    }
});
