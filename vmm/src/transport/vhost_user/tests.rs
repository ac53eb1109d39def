//! A device served to a real front-end, over a real socket and shared memory.

use std::{fs::File, os::fd::AsFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend},
};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemory as _, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::*;
use crate::devices::{
    rng::Rng,
    test_driver::{Ring, SIZE},
};

const MEMORY: usize = 1 << 20;
const BUFFER: u64 = 0x10000;

#[test]
fn a_front_end_gets_entropy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rng");
    let listener = UnixListener::bind(&path).unwrap();
    let server = serve(
        Box::new(Rng::new()),
        listener,
        ConfigChange::default(),
        || Ok(()),
    )
    .unwrap();

    let file = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, MEMORY as u64).unwrap();
    let offset = FileOffset::new(file.as_fd().try_clone_to_owned().unwrap().into(), 0);
    let memory =
        GuestMemory::from_ranges_with_files(&[(GuestAddress(0), MEMORY, Some(offset))]).unwrap();
    let mut ring = Ring::new(&memory, 0);

    let mut front_end = Frontend::connect(&path, 1).unwrap();
    front_end.set_owner().unwrap();
    let features = front_end.get_features().unwrap();
    assert_ne!(features & PROTOCOL_FEATURES, 0);
    front_end
        .set_features(PROTOCOL_FEATURES | TRANSPORT_FEATURES)
        .unwrap();
    front_end.get_protocol_features().unwrap();
    front_end
        .set_protocol_features(VhostUserProtocolFeatures::CONFIG)
        .unwrap();
    let region = memory.iter().next().unwrap();
    let base = region.as_ptr() as u64;
    front_end
        .set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: region.len(),
            userspace_addr: base,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        }])
        .unwrap();
    let kick = EventFd::new(EFD_CLOEXEC).unwrap();
    let interrupt = EventFd::new(EFD_CLOEXEC).unwrap();
    front_end.set_vring_num(0, SIZE).unwrap();
    front_end.set_vring_base(0, 0).unwrap();
    front_end
        .set_vring_addr(
            0,
            &VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: base + ring.descriptors(),
                used_ring_addr: base + ring.used_ring(),
                avail_ring_addr: base + ring.available_ring(),
                log_addr: None,
            },
        )
        .unwrap();
    front_end.set_vring_call(0, &interrupt).unwrap();
    front_end.set_vring_kick(0, &kick).unwrap();
    front_end.set_vring_enable(0, true).unwrap();

    let head = ring.offer(&[(BUFFER, 64, true)]);
    kick.write(1).unwrap();
    // Blocks until the device has used it.
    interrupt.read().unwrap();
    assert_eq!(ring.take_used(), Some((head, 64)));
    let mut random = [0; 64];
    memory
        .read_slice(&mut random, GuestAddress(BUFFER))
        .unwrap();
    assert_ne!(random, [0; 64]);

    drop(front_end);
    server.wait().unwrap();
}

#[test]
fn stops_when_nobody_came() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("rng")).unwrap();
    let server = serve(
        Box::new(Rng::new()),
        listener,
        ConfigChange::default(),
        || Ok(()),
    )
    .unwrap();
    assert!(!server.is_finished());
    server.stop().unwrap();
}
