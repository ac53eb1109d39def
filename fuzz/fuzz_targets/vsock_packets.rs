//! Any packets of a guest, with hosts that connect, talk and close at any moment.
#![no_main]

use std::{
    cell::RefCell,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use dctl_fuzz::{Input, guest_memory};
use dctl_vmm::{
    config::VsockConfig,
    devices::{GuestMemory, VirtioDevice, Virtqueues, vsock::Vsock},
};
use libfuzzer_sys::fuzz_target;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Ports that meet: those of the first connections that hosts open, and one that
/// somebody listens on.
const HOST_PORTS: [u32; 4] = [1 << 30, (1 << 30) + 1, 7000, 1];
const GUEST_PORTS: [u32; 2] = [1024, 5];

const RECEIVE_BUFFER: u32 = 512;

struct Rig {
    device: Vsock,
    listener: UnixListener,
    directory: tempfile::TempDir,
}

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new({
        let directory = tempfile::tempdir().expect("there is room");
        let socket = directory.path().join("vsock");
        let listener = UnixListener::bind(directory.path().join("vsock_7000")).expect("bound");
        listener.set_nonblocking(true).expect("it is a socket");
        let device = Vsock::new(&VsockConfig { cid: 3, socket }).expect("bound");
        Rig { device, listener, directory }
    });
}

/// The two queues and what the driver has put in them.
struct Driver {
    memory: GuestMemory,
    queues: Vec<Queue>,
    available: [u16; 2],
}

impl Driver {
    fn new() -> Self {
        let memory = guest_memory(&[]);
        let queues = dctl_fuzz::queues(&memory, 2, false);
        Self {
            memory,
            queues,
            available: [0; 2],
        }
    }

    fn offer(&mut self, queue: usize, at: u64, length: u32, flags: u16) {
        let slot = self.available[queue] % 16;
        let base = queue as u64 * 0x200;
        let descriptor = base + u64::from(slot) * 16;
        let put = |at: u64, bytes: &[u8]| {
            self.memory
                .write_slice(bytes, GuestAddress(at))
                .expect("it is memory");
        };
        put(descriptor, &at.to_le_bytes());
        put(descriptor + 8, &length.to_le_bytes());
        put(descriptor + 12, &flags.to_le_bytes());
        put(base + 0x104 + u64::from(slot) * 2, &slot.to_le_bytes());
        self.available[queue] = self.available[queue].wrapping_add(1);
        put(base + 0x102, &self.available[queue].to_le_bytes());
    }

    /// Whether the queue's last entry is taken: its slot may be used again.
    fn room(&self, queue: usize) -> bool {
        self.available[queue].wrapping_sub(self.queues[queue].next_avail()) < 16
    }

    fn call(&mut self, call: impl FnOnce(&mut Virtqueues<'_>)) {
        let mut queues = Virtqueues::new(self.queues.iter_mut(), &self.memory);
        call(&mut queues);
        assert_eq!(
            queues.finish().failure,
            None,
            "the driver's rings are sound"
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut driver = Driver::new();
    let mut hosts: Vec<UnixStream> = Vec::new();
    RIG.with_borrow_mut(|rig| {
        while !input.is_empty() {
            match input.number(1) % 8 {
                0..=2 => packet(&mut input, &mut driver, &mut rig.device),
                3 => {
                    if driver.room(0) {
                        driver.offer(0, 0x8000, RECEIVE_BUFFER, 2);
                    }
                    driver.call(|queues| rig.device.process_queue(0, queues));
                }
                4 if hosts.len() < 8 => {
                    if let Ok(host) = UnixStream::connect(rig.directory.path().join("vsock")) {
                        let _ = host.set_nonblocking(true);
                        let _ = (&host).write_all(b"CONNECT 1024\n");
                        hosts.push(host);
                    }
                }
                5 => {
                    let length = input.number(2) as usize;
                    if let Some(mut host) = hosts.first() {
                        let _ = host.write(&vec![0; length]);
                    }
                }
                6 => {
                    for mut host in &hosts {
                        let _ = host.read(&mut [0; 4096]);
                    }
                    if let Ok((host, _)) = rig.listener.accept() {
                        let _ = host.set_nonblocking(true);
                        hosts.push(host);
                    }
                }
                _ => {
                    hosts.pop();
                }
            }
            driver.call(|queues| rig.device.process_event(queues));
        }
        drop(hosts);
        rig.device.reset();
        while rig.listener.accept().is_ok() {}
    });
});

/// A packet of the guest: ports that are likely to meet, and the rest as it comes.
fn packet(input: &mut Input<'_>, driver: &mut Driver, device: &mut Vsock) {
    let choice = input.number(1) as usize;
    let mut header = Vec::with_capacity(44);
    let source = if choice & 0x80 != 0 {
        input.number(8)
    } else {
        3
    };
    header.extend(source.to_le_bytes());
    header.extend(2_u64.to_le_bytes());
    header.extend(GUEST_PORTS[choice >> 2 & 1].to_le_bytes());
    header.extend(HOST_PORTS[choice & 3].to_le_bytes());
    let length = input.number(2) as u32;
    header.extend(length.to_le_bytes());
    header.extend(1_u16.to_le_bytes());
    header.extend((input.number(1) as u16).to_le_bytes());
    header.extend((input.number(1) as u32).to_le_bytes());
    header.extend((input.number(4) as u32).to_le_bytes());
    header.extend((input.number(4) as u32).to_le_bytes());
    driver
        .memory
        .write_slice(&header, GuestAddress(0x4000))
        .expect("it is memory");
    // Nearly always with its payload.
    let there = if choice & 0x40 != 0 { 10 } else { length };
    if driver.room(1) {
        driver.offer(1, 0x4000, 44 + there, 0);
    }
    driver.call(|queues| device.process_queue(1, queues));
}
