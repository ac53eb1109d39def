//! Any rings, descriptors and requests for a disk.
#![no_main]

use std::{cell::RefCell, os::fd::AsRawFd};

use dctl_fuzz::{guest_memory, queues, run};
use dctl_vmm::{
    config::DiskConfig,
    devices::{VirtioDevice, block::Block},
};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

const DISK: u64 = 64 * 1024;

thread_local! {
    static DISKS: RefCell<[Block; 2]> = RefCell::new([false, true].map(|read_only| {
        let file = memfd_create("disk", MemfdFlags::empty()).expect("there is memory");
        ftruncate(&file, DISK).expect("there is memory");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        let disk = Block::open(&DiskConfig { path, read_only, journal: None }).expect("it is a file");
        assert_eq!(fstat(&file).expect("it is open").st_size, DISK as i64);
        disk
    }));
}

fuzz_target!(|input: &[u8]| {
    let (choice, input) = input.split_first().unwrap_or((&0, &[]));
    let memory = guest_memory(input);
    let mut queues = queues(&memory, 1, choice & 2 != 0);
    DISKS.with_borrow_mut(|disks| {
        let disk = &mut disks[usize::from(choice & 1)];
        // With flushes (write-back) or without (write-through).
        let features = if choice & 4 != 0 { disk.features() } else { 0 };
        disk.acknowledge_features(features);
        run(disk, &memory, &mut queues);
        disk.reset();
    });
});
