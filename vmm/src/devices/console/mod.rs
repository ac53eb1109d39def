//! Console device (5.3): what the guest's kernel prints goes to a bounded log, and
//! a kernel panic is noticed. There is no input.

mod log;
mod panic_watch;

use std::{path::Path, sync::Arc};

use log::BoundedLog;
pub use log::LogError;
pub use panic_watch::PanicReport;
use panic_watch::PanicWatch;

use super::{DeviceType, VirtioDevice, Virtqueues};

const TRANSMIT_QUEUE: usize = 1;
const QUEUE_SIZES: [u16; 2] = [64, 64];

/// The most bytes that one chain may bring: far more than a driver's buffer, which
/// is a page. The rest of a longer one is dropped.
const MAX_CHAIN: usize = 64 * 1024;

/// The console.
pub struct Console {
    log: BoundedLog,
    watch: PanicWatch,
    /// The log could not be written; said once.
    log_failed: bool,
}

impl Console {
    /// A console that writes to the file `log`, which is emptied or made with mode
    /// 0600. Nothing is opened later.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(log: &Path) -> Result<Self, LogError> {
        Ok(Self {
            log: BoundedLog::create(log)?,
            watch: PanicWatch::default(),
            log_failed: false,
        })
    }

    /// What tells of a kernel panic; shared with the device, for its whole life.
    pub fn panic_report(&self) -> Arc<PanicReport> {
        self.watch.report()
    }

    /// Takes output that came another way than through this device's queues: QEMU's
    /// own console device has the same log and the same watch for panics.
    pub fn print(&mut self, text: &[u8]) {
        self.watch.observe(text);
        if let Err(error) = self.log.write(text)
            && !self.log_failed
        {
            self.log_failed = true;
            tracing::error!(%error, "the console's log cannot be written");
        }
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, _features: u64) {}

    /// Size, ports and emergency write come with features that are not offered.
    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        // Receive buffers stay with the device: nobody types.
        if index != TRANSMIT_QUEUE {
            return;
        }
        while let Some(mut chain) = queues.pop(TRANSMIT_QUEUE) {
            let mut left = chain.readable.len().min(MAX_CHAIN);
            let mut block = [0; 1024];
            while left > 0 {
                let wanted = left.min(block.len());
                let Some(wanted) = block.get_mut(..wanted) else {
                    break;
                };
                let count = chain.readable.read(wanted);
                self.print(wanted.get(..count).unwrap_or_default());
                left -= count.clamp(1, left);
            }
            queues.add_used(TRANSMIT_QUEUE, chain.head, 0);
        }
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::test_driver::{RINGS, Ring, call, memory};

    #[test]
    fn what_the_guest_prints_is_in_the_log_and_a_panic_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console.log");
        let mut console = Console::new(&log).unwrap();
        let report = console.panic_report();
        let memory = memory();
        let mut receive = Ring::new(&memory, 0);
        let mut transmit = Ring::new(&memory, RINGS);
        let mut queues = [receive.queue(), transmit.queue()];
        receive.offer(&[(0x20000, 4096, true)]);
        let text = b"hello\nKernel panic - not syncing: it hurts\n";
        memory.write_slice(text, GuestAddress(0x10000)).unwrap();
        transmit.offer(&[
            (0x10000, 10, false),
            (0x1000a, text.len() as u32 - 10, false),
        ]);
        // One longer than is looked at.
        transmit.offer(&[(0x40_0000, 1 << 20, false)]);
        for index in 0..2 {
            call(&mut console, &mut queues, &memory, |console, queues| {
                console.process_queue(index, queues);
            });
        }
        assert_eq!(transmit.take_used(), Some((0, 0)));
        assert_eq!(transmit.take_used(), Some((2, 0)));
        assert_eq!(receive.take_used(), None);
        let logged = std::fs::read(&log).unwrap();
        assert!(logged.starts_with(text));
        assert_eq!(logged.len(), text.len() + MAX_CHAIN);
        assert!(report.panicked());
        assert_eq!(report.lines()[0], "Kernel panic - not syncing: it hurts");
    }
}
