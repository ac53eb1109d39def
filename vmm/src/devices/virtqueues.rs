//! A device's queues during one call of it: the only way that a device model
//! touches a ring.
//!
//! Here is what all devices must do right with a hostile driver: bounds of chains,
//! a bound on how much one call handles, notifications suppressed and enabled
//! again without losing one (2.7.7, 2.7.10), and giving up on a ring that makes no
//! sense.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _};

use super::{Buffers, Chain, GuestMemory};

/// The most chains that one call of a device takes from one queue. A driver that
/// keeps adding must not keep other devices of the same thread waiting: the
/// transport calls again after them.
const BUDGET: u16 = 256;

/// The most pieces of guest memory in one chain. More than any driver uses; a
/// chain through an indirect table could have 65535.
const MAX_PIECES: usize = 2048;

/// The queues of one device.
pub struct Virtqueues<'a> {
    queues: Vec<State<'a>>,
    memory: &'a GuestMemory,
    failure: Option<&'static str>,
    config_changed: bool,
}

struct State<'a> {
    queue: &'a mut Queue,
    taken: u16,
    used: bool,
    suppressed: bool,
    again: bool,
}

/// What a transport has to do after a device was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Queues (a bit each) whose driver wants to hear of used buffers.
    pub notify: u64,
    /// Queues (a bit each) that have more than one call may take: call again, after
    /// others had their turn.
    pub again: u64,
    /// The driver broke the protocol beyond repair, or the device cannot go on: it
    /// needs a reset (2.1.2). Says why.
    pub failure: Option<&'static str>,
    /// The device changed its configuration space (2.5): the driver is to be told.
    pub config_changed: bool,
}

impl<'a> Virtqueues<'a> {
    /// The queues in their order. A queue that is not ready gives nothing.
    pub fn new(queues: impl Iterator<Item = &'a mut Queue>, memory: &'a GuestMemory) -> Self {
        let queues = queues
            .map(|queue| State {
                queue,
                taken: 0,
                used: false,
                suppressed: false,
                again: false,
            })
            .collect();
        Self {
            queues,
            memory,
            failure: None,
            config_changed: false,
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &'a GuestMemory {
        self.memory
    }

    /// Takes the next chain from queue `index`. When there is none, the driver is
    /// asked to notify of the next one. Chains that point outside of guest memory
    /// or mix up readable and writable parts are dropped: used with length 0.
    pub fn pop(&mut self, index: usize) -> Option<Chain<'a>> {
        loop {
            let chain = self.pop_descriptors(index)?;
            let head = chain.head_index();
            let buffers = pieces(chain).and_then(|pieces| buffers(&pieces, self.memory));
            match buffers {
                Some((readable, writable)) => {
                    return Some(Chain {
                        head,
                        readable,
                        writable,
                    });
                }
                None => self.add_used(index, head, 0),
            }
        }
    }

    /// As [`Self::pop`], for a chain that is worked on after this call of the device,
    /// maybe by another thread. It is given back with [`Self::add_used`] in a later
    /// call.
    pub fn pop_detached(&mut self, index: usize) -> Option<DetachedChain> {
        loop {
            let chain = self.pop_descriptors(index)?;
            let head = chain.head_index();
            let pieces = pieces(chain).map(|pieces| DetachedChain {
                head,
                memory: self.memory.clone(),
                pieces,
            });
            match pieces {
                Some(chain) if chain.buffers().is_some() => return Some(chain),
                _ => self.add_used(index, head, 0),
            }
        }
    }

    fn pop_descriptors(&mut self, index: usize) -> Option<DescriptorChain<&'a GuestMemory>> {
        if self.failure.is_some() {
            return None;
        }
        let state = self.queues.get_mut(index)?;
        if !state.queue.ready() {
            return None;
        }
        if state.taken >= BUDGET {
            state.again = true;
            return None;
        }
        let popped = state.pop(self.memory);
        popped.unwrap_or_else(|_| {
            self.fail("the driver's ring makes no sense");
            None
        })
    }

    /// Gives back the last chain that [`Self::pop`] took from queue `index`: it will
    /// come again.
    pub fn undo_pop(&mut self, index: usize) {
        if let Some(state) = self.queues.get_mut(index) {
            state.queue.go_to_previous_position();
            state.taken = state.taken.saturating_sub(1);
        }
    }

    /// Returns a chain to the driver; `written` bytes of its writable part are new.
    pub fn add_used(&mut self, index: usize, head: u16, written: u32) {
        let Some(state) = self.queues.get_mut(index) else {
            return;
        };
        if !state.queue.ready() {
            return;
        }
        state.used = true;
        if state.queue.add_used(self.memory, head, written).is_err() {
            self.fail("the driver's used ring cannot be written");
        }
    }

    /// Declares the device broken until it is reset.
    pub fn fail(&mut self, why: &'static str) {
        self.failure.get_or_insert(why);
    }

    /// Says that the device changed its configuration space by itself.
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }

    /// What the transport has to do now.
    pub fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for (index, state) in self.queues.iter_mut().enumerate() {
            let bit = 1_u64.checked_shl(index as u32).unwrap_or(0);
            if state.again {
                outcome.again |= bit;
            }
            if state.used {
                match wants_notification(state.queue, self.memory) {
                    Ok(true) => outcome.notify |= bit,
                    Ok(false) => {}
                    Err(_) => {
                        self.failure
                            .get_or_insert("the driver's available ring cannot be read");
                    }
                }
            }
        }
        outcome.failure = self.failure;
        outcome.config_changed = self.config_changed;
        outcome
    }
}

impl State<'_> {
    fn pop<'m>(
        &mut self,
        memory: &'m GuestMemory,
    ) -> Result<Option<DescriptorChain<&'m GuestMemory>>, virtio_queue::Error> {
        if !self.suppressed {
            self.suppressed = true;
            self.queue.disable_notification(memory)?;
        }
        // Twice: a chain that came before notifications were enabled again is not
        // notified of.
        for _ in 0..2 {
            if let Some(chain) = self.queue.iter(memory)?.next() {
                self.taken += 1;
                return Ok(Some(chain));
            }
            self.suppressed = false;
            if !self.queue.enable_notification(memory)? {
                break;
            }
        }
        Ok(None)
    }
}

/// Whether the driver wants to hear of the buffers used since it was last asked
/// (2.7.7.2): by index, or, where that was not negotiated, by a flag.
fn wants_notification(
    queue: &mut Queue,
    memory: &GuestMemory,
) -> Result<bool, virtio_queue::Error> {
    if queue.event_idx_enabled() {
        return queue.needs_notification(memory);
    }
    // The used index must be visible before the flag is read.
    fence(Ordering::SeqCst);
    let flags: u16 = memory
        .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
        .map_err(virtio_queue::Error::GuestMemory)?;
    Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}

/// A chain that was taken from a queue for longer than one call of the device. It
/// keeps the guest memory that it is in mapped.
pub struct DetachedChain {
    /// Index of its first descriptor: how the driver recognises it again.
    pub head: u16,
    memory: GuestMemory,
    pieces: Vec<Piece>,
}

impl DetachedChain {
    /// Its readable and writable parts.
    pub fn chain(&self) -> Chain<'_> {
        let (readable, writable) = self.buffers().unwrap_or_default();
        Chain {
            head: self.head,
            readable,
            writable,
        }
    }

    fn buffers(&self) -> Option<(Buffers<'_>, Buffers<'_>)> {
        buffers(&self.pieces, &self.memory)
    }
}

/// What one descriptor says.
struct Piece {
    address: GuestAddress,
    length: u32,
    writable: bool,
}

/// The descriptors of a chain; nothing if there are too many.
fn pieces(chain: DescriptorChain<&GuestMemory>) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for descriptor in chain {
        if pieces.len() == MAX_PIECES {
            return None;
        }
        pieces.push(Piece {
            address: descriptor.addr(),
            length: descriptor.len(),
            writable: descriptor.is_write_only(),
        });
    }
    Some(pieces)
}

/// A chain's readable and writable parts; nothing if it is malformed.
fn buffers<'a>(pieces: &[Piece], memory: &'a GuestMemory) -> Option<(Buffers<'a>, Buffers<'a>)> {
    let mut readable = Buffers::default();
    let mut writable = Buffers::default();
    for piece in pieces {
        let part = if piece.writable {
            &mut writable
        } else if writable.is_empty() {
            &mut readable
        } else {
            // All readable parts come before the writable ones (2.7.4.2).
            return None;
        };
        for slice in memory.get_slices(piece.address, piece.length as usize) {
            part.push(slice.ok()?);
        }
        if part.slices().len() > MAX_PIECES {
            return None;
        }
    }
    Some((readable, writable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::test_driver::{Ring, SIZE, memory};

    const FLAGS: u64 = 0xc00;

    #[test]
    fn one_call_takes_no_more_than_its_share() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 0);
        let mut queue = ring.queue();
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        for _ in 0..BUDGET {
            // A driver that never stops.
            ring.offer(&[(0x10000, 1, true)]);
            let head = queues.pop(0).unwrap().head;
            queues.add_used(0, head, 0);
        }
        ring.offer(&[(0x10000, 1, true)]);
        assert!(queues.pop(0).is_none());
        assert_eq!(
            queues.finish(),
            Outcome {
                notify: 1,
                again: 1,
                ..Outcome::default()
            }
        );
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        assert!(queues.pop(0).is_some());
        assert!(queues.pop(0).is_none());
        assert_eq!(queues.finish(), Outcome::default());
    }

    #[test]
    fn notifications_are_off_while_there_is_something() {
        let memory = memory();
        let flags = || memory.read_obj::<u16>(GuestAddress(FLAGS)).unwrap();
        let mut ring = Ring::new(&memory, 0);
        assert_eq!(ring.used_ring(), FLAGS);
        let mut queue = ring.queue();
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        let head = ring.offer(&[(0x10000, 1, true)]);
        assert!(queues.pop(0).is_some());
        // VIRTQ_USED_F_NO_NOTIFY
        assert_eq!(flags(), 1);
        queues.undo_pop(0);
        assert_eq!(queues.pop(0).map(|chain| chain.head), Some(head));
        assert!(queues.pop(0).is_none());
        assert_eq!(flags(), 0);
    }

    #[test]
    fn a_broken_ring_gives_nothing_more() {
        let memory = memory();
        let mut ring = Ring::new(&memory, 0);
        let mut queue = ring.queue();
        ring.offer(&[(0x10000, 1, true)]);
        memory
            .write_obj(SIZE + 1, GuestAddress(ring.available_ring() + 2))
            .unwrap();
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        assert!(queues.pop(0).is_none());
        assert!(queues.finish().failure.is_some());
        // A head that is no descriptor.
        let mut ring = Ring::new(&memory, 0);
        let mut queue = ring.queue();
        ring.offer(&[(0x10000, 1, true)]);
        memory
            .write_obj(SIZE, GuestAddress(ring.available_ring() + 4))
            .unwrap();
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        let chain = queues.pop(0).unwrap();
        assert!(chain.readable.is_empty() && chain.writable.is_empty());
        queues.add_used(0, chain.head, 0);
        assert!(queues.finish().failure.is_some());
        // A queue that does not exist, or is not ready.
        queue.set_ready(false);
        let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
        assert!(queues.pop(0).is_none() && queues.pop(7).is_none());
        assert_eq!(queues.finish(), Outcome::default());
    }
}
