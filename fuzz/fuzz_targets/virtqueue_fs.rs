//! Any rings, descriptors and FUSE requests for the file system device, which has a
//! folder exported.
#![no_main]

use std::{cell::RefCell, path::PathBuf, sync::Arc};

use dctl_fuzz::{guest_memory, queues, run};
use dctl_vmm::devices::{
    VirtioDevice,
    fs::{Fs, Pool},
};
use libfuzzer_sys::fuzz_target;
use shares::{ExportOptions, Limits, Server, open_root};

thread_local! {
    static DEVICE: RefCell<Fs> = RefCell::new({
        let folder = std::env::temp_dir().join(format!("dctl-fuzz-fs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let limits = Limits { inodes: 1000, handles: 100, descriptors: 100, ..Limits::default() };
        let server = Server::new(limits).expect("there are descriptors");
        let root = open_root(&PathBuf::from(&folder)).expect("it is there");
        // Read-only: what is found does not depend on what was made before.
        let options = ExportOptions { read_only: true, ..ExportOptions::default() };
        server.add_export("x", root, options).expect("it is a folder");
        let pool = Pool::start("fuzz", 2, || Ok(())).expect("there are threads");
        Fs::new("fuzz", Arc::new(server), Arc::new(pool)).expect("there are descriptors")
    });
}

fuzz_target!(|input: &[u8]| {
    let (choice, input) = input.split_first().unwrap_or((&0, &[]));
    let memory = guest_memory(input);
    DEVICE.with_borrow_mut(|device| {
        let mut queues = queues(&memory, device.queue_sizes().len(), choice & 1 != 0);
        device.acknowledge_features(0);
        run(device, &memory, &mut queues);
        // Waits for the threads: after that nobody touches guest memory.
        device.reset();
    });
});
