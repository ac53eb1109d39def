//! What the fuzz targets share: guest memory whose contents, rings included, are the
//! fuzzer's input, a reader of that input, and archives made of it.

use dctl_vmm::devices::{GuestMemory, VirtioDevice, Virtqueues};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Entries of each queue. Few, so that inputs are short.
const SIZE: u16 = 16;

/// Guest memory takes from one queue's rings to the next.
const RINGS: u64 = 0x200;

/// Bytes of guest memory, in two regions that touch.
const MEMORY: usize = 64 * 1024;

/// Guest memory that begins with `input`: with the rings of all queues.
pub fn guest_memory(input: &[u8]) -> GuestMemory {
    let half = MEMORY / 2;
    let regions = [(GuestAddress(0), half), (GuestAddress(half as u64), half)];
    let memory = GuestMemory::from_ranges(&regions).expect("guest memory is mapped");
    let length = input.len().min(MEMORY);
    memory
        .write_slice(&input[..length], GuestAddress(0))
        .expect("the input fits");
    memory
}

/// `count` queues whose rings are at the beginning of guest memory. The driver says that
/// there is something in them.
pub fn queues(memory: &GuestMemory, count: usize, event_index: bool) -> Vec<Queue> {
    (0..count as u64)
        .map(|index| {
            let base = index * RINGS;
            let mut queue = Queue::new(SIZE).expect("the size is a power of two");
            let set = |result: Result<(), virtio_queue::Error>| result.expect("aligned");
            set(queue.try_set_desc_table_address(GuestAddress(base)));
            set(queue.try_set_avail_ring_address(GuestAddress(base + 0x100)));
            set(queue.try_set_used_ring_address(GuestAddress(base + 0x140)));
            queue.set_event_idx(event_index);
            queue.set_ready(true);
            // Nearly any input would be over the limit.
            let available = GuestAddress(base + 0x102);
            let count: u16 = memory.read_obj(available).expect("it is memory");
            memory
                .write_obj(count % (SIZE + 2), available)
                .expect("it is memory");
            queue
        })
        .collect()
}

/// Calls a device as a transport does: every queue, and its own events, twice.
pub fn run(device: &mut dyn VirtioDevice, memory: &GuestMemory, queues: &mut [Queue]) {
    for _ in 0..2 {
        for index in 0..queues.len() {
            let mut all = Virtqueues::new(queues.iter_mut(), memory);
            device.process_queue(index, &mut all);
            all.finish();
        }
        let mut all = Virtqueues::new(queues.iter_mut(), memory);
        device.process_event(&mut all);
        all.finish();
    }
}

/// Takes values from the front of the input; zeros when it is used up.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether it is used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, back) = self.0.split_at(count.min(self.0.len()));
        self.0 = back;
        front
    }

    /// A little-endian number of `width` bytes, at most 8.
    pub fn number(&mut self, width: usize) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.bytes(width.min(8));
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }
}

/// Size of a tar's block.
const BLOCK: usize = 512;

/// `bytes` with the sums that a tar's headers should have, or no input would get past
/// the first one.
pub fn with_check_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK) {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        // The end of an archive stays one.
        if block.iter().any(|byte| *byte != 0) {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let size = header.entry_size().unwrap_or(0);
        let content = usize::try_from(size).map_or(0, |size| size.min(bytes.len()));
        at += BLOCK + content.next_multiple_of(BLOCK);
    }
    bytes
}
