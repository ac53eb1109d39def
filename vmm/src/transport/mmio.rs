//! Virtio over MMIO, version 2 (4.2): the registers of one device.
//!
//! Virtual CPU threads call [`MmioTransport::read`] and [`MmioTransport::write`];
//! a [`super::worker::Worker`] runs the device when a queue event (an ioeventfd of
//! [`REGISTER_QUEUE_NOTIFY`]) or the device's own event source fires. Registers may
//! be written in any order with any value. What the specification forbids is
//! ignored, and no order of writes gives a device queues that were not validated.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
        VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
        VIRTIO_F_VERSION_1,
    },
    virtio_mmio::{
        VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
        VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
        VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING,
        VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM,
        VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL,
        VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH,
        VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW,
        VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
    },
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::TRANSPORT_FEATURES;
use crate::devices::{GuestMemory, VirtioDevice, Virtqueues};

/// Bytes of guest physical address space that one device takes.
pub const WINDOW_SIZE: u64 = 0x1000;

/// Where in the window the driver writes a queue's index to notify the device: the
/// place for ioeventfds, with the queue's index as `datamatch`.
pub const REGISTER_QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"dctl");
const DEVICE_VERSION: u32 = 2;

/// How often the log tells that a device needs a reset.
const MAX_FAILURES_TOLD: u32 = 8;

/// Status bits that a driver may set (2.1).
const DRIVER_STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// One device behind MMIO registers.
pub struct MmioTransport {
    memory: GuestMemory,
    interrupt: EventFd,
    /// Outside of the lock: an interrupt handler reads and acknowledges it while
    /// the device may be at work.
    interrupt_status: AtomicU32,
    queue_events: Vec<EventFd>,
    /// A duplicate of the device's event source.
    event_source: Option<std::os::fd::OwnedFd>,
    state: Mutex<State>,
}

struct State {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    /// How often it needed a reset and that was told.
    failures: u32,
    /// Counts changes that the device made to its configuration space (4.2.2.1): a
    /// driver that reads a field in two pieces sees whether they belong together.
    generation: u32,
}

impl MmioTransport {
    /// Puts `device` behind registers. Each notification to the driver is one write
    /// to `interrupt`: an irqfd of an edge-triggered line.
    ///
    /// # Errors
    /// When event file descriptors cannot be made, or a queue's size is no power of
    /// two.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        interrupt: EventFd,
    ) -> io::Result<Arc<Self>> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| Queue::new(*size).map_err(io::Error::other))
            .collect::<Result<Vec<_>, _>>()?;
        let queue_events = queues
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<Result<Vec<_>, _>>()?;
        let event_source = device
            .event_source()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()?;
        Ok(Arc::new(Self {
            memory,
            interrupt,
            interrupt_status: AtomicU32::new(0),
            queue_events,
            event_source,
            state: Mutex::new(State {
                device,
                queues,
                status: 0,
                device_features_select: 0,
                driver_features_select: 0,
                driver_features: 0,
                queue_select: 0,
                failures: 0,
                generation: 0,
            }),
        }))
    }

    /// The events that notify of each queue; to be registered as ioeventfds.
    pub fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    /// What the worker waits for on behalf of the device.
    pub(super) fn event_source(&self) -> Option<BorrowedFd<'_>> {
        self.event_source.as_ref().map(std::os::fd::AsFd::as_fd)
    }

    /// The driver reads `data.len()` bytes at `offset` in the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            self.lock().device.read_config(offset as usize, data);
        } else if let (Ok(register), Ok(data)) =
            (u32::try_from(offset), <&mut [u8; 4]>::try_from(data))
        {
            // Registers are 32 bits wide and aligned (4.2.2.2).
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => return MAGIC,
            VIRTIO_MMIO_VERSION => return DEVICE_VERSION,
            VIRTIO_MMIO_VENDOR_ID => return VENDOR,
            VIRTIO_MMIO_INTERRUPT_STATUS => return self.interrupt_status.load(Ordering::SeqCst),
            // No device has shared memory regions: length and base are all ones.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => return u32::MAX,
            _ => {}
        }
        let state = self.lock();
        match register {
            VIRTIO_MMIO_DEVICE_ID => state.device.device_type() as u32,
            VIRTIO_MMIO_DEVICE_FEATURES => {
                half(state.offered_features(), state.device_features_select)
            }
            VIRTIO_MMIO_QUEUE_NUM_MAX => state
                .selected_queue()
                .map_or(0, |q| u32::from(q.max_size())),
            VIRTIO_MMIO_QUEUE_READY => state.selected_queue().map_or(0, |q| u32::from(q.ready())),
            VIRTIO_MMIO_STATUS => state.status,
            VIRTIO_MMIO_CONFIG_GENERATION => state.generation,
            _ => 0,
        }
    }

    /// The driver writes `data` at `offset` in the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            let mut state = self.lock();
            if state.status & VIRTIO_CONFIG_S_DRIVER != 0 {
                state.device.write_config(offset as usize, data);
            }
        } else if let (Ok(register), Ok(data)) = (u32::try_from(offset), <[u8; 4]>::try_from(data))
        {
            self.write_register(register, u32::from_le_bytes(data));
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_INTERRUPT_ACK => {
                self.interrupt_status.fetch_and(!value, Ordering::SeqCst);
                return;
            }
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                if let Some(event) = self.queue_events.get(value as usize) {
                    signal(event);
                }
                return;
            }
            VIRTIO_MMIO_STATUS => return self.write_status(value),
            _ => {}
        }
        let mut state = self.lock();
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => state.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => state.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => state.set_driver_features(value),
            VIRTIO_MMIO_QUEUE_SEL => state.queue_select = value,
            VIRTIO_MMIO_QUEUE_READY => state.set_queue_ready(value, &self.memory),
            _ => {
                let Some(queue) = state.queue_to_set_up() else {
                    return;
                };
                match register {
                    VIRTIO_MMIO_QUEUE_NUM => {
                        queue.set_size(u16::try_from(value).unwrap_or(0));
                    }
                    VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
                    VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
                    VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
                    VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
                    VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
                    VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
                    _ => {}
                }
            }
        }
    }

    /// The status machine (2.1, 3.1.1): bits are only ever added; zero resets.
    fn write_status(&self, value: u32) {
        let mut state = self.lock();
        if value == 0 {
            state.reset();
            self.interrupt_status.store(0, Ordering::SeqCst);
            return;
        }
        let mut status = state.status | (value & DRIVER_STATUS);
        let added = status & !state.status;
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            if state.features_acceptable() {
                state.accept_features();
            } else {
                // Reading it back tells the driver that its choice was refused.
                status &= !VIRTIO_CONFIG_S_FEATURES_OK;
            }
        }
        if status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            status &= !VIRTIO_CONFIG_S_DRIVER_OK;
        }
        state.status = status;
        if added & status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            // Devices look at their queues now: for what came before, and for what
            // they have to tell the driver.
            self.queue_events.iter().for_each(signal);
        }
    }

    /// Handles queue `index`, after its event fired.
    pub fn process_queue(&self, index: usize) {
        self.run(|device, queues| device.process_queue(index, queues));
    }

    /// Handles the device's event source.
    pub fn process_event(&self) {
        self.run(|device, queues| device.process_event(queues));
    }

    fn run(&self, call: impl FnOnce(&mut dyn VirtioDevice, &mut Virtqueues<'_>)) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let queues = if state.is_live() {
            state.queues.as_mut_slice()
        } else {
            &mut []
        };
        let mut queues = Virtqueues::new(queues.iter_mut(), &self.memory);
        call(state.device.as_mut(), &mut queues);
        let outcome = queues.finish();

        let mut reasons = 0;
        if outcome.notify != 0 {
            reasons |= VIRTIO_MMIO_INT_VRING;
        }
        if let Some(why) = outcome.failure {
            // A mad driver could fill the log.
            if state.failures < MAX_FAILURES_TOLD {
                state.failures += 1;
                tracing::warn!(device = ?state.device.device_type(), why, "a device needs a reset");
            }
            state.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
            reasons |= VIRTIO_MMIO_INT_CONFIG;
        }
        if outcome.config_changed {
            state.generation = state.generation.wrapping_add(1);
            // One that has not begun reads it when it does.
            if state.is_live() {
                reasons |= VIRTIO_MMIO_INT_CONFIG;
            }
        }
        for (index, event) in self.queue_events.iter().enumerate() {
            if outcome.again >> index & 1 != 0 {
                signal(event);
            }
        }
        // Under the lock: a reset that follows must find nothing of this.
        if reasons != 0 {
            self.interrupt_status.fetch_or(reasons, Ordering::SeqCst);
            signal(&self.interrupt);
        }
    }

    /// A thread that panicked in a device leaves a state that is memory-safe; the
    /// monitor ends on such a panic, and until then others may go on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn offered_features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0
            && self.driver_features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn accept_features(&mut self) {
        let event_index = self.driver_features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        for queue in &mut self.queues {
            queue.set_event_idx(event_index);
        }
        self.device
            .acknowledge_features(self.driver_features & self.device.features());
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_features_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    fn selected_queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    /// The selected queue, while the driver may set it up: after features were
    /// agreed on and before the queue is ready (4.2.3.2).
    fn queue_to_set_up(&mut self) -> Option<&mut Queue> {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            return None;
        }
        self.queues
            .get_mut(self.queue_select as usize)
            .filter(|queue| !queue.ready())
    }

    fn set_queue_ready(&mut self, value: u32, memory: &GuestMemory) {
        if value == 0 {
            if let Some(queue) = self.queues.get_mut(self.queue_select as usize) {
                queue.set_ready(false);
            }
        } else if let Some(queue) = self.queue_to_set_up() {
            queue.set_ready(true);
            if !queue.is_valid(memory) {
                queue.set_ready(false);
            }
        }
    }

    fn is_live(&self) -> bool {
        const MASK: u32 =
            VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET;
        self.status & MASK == VIRTIO_CONFIG_S_DRIVER_OK
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
    }
}

/// One 32-bit half of the feature bits.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Adds one to an event. It fails only when the counter is at its limit of 2^64 - 2:
/// the event is pending then, which is all that was wanted.
fn signal(event: &EventFd) {
    let _ = event.write(1);
}

#[cfg(test)]
mod tests;
