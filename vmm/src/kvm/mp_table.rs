//! The MP table (Intel `MultiProcessor` Specification 1.4): how a guest without
//! ACPI learns of its CPUs, its I/O APIC and its interrupt lines.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::{GuestMemory, layout};

const CPU_ENTRY: u8 = 0;
const BUS_ENTRY: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const INTERRUPT_ENTRY: u8 = 3;
const LOCAL_INTERRUPT_ENTRY: u8 = 4;

const CPU_ENABLED: u8 = 1;
const CPU_BOOTSTRAP: u8 = 2;
/// Version of KVM's local and I/O APICs.
const APIC_VERSION: u8 = 0x14;
const SPECIFICATION: u8 = 4;
const FLOATING_POINTER_BYTES: u8 = 16;
const HEADER_BYTES: usize = 44;

/// Interrupt types of interrupt entries.
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
/// Every local APIC.
const ALL_LOCAL_APICS: u8 = 0xff;

/// The I/O APIC's id: the one after the CPUs'.
pub(crate) const fn io_apic_id(cpus: u8) -> u8 {
    cpus
}

/// Writes the table for `cpus` CPUs, whose APIC ids are 0, 1, 2 and so on, and an
/// I/O APIC with `lines` interrupt lines.
pub(crate) fn write(memory: &GuestMemory, cpus: u8, lines: u8) -> Result<(), GuestMemoryError> {
    memory.write_slice(&table(cpus, lines), GuestAddress(layout::MP_TABLE))
}

/// The floating pointer, and the table that it points to right after it.
fn table(cpus: u8, lines: u8) -> Vec<u8> {
    let io_apic_id = io_apic_id(cpus);
    let mut entries = Vec::new();
    let mut count = 0_u16;
    let mut add = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for cpu in 0..cpus {
        let flags = CPU_ENABLED | if cpu == 0 { CPU_BOOTSTRAP } else { 0 };
        let mut entry = [0; 20];
        entry[..4].copy_from_slice(&[CPU_ENTRY, cpu, APIC_VERSION, flags]);
        // Signature and features are informative; Linux asks CPUID.
        entry[4..8].copy_from_slice(&0x600_u32.to_le_bytes());
        entry[8..12].copy_from_slice(&0x201_u32.to_le_bytes());
        add(&entry);
    }
    add(b"\x01\x00ISA   ");
    debug_assert_eq!(BUS_ENTRY, 1);
    let mut io_apic = [IO_APIC_ENTRY, io_apic_id, APIC_VERSION, 1, 0, 0, 0, 0];
    io_apic[4..].copy_from_slice(&layout::IO_APIC.to_le_bytes());
    add(&io_apic);
    // The devices' interrupts, one to one, with the polarity and trigger of ISA:
    // active high and edge, which is what irqfd gives.
    for irq in layout::FIRST_IRQ as u8..lines {
        add(&[INTERRUPT_ENTRY, VECTORED, 0, 0, 0, irq, io_apic_id, irq]);
    }
    add(&[LOCAL_INTERRUPT_ENTRY, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    add(&[LOCAL_INTERRUPT_ENTRY, NMI, 0, 0, 0, 0, ALL_LOCAL_APICS, 1]);

    let table_address = layout::MP_TABLE as u32 + u32::from(FLOATING_POINTER_BYTES);
    let mut pointer = [0_u8; FLOATING_POINTER_BYTES as usize];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&table_address.to_le_bytes());
    pointer[8] = FLOATING_POINTER_BYTES / 16;
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);

    let mut header = [0_u8; HEADER_BYTES];
    header[..4].copy_from_slice(b"PCMP");
    header[4..6].copy_from_slice(&((HEADER_BYTES + entries.len()) as u16).to_le_bytes());
    header[6] = SPECIFICATION;
    header[8..16].copy_from_slice(b"DCTL    ");
    header[16..28].copy_from_slice(b"MICROVM     ");
    header[34..36].copy_from_slice(&count.to_le_bytes());
    header[36..40].copy_from_slice(&layout::LOCAL_APIC.to_le_bytes());
    header[7] = checksum(&header).wrapping_add(checksum(&entries));

    [&pointer[..], &header[..], &entries[..]].concat()
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the table as Linux's mpparse does.
    fn entries(table: &[u8]) -> Vec<&[u8]> {
        let (header, mut rest) = table[16..].split_at(HEADER_BYTES);
        let mut entries = Vec::new();
        for _ in 0..u16::from_le_bytes([header[34], header[35]]) {
            let (entry, next) = rest.split_at(if rest[0] == CPU_ENTRY { 20 } else { 8 });
            entries.push(entry);
            rest = next;
        }
        assert!(rest.is_empty());
        entries
    }

    #[test]
    fn sums_are_zero_and_lengths_right() {
        for cpus in [1, 2, 64] {
            let table = table(cpus, 24);
            assert_eq!(checksum(&table[..16]), 0);
            assert_eq!(checksum(&table[16..]), 0);
            let length = u16::from_le_bytes([table[20], table[21]]);
            assert_eq!(usize::from(length), table.len() - 16);
            assert!(layout::MP_TABLE + table.len() as u64 <= layout::HIGH_MEMORY);
        }
    }

    #[test]
    fn each_cpu_and_line_is_there_once() {
        let table = table(3, 6);
        let entries = entries(&table);
        let cpus: Vec<_> = entries.iter().filter(|e| e[0] == CPU_ENTRY).collect();
        assert_eq!(cpus.iter().map(|e| e[1]).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(cpus.iter().filter(|e| e[3] & CPU_BOOTSTRAP != 0).count(), 1);
        let lines: Vec<_> = entries
            .iter()
            .filter(|e| e[0] == INTERRUPT_ENTRY)
            .map(|e| (e[5], e[6], e[7]))
            .collect();
        assert_eq!(lines, (1..6).map(|irq| (irq, 3, irq)).collect::<Vec<_>>());
    }
}
