//! Any rings and descriptors for the small devices.
#![no_main]

use std::{cell::RefCell, path::Path};

use dctl_fuzz::{guest_memory, queues, run};
use dctl_vmm::devices::{VirtioDevice, balloon::Balloon, console::Console, rng::Rng};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DEVICES: RefCell<[Box<dyn VirtioDevice>; 3]> = RefCell::new([
        Box::new(Console::new(Path::new("/dev/null")).expect("it is there")),
        Box::new(Balloon::new().expect("there are file descriptors")),
        Box::new(Rng::new()),
    ]);
}

fuzz_target!(|input: &[u8]| {
    let (choice, input) = input.split_first().unwrap_or((&0, &[]));
    let memory = guest_memory(input);
    DEVICES.with_borrow_mut(|devices| {
        let device = &mut devices[usize::from(choice & 3) % 3];
        let mut queues = queues(&memory, device.queue_sizes().len(), choice & 4 != 0);
        let features = if choice & 8 != 0 {
            device.features()
        } else {
            1 << 5
        };
        device.acknowledge_features(features & device.features());
        run(device.as_mut(), &memory, &mut queues);
        device.reset();
    });
});
