//! What the server itself changed a moment ago, so that the host's news of it are not
//! told to the guest as if they were somebody else's doing.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Slots; a collision makes one change forgotten, which costs one event too many.
const SLOTS: usize = 4096;

/// How long after it a change may still be reported by the host.
const WINDOW: Duration = Duration::from_millis(300);

/// A table without locks: each slot has the rest of a hash and a time.
#[derive(Debug)]
pub(crate) struct Recent {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// The server changes contents or attributes of a file.
    pub(crate) fn file(&self, device: u64, number: u64) {
        self.note(self.hasher.hash_one((device, number)));
    }

    /// The server makes or removes a name in a directory.
    pub(crate) fn name(&self, device: u64, number: u64, name: &[u8]) {
        self.note(self.hasher.hash_one((device, number, name)));
    }

    /// Whether it was the server who changed a file.
    pub(crate) fn had_file(&self, device: u64, number: u64) -> bool {
        self.had(self.hasher.hash_one((device, number)))
    }

    /// Whether it was the server who made or removed a name.
    pub(crate) fn had_name(&self, device: u64, number: u64, name: &[u8]) -> bool {
        self.had(self.hasher.hash_one((device, number, name)))
    }

    /// Milliseconds since the start, from 1 on.
    fn now(&self) -> u32 {
        (self.start.elapsed().as_millis() as u32).wrapping_add(1)
    }

    fn note(&self, hash: u64) {
        if let Some(slot) = self.slots.get(hash as usize % SLOTS) {
            let entry = hash & !u64::from(u32::MAX) | u64::from(self.now());
            slot.store(entry, Ordering::Relaxed);
        }
    }

    fn had(&self, hash: u64) -> bool {
        let Some(slot) = self.slots.get(hash as usize % SLOTS) else {
            return false;
        };
        let entry = slot.load(Ordering::Relaxed);
        let age = self.now().wrapping_sub(entry as u32);
        entry != 0 && entry >> 32 == hash >> 32 && u128::from(age) <= WINDOW.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_for_a_while() {
        let recent = Recent::new();
        assert!(!recent.had_file(1, 2) && !recent.had_name(1, 2, b"x"));
        recent.file(1, 2);
        recent.name(3, 4, b"x");
        assert!(recent.had_file(1, 2) && recent.had_name(3, 4, b"x"));
        assert!(!recent.had_file(2, 1) && !recent.had_name(3, 4, b"y"));
        let since = Instant::now();
        while recent.had_file(1, 2) {
            assert!(since.elapsed() < 10 * WINDOW);
            std::thread::yield_now();
        }
        assert!(since.elapsed() >= WINDOW / 2);
    }
}
