//! The I/O APIC (Intel 82093AA): turns the devices' interrupt lines into messages
//! to local APICs.
//!
//! It is here and not in KVM for two reasons. It has just the lines that the
//! machine has devices, and Linux spends some ten exits at boot on each. And its
//! lines become messages before they get to KVM, which delivers a device's
//! message at once, but an interrupt of its own I/O APIC only through a work queue.
//!
//! All lines are triggered by edges. An edge while a line is masked is lost, as in
//! hardware; Linux masks one only where it looks at the device afterwards.

use super::layout;

/// Register select, and the window to the register selected.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const REGISTER_ID: u8 = 0x00;
const REGISTER_VERSION: u8 = 0x01;
/// Two registers for each line from here on: the low and the high half of its
/// redirection entry.
const REGISTER_ENTRIES: u8 = 0x10;

/// The version of the 82093AA.
const VERSION: u32 = 0x11;
const MASKED: u64 = 1 << 16;
/// What a driver may write of an entry: all but the delivery status and the remote
/// IRR, and no level trigger.
const WRITABLE: u64 = 0xff00_0000_0001_2fff;

/// A message signalled interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u32,
    pub(crate) data: u32,
}

/// The registers of an I/O APIC.
#[derive(Debug)]
pub(crate) struct IoApic {
    id: u32,
    selected: u8,
    /// One redirection entry for each line.
    entries: Vec<u64>,
}

impl IoApic {
    /// An I/O APIC with the lines 0 to `lines` - 1, all masked.
    pub(crate) fn new(id: u8, lines: u8) -> Self {
        Self {
            id: u32::from(id) << 24,
            selected: 0,
            entries: vec![MASKED; usize::from(lines)],
        }
    }

    /// Reads a register. Accesses are of 32 bits.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => u32::from(self.selected),
            WINDOW => self.read_selected(),
            _ => 0,
        }
    }

    /// Writes a register. True when messages may have changed.
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> bool {
        match offset {
            SELECT => {
                self.selected = value as u8;
                false
            }
            WINDOW => self.write_selected(value),
            _ => false,
        }
    }

    /// The message that each line that is not masked sends: line and message.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (u32, Message)> {
        (0..)
            .zip(&self.entries)
            .filter(|(_, entry)| **entry & MASKED == 0)
            .map(|(line, entry)| (line, message(*entry)))
    }

    fn read_selected(&self) -> u32 {
        match self.selected {
            REGISTER_ID => self.id,
            REGISTER_VERSION => {
                let highest = self.entries.len().saturating_sub(1) as u32;
                VERSION | highest << 16
            }
            _ => self.half().map_or(0, |(line, shift)| {
                self.entries
                    .get(line)
                    .map_or(0, |entry| (entry >> shift) as u32)
            }),
        }
    }

    fn write_selected(&mut self, value: u32) -> bool {
        if self.selected == REGISTER_ID {
            self.id = value & 0xff00_0000;
            return false;
        }
        let Some((line, shift)) = self.half() else {
            return false;
        };
        let Some(entry) = self.entries.get_mut(line) else {
            return false;
        };
        let old = *entry;
        let kept = old & !(u64::from(u32::MAX) << shift);
        *entry = (kept | u64::from(value) << shift) & WRITABLE;
        // While it is masked both ways, nothing is sent that could change.
        *entry != old && (*entry & old & MASKED) == 0
    }

    /// The line whose redirection entry is selected, and by how many bits the half
    /// of it that is selected is shifted.
    fn half(&self) -> Option<(usize, u32)> {
        let index = self.selected.checked_sub(REGISTER_ENTRIES)?;
        Some((usize::from(index / 2), u32::from(index % 2) * 32))
    }
}

/// The message of a redirection entry: vector and delivery mode as they are,
/// destination and its mode in the address (Intel SDM volume 3, "Message Signalled
/// Interrupts").
fn message(entry: u64) -> Message {
    const VECTOR_AND_DELIVERY_MODE: u64 = 0x7ff;
    let destination = (entry >> 56) as u32;
    let logical = (entry >> 11 & 1) as u32;
    Message {
        address: layout::LOCAL_APIC | destination << 12 | logical << 2,
        data: (entry & VECTOR_AND_DELIVERY_MODE) as u32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write_register(io_apic: &mut IoApic, register: u8, value: u32) -> bool {
        assert!(!io_apic.write(SELECT, u32::from(register)));
        io_apic.write(WINDOW, value)
    }

    fn read_register(io_apic: &mut IoApic, register: u8) -> u32 {
        io_apic.write(SELECT, u32::from(register));
        io_apic.read(WINDOW)
    }

    #[test]
    fn it_tells_how_many_lines_it_has() {
        let mut io_apic = IoApic::new(2, 6);
        assert_eq!(read_register(&mut io_apic, REGISTER_VERSION), 0x0005_0011);
        assert_eq!(read_register(&mut io_apic, REGISTER_ID), 0x0200_0000);
        assert_eq!(io_apic.messages().count(), 0);
    }

    #[test]
    fn a_line_sends_its_message_once_it_is_unmasked() {
        let mut io_apic = IoApic::new(1, 6);
        // As Linux does: the high half, then the low one. CPU 1, logical.
        assert!(!write_register(&mut io_apic, 0x10 + 2 * 5 + 1, 0x0200_0000));
        assert!(write_register(&mut io_apic, 0x10 + 2 * 5, 0x0000_0831));
        assert_eq!(
            io_apic.messages().collect::<Vec<_>>(),
            [(
                5,
                Message {
                    address: 0xfee0_2004,
                    data: 0x31
                }
            )]
        );
        assert_eq!(read_register(&mut io_apic, 0x10 + 2 * 5), 0x831);
        assert!(
            !write_register(&mut io_apic, 0x10 + 2 * 5, 0x0000_0831),
            "no change"
        );
        assert!(write_register(&mut io_apic, 0x10 + 2 * 5, 0x0001_0831));
        assert_eq!(io_apic.messages().count(), 0);
    }

    proptest! {
        /// Whatever is written: no panic, lines that exist, edges.
        #[test]
        fn any_write_is_survived(writes in proptest::collection::vec((0_u64..0x50, 0_u32..), 0..200)) {
            let mut io_apic = IoApic::new(1, 4);
            for (offset, value) in writes {
                io_apic.write(offset, value);
                io_apic.read(offset);
                for (line, message) in io_apic.messages() {
                    prop_assert!(line < 4);
                    prop_assert_eq!(message.data & !0x7ff, 0);
                    prop_assert_eq!(message.address & !0x000f_f004, layout::LOCAL_APIC);
                }
            }
        }
    }
}
