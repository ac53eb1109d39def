//! Traditional memory balloon (5.5): how memory that the guest does not need goes
//! back to the host.
//!
//! Free page reporting does the work: the guest names its free pages as it goes,
//! and the host drops what is behind them. The balloon itself keeps the size zero
//! unless the guest inflates it on its own account; statistics are asked for when
//! someone wants them, so an idle machine stays idle.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use vm_memory::{GuestAddress, GuestMemory as _, GuestMemoryRegion, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{DeviceType, GuestMemory, VirtioDevice, Virtqueues, read_config_from};
use crate::control::BalloonStatistics;

const QUEUE_SIZES: [u16; 4] = [128, 128, 16, 128];

/// Feature bits (5.5.3).
const VIRTIO_BALLOON_F_STATS_VQ: u32 = 1;
const VIRTIO_BALLOON_F_DEFLATE_ON_OOM: u32 = 2;
const VIRTIO_BALLOON_F_PAGE_REPORTING: u32 = 5;

/// Statistics' tags (5.5.6.4): free memory, and memory available without swapping.
const VIRTIO_BALLOON_S_MEMFREE: u16 = 4;
const VIRTIO_BALLOON_S_AVAIL: u16 = 6;

/// A balloon page (5.5.6): always 4 KiB.
const PAGE_SHIFT: u32 = 12;
const PAGE: usize = 1 << PAGE_SHIFT;

/// The most pages that one inflate request may name, more than a driver's 256. The
/// rest of a longer one is not given back.
const MAX_PAGES: usize = 4096;

/// The most statistics in one report; the specification knows 16.
const MAX_STATISTICS: usize = 64;

/// The balloon.
pub struct Balloon {
    shared: Arc<Shared>,
    features: u64,
    /// Pages that the driver says are in the balloon (`actual`).
    actual: u32,
    /// The statistics buffer that waits for someone to ask.
    statistics_buffer: Option<u16>,
}

/// Tells what the balloon has done. Cheap to clone.
#[derive(Clone)]
pub struct BalloonHandle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ask: EventFd,
}

#[derive(Default)]
struct State {
    statistics: BalloonStatistics,
    /// Counts reports of the guest.
    reports: u64,
    /// The guest's driver gives reports.
    reporting: bool,
}

impl Balloon {
    /// A balloon that is empty.
    ///
    /// # Errors
    /// When no event file descriptor can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                ask: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            }),
            features: 0,
            actual: 0,
            statistics_buffer: None,
        })
    }

    /// What tells of it, for other threads.
    pub fn handle(&self) -> BalloonHandle {
        BalloonHandle(Arc::clone(&self.shared))
    }

    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// What a queue is for. Queues of features that were not accepted do not exist,
    /// and those after them move up (5.5.2).
    fn role(&self, index: usize) -> Option<Role> {
        let statistics = self
            .has(VIRTIO_BALLOON_F_STATS_VQ)
            .then_some(Role::Statistics);
        let reporting = self
            .has(VIRTIO_BALLOON_F_PAGE_REPORTING)
            .then_some(Role::Reporting);
        [
            Some(Role::Inflate),
            Some(Role::Deflate),
            statistics,
            reporting,
        ]
        .into_iter()
        .flatten()
        .nth(index)
    }

    fn report(&self, index: usize, queues: &mut Virtqueues<'_>) {
        while let Some(chain) = queues.pop(index) {
            let mut given_back = 0;
            for slice in chain.writable.slices() {
                given_back += give_back(queues.memory(), slice);
            }
            self.shared.lock().statistics.reported_bytes += given_back;
            queues.add_used(index, chain.head, 0);
        }
    }

    fn inflate(index: usize, queues: &mut Virtqueues<'_>) {
        while let Some(mut chain) = queues.pop(index) {
            let mut pages = Vec::new();
            let mut page = [0; 4];
            while pages.len() < MAX_PAGES && chain.readable.read(&mut page) == page.len() {
                pages.push(u32::from_le_bytes(page));
            }
            pages.sort_unstable();
            for run in pages.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
                let start = run.first().map_or(0, |page| u64::from(*page) << PAGE_SHIFT);
                // What is not guest memory is nothing to give back.
                for slice in queues
                    .memory()
                    .get_slices(GuestAddress(start), run.len() << PAGE_SHIFT)
                    .map_while(Result::ok)
                {
                    give_back(queues.memory(), &slice);
                }
            }
            queues.add_used(index, chain.head, 0);
        }
    }

    fn read_statistics(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        while let Some(mut chain) = queues.pop(index) {
            let mut state = self.shared.lock();
            let mut entry = [0; 10];
            for _ in 0..MAX_STATISTICS {
                if chain.readable.read(&mut entry) != entry.len() {
                    break;
                }
                let [t0, t1, value @ ..] = entry;
                let value = u64::from_le_bytes(value);
                match u16::from_le_bytes([t0, t1]) {
                    VIRTIO_BALLOON_S_MEMFREE => state.statistics.free_memory = Some(value),
                    VIRTIO_BALLOON_S_AVAIL => state.statistics.available_memory = Some(value),
                    _ => {}
                }
            }
            state.reports += 1;
            state.reporting = true;
            drop(state);
            self.shared.changed.notify_all();
            // The driver has one buffer (5.5.6.3); of several, one is kept.
            if let Some(older) = self.statistics_buffer.replace(chain.head) {
                queues.add_used(index, older, 0);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

impl BalloonHandle {
    /// What went back to the host, and what the guest says of its memory now. A
    /// guest that does not answer within `patience` leaves its last answer.
    pub fn statistics(&self, patience: Duration) -> BalloonStatistics {
        let state = self.0.lock();
        if !state.reporting || self.0.ask.write(1).is_err() {
            return state.statistics;
        }
        let known = state.reports;
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(state, patience, |state| state.reports == known)
            .unwrap_or_else(PoisonError::into_inner);
        state.statistics
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BALLOON_F_STATS_VQ
            | 1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM
            | 1 << VIRTIO_BALLOON_F_PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, features: u64) {
        self.features = features;
    }

    /// `num_pages` (always zero), `actual` (5.5.4).
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 8];
        let (_, actual) = config.split_at_mut(4);
        actual.copy_from_slice(&self.actual.to_le_bytes());
        read_config_from(&config, offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let (4, Ok(actual)) = (offset, data.try_into()) {
            self.actual = u32::from_le_bytes(actual);
            self.shared.lock().statistics.balloon_bytes = u64::from(self.actual) << PAGE_SHIFT;
        }
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the event lives as long as `self`, which the result borrows.
        Some(unsafe { BorrowedFd::borrow_raw(self.shared.ask.as_raw_fd()) })
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        match self.role(index) {
            Some(Role::Inflate) => Self::inflate(index, queues),
            Some(Role::Deflate) => {
                // The guest just uses the pages again.
                while let Some(chain) = queues.pop(index) {
                    queues.add_used(index, chain.head, 0);
                }
            }
            Some(Role::Statistics) => self.read_statistics(index, queues),
            Some(Role::Reporting) => self.report(index, queues),
            None => {}
        }
    }

    /// Someone asks for statistics: giving the buffer back makes the driver fill it
    /// again.
    fn process_event(&mut self, queues: &mut Virtqueues<'_>) {
        let _ = self.shared.ask.read();
        if let Some(head) = self.statistics_buffer.take()
            && let Some(index) =
                (0..QUEUE_SIZES.len()).find(|index| self.role(*index) == Some(Role::Statistics))
        {
            queues.add_used(index, head, 0);
        }
    }

    fn reset(&mut self) {
        self.features = 0;
        self.actual = 0;
        self.statistics_buffer = None;
        let mut state = self.shared.lock();
        state.reporting = false;
        state.statistics.balloon_bytes = 0;
        state.statistics.free_memory = None;
        state.statistics.available_memory = None;
    }
}

/// Drops what is behind the whole pages in `slice`: they read as zeros when they are
/// touched again. Returns the bytes that were given back.
fn give_back(memory: &GuestMemory, slice: &VolatileSlice<'_>) -> u64 {
    // Memory that other processes map too lives in a file, and leaves only with a
    // hole in it.
    let shared = memory.iter().any(|region| region.file_offset().is_some());
    let advice = if shared {
        libc::MADV_REMOVE
    } else {
        libc::MADV_DONTNEED
    };
    let guard = slice.ptr_guard_mut();
    let skipped = guard.as_ptr().align_offset(PAGE);
    let length = guard.len().saturating_sub(skipped) & !(PAGE - 1);
    if length == 0 {
        return 0;
    }
    let start = guard.as_ptr().wrapping_add(skipped);
    // SAFETY: the range is whole pages inside of `slice`, which is mapped guest
    // memory for as long as it is borrowed. Nothing in Rust refers into guest memory,
    // so changing it to zeros breaks nobody.
    let result = unsafe { libc::madvise(start.cast(), length, advice) };
    if result == 0 { length as u64 } else { 0 }
}

#[cfg(test)]
mod tests;
