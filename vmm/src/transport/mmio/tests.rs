//! Registers as a driver writes them, and as a mad one does.

use std::time::Duration;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    devices::{
        balloon::Balloon,
        rng::Rng,
        test_driver::{Ring, SIZE, memory},
    },
    transport::worker::Worker,
};

const RING: u64 = 0x4000;
const BUFFER: u64 = 0x10000;

fn rng() -> (Arc<MmioTransport>, EventFd, GuestMemory) {
    let memory = memory();
    let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let transport = MmioTransport::new(
        Box::new(Rng::new()),
        memory.clone(),
        interrupt.try_clone().unwrap(),
    )
    .unwrap();
    (transport, interrupt, memory)
}

fn get(transport: &MmioTransport, register: u32) -> u32 {
    let mut data = [0; 4];
    transport.read(register.into(), &mut data);
    u32::from_le_bytes(data)
}

fn set(transport: &MmioTransport, register: u32, value: u32) {
    transport.write(register.into(), &value.to_le_bytes());
}

/// What a driver does (3.1.1), up to `FEATURES_OK`.
fn negotiate(transport: &MmioTransport, features: u64) {
    set(transport, VIRTIO_MMIO_STATUS, 0);
    set(transport, VIRTIO_MMIO_STATUS, 1);
    set(transport, VIRTIO_MMIO_STATUS, 3);
    for select in 0..2 {
        set(transport, VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
        set(
            transport,
            VIRTIO_MMIO_DRIVER_FEATURES,
            half(features, select),
        );
    }
    set(transport, VIRTIO_MMIO_STATUS, 11);
}

fn set_up_queue(transport: &MmioTransport, ring: &Ring) {
    set(transport, VIRTIO_MMIO_QUEUE_SEL, 0);
    set(transport, VIRTIO_MMIO_QUEUE_NUM, SIZE.into());
    set(
        transport,
        VIRTIO_MMIO_QUEUE_DESC_LOW,
        ring.descriptors() as u32,
    );
    set(
        transport,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        ring.available_ring() as u32,
    );
    set(
        transport,
        VIRTIO_MMIO_QUEUE_USED_LOW,
        ring.used_ring() as u32,
    );
    set(transport, VIRTIO_MMIO_QUEUE_READY, 1);
}

fn wait_for(event: &EventFd) {
    // SAFETY: the event outlives the borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(event)) };
    let patience = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1);
}

#[test]
fn a_driver_gets_entropy_through_registers_and_a_worker() {
    let (transport, interrupt, memory) = rng();
    let worker = Worker::spawn("devices", vec![Arc::clone(&transport)], || Ok(())).unwrap();
    assert_eq!(get(&transport, VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(get(&transport, VIRTIO_MMIO_VERSION), 2);
    assert_eq!(get(&transport, VIRTIO_MMIO_DEVICE_ID), 4);

    // Without event index, so that notifications are by flag.
    negotiate(&transport, 1 << VIRTIO_F_VERSION_1);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 11);
    let mut ring = Ring::new(&memory, RING);
    set_up_queue(&transport, &ring);
    assert_eq!(get(&transport, VIRTIO_MMIO_QUEUE_READY), 1);
    set(&transport, VIRTIO_MMIO_STATUS, 15);

    let head = ring.offer(&[(BUFFER, 100, true)]);
    set(&transport, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    wait_for(&interrupt);
    assert_eq!(ring.take_used(), Some((head, 100)));
    let mut random = [0; 100];
    memory
        .read_slice(&mut random, GuestAddress(BUFFER))
        .unwrap();
    assert_ne!(random, [0; 100]);
    assert_eq!(get(&transport, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    set(&transport, VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(get(&transport, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(interrupt.read().unwrap(), 1);

    // VIRTQ_AVAIL_F_NO_INTERRUPT
    memory
        .write_obj(1_u16, GuestAddress(ring.available_ring()))
        .unwrap();
    ring.offer(&[(BUFFER, 1, true)]);
    transport.process_queue(0);
    assert!(ring.take_used().is_some());
    assert!(interrupt.read().is_err());

    // After a reset nothing moves.
    set(&transport, VIRTIO_MMIO_STATUS, 0);
    assert_eq!(get(&transport, VIRTIO_MMIO_QUEUE_READY), 0);
    ring.offer(&[(BUFFER, 1, true)]);
    transport.process_queue(0);
    assert_eq!(ring.take_used(), None);
    assert!(worker.is_running());
    worker.stop().unwrap();
}

#[test]
fn notifications_follow_the_event_index() {
    let (transport, interrupt, memory) = rng();
    negotiate(
        &transport,
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX,
    );
    let mut ring = Ring::new(&memory, RING);
    set_up_queue(&transport, &ring);
    set(&transport, VIRTIO_MMIO_STATUS, 15);
    // used_event: tell me after the third.
    let used_event = GuestAddress(ring.available_ring() + 4 + u64::from(SIZE) * 2);
    memory.write_obj(2_u16, used_event).unwrap();
    for index in 0..5 {
        ring.offer(&[(BUFFER, 1, true)]);
        transport.process_queue(0);
        assert_eq!(interrupt.read().is_ok(), index == 2, "{index}");
    }
    // avail_event: the device wants to hear of the next.
    let avail_event = GuestAddress(ring.used_ring() + 4 + u64::from(SIZE) * 8);
    assert_eq!(memory.read_obj::<u16>(avail_event).unwrap(), 5);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let (transport, _, _) = rng();
    negotiate(&transport, 1 << VIRTIO_F_VERSION_1 | 1 << 3);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 3);
    negotiate(&transport, 1 << VIRTIO_RING_F_EVENT_IDX);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 3);
    // No DRIVER_OK without FEATURES_OK.
    set(&transport, VIRTIO_MMIO_STATUS, 7);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 3);
}

#[test]
fn a_queue_outside_of_memory_does_not_get_ready() {
    let (transport, _, memory) = rng();
    negotiate(&transport, 1 << VIRTIO_F_VERSION_1);
    set(&transport, VIRTIO_MMIO_QUEUE_DESC_HIGH, 1);
    set_up_queue(&transport, &Ring::new(&memory, RING));
    assert_eq!(get(&transport, VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn a_ring_that_makes_no_sense_needs_a_reset() {
    let (transport, interrupt, memory) = rng();
    negotiate(&transport, 1 << VIRTIO_F_VERSION_1);
    let ring = Ring::new(&memory, RING);
    set_up_queue(&transport, &ring);
    set(&transport, VIRTIO_MMIO_STATUS, 15);
    // More available than the queue is long.
    memory
        .write_obj(SIZE + 1, GuestAddress(ring.available_ring() + 2))
        .unwrap();
    transport.process_queue(0);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 15 | 64);
    assert_eq!(get(&transport, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert!(interrupt.read().is_ok());
    set(&transport, VIRTIO_MMIO_STATUS, 0);
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), 0);
    assert_eq!(get(&transport, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn a_worker_that_is_not_allowed_to_start_does_not() {
    let error = Worker::spawn("devices", Vec::new(), || Err(io::Error::other("no")))
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "no");
}

#[test]
fn a_worker_serves_a_device_s_own_events() {
    let balloon = Balloon::new().unwrap();
    let handle = balloon.handle();
    let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let transport = MmioTransport::new(Box::new(balloon), memory(), interrupt).unwrap();
    let worker = Worker::spawn("devices", vec![transport], || Ok(())).unwrap();
    // No driver: at once, however patient.
    let statistics = handle.statistics(Duration::from_mins(1));
    assert_eq!(statistics.free_memory, None);
    drop(worker);
}

proptest! {
    /// Any register, any value, any width, in any order.
    #[test]
    fn survives_any_driver(accesses in prop::collection::vec(
        (0..0x120_u64, any::<u64>(), 0..9_usize, prop::sample::select(vec![0_u32, 1, 3, 11, 15, 64, 128, 255])),
        1..200,
    )) {
        let (transport, _, _) = rng();
        for (offset, value, width, status) in accesses {
            transport.write(offset, &value.to_le_bytes()[..width]);
            // Make it likely to get somewhere.
            set(&transport, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
            set(&transport, VIRTIO_MMIO_DRIVER_FEATURES, 1);
            set(&transport, VIRTIO_MMIO_STATUS, status);
            set(&transport, offset as u32 & !3, value as u32 & 0x00ff_fff0);
            transport.process_queue(offset as usize);
            transport.process_event();
            transport.read(offset, &mut value.to_le_bytes()[..width]);
        }
    }
}

#[test]
fn a_driver_is_told_when_the_configuration_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, [0; 4096]).unwrap();
    let disk = crate::devices::block::Block::open(&crate::config::DiskConfig {
        path: path.clone(),
        read_only: false,
        journal: None,
    })
    .unwrap();
    let handle = disk.handle();
    let interrupt = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let transport =
        MmioTransport::new(Box::new(disk), memory(), interrupt.try_clone().unwrap()).unwrap();
    let worker = Worker::spawn("disks", vec![Arc::clone(&transport)], || Ok(())).unwrap();
    negotiate(&transport, 1 << VIRTIO_F_VERSION_1);
    set(&transport, VIRTIO_MMIO_STATUS, 15);
    let before = get(&transport, VIRTIO_MMIO_CONFIG_GENERATION);
    std::fs::write(&path, [0; 8192]).unwrap();
    assert_eq!(handle.resize(Duration::from_secs(20)).unwrap(), 8192);
    wait_for(&interrupt);
    assert_eq!(
        get(&transport, VIRTIO_MMIO_INTERRUPT_STATUS),
        VIRTIO_MMIO_INT_CONFIG
    );
    assert_ne!(get(&transport, VIRTIO_MMIO_CONFIG_GENERATION), before);
    assert_eq!(get(&transport, VIRTIO_MMIO_CONFIG), 16);
    worker.stop().unwrap();
}
