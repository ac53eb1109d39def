//! The balloon's queues, with memory that really leaves.

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestMemory as _};

use super::*;
use crate::devices::test_driver::{RINGS, Ring, call, memory};

const PAGES: u64 = 4 << 20;

struct Rig {
    memory: GuestMemory,
    rings: Vec<Ring>,
    queues: Vec<Queue>,
    balloon: Balloon,
}

impl Rig {
    fn new() -> Self {
        let memory = memory();
        let rings: Vec<_> = (0..4).map(|i| Ring::new(&memory, i * RINGS)).collect();
        let queues = rings.iter().map(Ring::queue).collect();
        let mut balloon = Balloon::new().unwrap();
        balloon.acknowledge_features(balloon.features());
        Self {
            memory,
            rings,
            queues,
            balloon,
        }
    }

    fn process(&mut self, index: usize) {
        let outcome = call(
            &mut self.balloon,
            &mut self.queues,
            &self.memory,
            |balloon, queues| balloon.process_queue(index, queues),
        );
        assert_eq!(outcome.failure, None);
    }

    /// Whether the pages of guest memory are there (`mincore`).
    fn resident(&self, from: u64, pages: usize) -> usize {
        let start = self.memory.get_host_address(GuestAddress(from)).unwrap();
        let mut states = vec![0; pages];
        // SAFETY: the pages are mapped, and `states` has a byte for each.
        let result = unsafe { libc::mincore(start.cast(), pages * PAGE, states.as_mut_ptr()) };
        assert_eq!(result, 0);
        states.iter().filter(|state| *state & 1 != 0).count()
    }
}

#[test]
fn reported_pages_leave_and_read_as_zeros() {
    let mut rig = Rig::new();
    let garbage = vec![7; 64 * PAGE];
    rig.memory
        .write_slice(&garbage, GuestAddress(PAGES))
        .unwrap();
    assert_eq!(rig.resident(PAGES, 64), 64);
    // Not on page borders: only whole pages go. And some that are not memory.
    rig.rings[3].offer(&[(PAGES + 100, 16 * PAGE as u32, true)]);
    rig.rings[3].offer(&[(PAGES + 32 * PAGE as u64, 32 * PAGE as u32, true)]);
    rig.rings[3].offer(&[(1 << 40, PAGE as u32, true)]);
    rig.process(3);
    assert_eq!(rig.resident(PAGES, 64), 64 - 15 - 32);
    assert_eq!(
        rig.balloon
            .handle()
            .statistics(Duration::ZERO)
            .reported_bytes,
        47 * PAGE as u64
    );
    let mut page = vec![1; PAGE];
    rig.memory
        .read_slice(&mut page, GuestAddress(PAGES + PAGE as u64))
        .unwrap();
    assert_eq!(page, [0; PAGE]);
    rig.memory
        .read_slice(&mut page, GuestAddress(PAGES + 20 * PAGE as u64))
        .unwrap();
    assert_eq!(page, [7; PAGE]);
}

#[test]
fn inflated_pages_leave() {
    let mut rig = Rig::new();
    rig.memory
        .write_slice(&vec![7; 8 * PAGE], GuestAddress(PAGES))
        .unwrap();
    let first = (PAGES >> PAGE_SHIFT) as u32;
    // In any order, twice, and nowhere.
    let pages = [first + 2, first, first + 1, first, u32::MAX, 1 << 20];
    for (index, page) in pages.iter().enumerate() {
        let at = GuestAddress(0x10000 + index as u64 * 4);
        rig.memory.write_obj(page.to_le(), at).unwrap();
    }
    rig.rings[0].offer(&[(0x10000, 4 * pages.len() as u32, false)]);
    rig.process(0);
    assert_eq!(rig.resident(PAGES, 8), 5);
    rig.rings[1].offer(&[(0x10000, 4, false)]);
    rig.process(1);
    assert!(rig.rings[1].take_used().is_some());
}

#[test]
fn statistics_come_when_asked_for() {
    let mut rig = Rig::new();
    let handle = rig.balloon.handle();
    let put = |rig: &mut Rig, free: u64| {
        let mut bytes = Vec::new();
        for (tag, value) in [(4_u16, free), (99, 1), (6, free * 2)] {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        rig.memory
            .write_slice(&bytes, GuestAddress(0x10000))
            .unwrap();
        rig.rings[2].offer(&[(0x10000, bytes.len() as u32, false)]);
        rig.process(2);
    };
    // Nobody asks a driver that never reported.
    assert_eq!(handle.statistics(Duration::from_mins(1)).free_memory, None);
    put(&mut rig, 1000);
    assert_eq!(rig.rings[2].take_used(), None);

    let asked = std::thread::spawn(move || handle.statistics(Duration::from_mins(1)));
    // The request arrives on the event source.
    let source = rig.balloon.event_source().unwrap();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        source,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).unwrap();
    call(
        &mut rig.balloon,
        &mut rig.queues,
        &rig.memory,
        |balloon, queues| balloon.process_event(queues),
    );
    assert!(rig.rings[2].take_used().is_some());
    put(&mut rig, 2000);
    let statistics = asked.join().unwrap();
    assert_eq!(statistics.free_memory, Some(2000));
    assert_eq!(statistics.available_memory, Some(4000));
}

#[test]
fn queues_move_up_when_features_are_refused() {
    let mut rig = Rig::new();
    rig.balloon
        .acknowledge_features(1 << VIRTIO_BALLOON_F_PAGE_REPORTING);
    assert_eq!(rig.balloon.role(2), Some(Role::Reporting));
    assert_eq!(rig.balloon.role(3), None);
    rig.balloon.write_config(4, &5_u32.to_le_bytes());
    rig.balloon.write_config(0, &9_u32.to_le_bytes());
    rig.balloon.write_config(4, &[1]);
    let mut config = [0; 8];
    rig.balloon.read_config(0, &mut config);
    assert_eq!(config, [0, 0, 0, 0, 5, 0, 0, 0]);
    let handle = rig.balloon.handle();
    assert_eq!(handle.statistics(Duration::ZERO).balloon_bytes, 5 << 12);
    rig.balloon.reset();
    assert_eq!(handle.statistics(Duration::ZERO).balloon_bytes, 0);
}
