//! Entropy device (5.4): gives the guest random bytes from the host's kernel.

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Buffers, DeviceType, VirtioDevice, Virtqueues};

const REQUEST_QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [64];

/// The most bytes one request gets. The device may give fewer than asked for
/// (5.4.6.2), and the driver asks again.
const MAX_REQUEST: usize = 64 * 1024;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng(());

impl Rng {
    /// A device; it needs nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Rng
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, _features: u64) {}

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        if index != REQUEST_QUEUE {
            return;
        }
        while let Some(mut chain) = queues.pop(REQUEST_QUEUE) {
            match fill(&mut chain.writable) {
                Ok(written) => queues.add_used(REQUEST_QUEUE, chain.head, written),
                Err(error) => {
                    tracing::error!(%error, "the host's random number generator failed");
                    queues.fail("the host has no random numbers");
                    return;
                }
            }
        }
    }

    fn reset(&mut self) {}
}

fn fill(buffers: &mut Buffers<'_>) -> rustix::io::Result<u32> {
    let mut written = 0;
    let mut block = [0; 1024];
    while written < MAX_REQUEST && !buffers.is_empty() {
        let wanted = block.len().min(buffers.len()).min(MAX_REQUEST - written);
        let Some(wanted) = block.get_mut(..wanted) else {
            break;
        };
        let count = getrandom(&mut *wanted, GetRandomFlags::empty())?;
        written += buffers.write(wanted.get(..count).unwrap_or_default());
    }
    Ok(written as u32)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::test_driver::{Ring, call, memory};

    #[test]
    fn requests_are_filled_and_bounded() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 0);
        let mut queues = [ring.queue()];
        ring.offer(&[(0x10000, 8, true), (0x20000, 2000, true)]);
        ring.offer(&[(0x10_0000, 1 << 20, true)]);
        // Nothing to fill.
        ring.offer(&[(0x10000, 8, false)]);
        let mut device = Rng::new();
        let outcome = call(&mut device, &mut queues, &memory, |device, queues| {
            device.process_queue(0, queues);
        });
        assert_eq!((outcome.notify, outcome.failure), (1, None));
        assert_eq!(ring.take_used(), Some((0, 2008)));
        assert_eq!(ring.take_used(), Some((2, MAX_REQUEST as u32)));
        assert_eq!(ring.take_used(), Some((3, 0)));
        let mut random = vec![0; 2000];
        memory
            .read_slice(&mut random, GuestAddress(0x20000))
            .unwrap();
        // 250 words of eight random bytes: no zeros, no two alike.
        let mut words: Vec<_> = random.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 250);
    }
}
