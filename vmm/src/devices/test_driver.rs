//! The guest's side of devices, for tests: a split virtqueue (2.7) written by hand
//! into real guest memory.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{GuestMemory, Outcome, VirtioDevice, Virtqueues};

/// Entries of every test queue.
pub(crate) const SIZE: u16 = 64;

/// Bytes that a queue's rings take.
pub(crate) const RINGS: u64 = 0x1000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Guest memory of 16 MiB in two regions that touch, so that buffers can span them.
pub(crate) fn memory() -> GuestMemory {
    const HALF: usize = 8 << 20;
    GuestMemory::from_ranges(&[(GuestAddress(0), HALF), (GuestAddress(HALF as u64), HALF)]).unwrap()
}

/// One queue as its driver sees it.
pub(crate) struct Ring {
    memory: GuestMemory,
    base: u64,
    next_descriptor: u16,
    available: u16,
    used: u16,
}

/// A descriptor: address, length, and whether the device writes it.
pub(crate) type Descriptor = (u64, u32, bool);

impl Ring {
    pub(crate) fn new(memory: &GuestMemory, base: u64) -> Self {
        let zeros = [0; RINGS as usize];
        memory.write_slice(&zeros, GuestAddress(base)).unwrap();
        Self {
            memory: memory.clone(),
            base,
            next_descriptor: 0,
            available: 0,
            used: 0,
        }
    }

    pub(crate) fn descriptors(&self) -> u64 {
        self.base
    }

    pub(crate) fn available_ring(&self) -> u64 {
        self.base + 0x800
    }

    pub(crate) fn used_ring(&self) -> u64 {
        self.base + 0xc00
    }

    /// The device's side of it.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(SIZE).unwrap();
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptors()))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(self.available_ring()))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(self.used_ring()))
            .unwrap();
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    /// Makes a chain available and returns its head. The caller sees to it that the
    /// descriptors it takes are not in use.
    pub(crate) fn offer(&mut self, chain: &[Descriptor]) -> u16 {
        let head = self.next_descriptor;
        for (index, (address, length, writable)) in chain.iter().enumerate() {
            let slot = self.next_descriptor;
            self.next_descriptor = (slot + 1) % SIZE;
            let mut flags = if *writable { WRITE } else { 0 };
            if index + 1 < chain.len() {
                flags |= NEXT;
            }
            let at = self.descriptors() + u64::from(slot) * 16;
            self.put(at, *address);
            self.put(at + 8, *length);
            self.put(at + 12, flags);
            self.put(at + 14, self.next_descriptor);
        }
        let entry = self.available_ring() + 4 + u64::from(self.available % SIZE) * 2;
        self.put(entry, head);
        self.available = self.available.wrapping_add(1);
        self.memory
            .store(
                self.available,
                GuestAddress(self.available_ring() + 2),
                Ordering::Release,
            )
            .unwrap();
        head
    }

    /// Makes a chain of one writable descriptor available in the slot `head`, which the
    /// device is done with.
    pub(crate) fn offer_again(&mut self, head: u16, address: u64, length: u32) -> u16 {
        self.next_descriptor = head;
        self.offer(&[(address, length, true)])
    }

    /// The next used chain: its head and the bytes written.
    pub(crate) fn take_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self
            .memory
            .load(GuestAddress(self.used_ring() + 2), Ordering::Acquire)
            .unwrap();
        if index == self.used {
            return None;
        }
        let entry = self.used_ring() + 4 + u64::from(self.used % SIZE) * 8;
        self.used = self.used.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
        let written = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
        Some((head as u16, written))
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }
}

/// Calls a device as a transport does.
pub(crate) fn call(
    device: &mut dyn VirtioDevice,
    queues: &mut [Queue],
    memory: &GuestMemory,
    call: impl FnOnce(&mut dyn VirtioDevice, &mut Virtqueues<'_>),
) -> Outcome {
    let mut queues = Virtqueues::new(queues.iter_mut(), memory);
    call(device, &mut queues);
    queues.finish()
}
