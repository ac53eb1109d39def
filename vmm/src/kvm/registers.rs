//! A virtual CPU's registers at the start: 64-bit mode with flat segments and
//! the boot page tables, as the Linux x86 boot protocol ("64-bit boot protocol")
//! wants it; MSRs, FPU and the local APIC as firmware would have left them.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::{Error, GuestMemory, layout};

const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TSS: u64 = 0x008f_8b00_0000_ffff;
/// `__BOOT_CS` is 0x10 and `__BOOT_DS` 0x18.
const GDT_TABLE: [u64; 5] = [0, 0, CODE, DATA, TSS];

/// Writes the boot GDT and page tables, which map the first 4 GiB one to one.
pub(crate) fn write_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 0x3;
    const HUGE: u64 = 0x80;
    const PAGE: u64 = 0x1000;
    for (index, entry) in (0..).zip(GDT_TABLE) {
        memory.write_obj(entry, GuestAddress(layout::GDT + index * 8))?;
    }
    memory.write_obj(layout::PDPT | PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    for gib in 0..layout::IDENTITY_MAPPED_GIB {
        let directory = layout::PAGE_DIRECTORIES + gib * PAGE;
        memory.write_obj(
            directory | PRESENT_WRITABLE,
            GuestAddress(layout::PDPT + gib * 8),
        )?;
        for index in 0..512 {
            memory.write_obj(
                (gib << 30 | index << 21) | HUGE | PRESENT_WRITABLE,
                GuestAddress(directory + index * 8),
            )?;
        }
    }
    Ok(())
}

/// Sets the boot CPU's registers: execution begins at `entry`, with the zero page
/// in RSI.
pub(crate) fn set_boot_cpu(vcpu: &VcpuFd, entry: u64) -> Result<(), Error> {
    const PROTECTED: u64 = 1;
    const PAGING: u64 = 1 << 31;
    const EXTENSION_TYPE: u64 = 1 << 4;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE: u64 = 1 << 8;
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    const RESERVED_FLAG: u64 = 1 << 1;

    let mut sregs = vcpu.get_sregs().map_err(Error::at("read registers"))?;
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = (size_of_val(&GDT_TABLE) - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = segment(2);
    let data = segment(3);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = segment(4);
    sregs.cr0 = PROTECTED | PAGING | EXTENSION_TYPE;
    sregs.cr3 = layout::PML4;
    sregs.cr4 = PHYSICAL_ADDRESS_EXTENSION;
    sregs.efer = LONG_MODE | LONG_MODE_ACTIVE;
    vcpu.set_sregs(&sregs).map_err(Error::at("set registers"))?;
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rflags: RESERVED_FLAG,
        ..Default::default()
    })
    .map_err(Error::at("set registers"))
}

/// What every CPU starts with, the boot CPU or not.
pub(crate) fn set_every_cpu(vcpu: &VcpuFd) -> Result<(), Error> {
    const MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRINGS: u64 = 1;
    const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
    const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = [
        entry(MISC_ENABLE, FAST_STRINGS),
        entry(MTRR_DEFAULT_TYPE, MTRR_ENABLED_WRITE_BACK),
    ];
    for msr in msrs {
        // One at a time: KVM stops at the first that it does not know, and a host
        // without one of these can do without it.
        if let Ok(msrs) = Msrs::from_entries(&[msr]) {
            vcpu.set_msrs(&msrs).map_err(Error::at("set MSRs"))?;
        }
    }
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    })
    .map_err(Error::at("set the FPU"))?;
    set_local_interrupts(vcpu)
}

/// LINT0 takes the PIC's interrupts, LINT1 is the NMI, as the MP table says.
fn set_local_interrupts(vcpu: &VcpuFd) -> Result<(), Error> {
    const LINT0: usize = 0x350;
    const LINT1: usize = 0x360;
    const MODE_NMI: u32 = 4;
    const MODE_EXTERNAL: u32 = 7;
    let mut lapic = vcpu.get_lapic().map_err(Error::at("read the local APIC"))?;
    for (register, mode) in [(LINT0, MODE_EXTERNAL), (LINT1, MODE_NMI)] {
        let old = u32::from_le_bytes(std::array::from_fn(|at| lapic.regs[register + at] as u8));
        let new = old & !0x700 | mode << 8;
        for (at, byte) in new.to_le_bytes().into_iter().enumerate() {
            lapic.regs[register + at] = byte as _;
        }
    }
    vcpu.set_lapic(&lapic)
        .map_err(Error::at("set the local APIC"))
}

/// The segment that entry `index` of the boot GDT describes.
fn segment(index: u16) -> kvm_segment {
    let entry = GDT_TABLE[usize::from(index)];
    let bits = |from: u32, count: u32| (entry >> from & ((1 << count) - 1)) as u32;
    let granularity = bits(55, 1) as u8;
    let limit = bits(0, 16) | bits(48, 4) << 16;
    kvm_segment {
        base: u64::from(bits(16, 24) | bits(56, 8) << 24),
        limit: if granularity == 1 {
            limit << 12 | 0xfff
        } else {
            limit
        },
        selector: index * 8,
        type_: bits(40, 4) as u8,
        s: bits(44, 1) as u8,
        dpl: bits(45, 2) as u8,
        present: bits(47, 1) as u8,
        avl: bits(52, 1) as u8,
        l: bits(53, 1) as u8,
        db: bits(54, 1) as u8,
        g: granularity,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::memory;

    #[test]
    fn segments_say_what_their_descriptors_say() {
        let code = segment(2);
        assert_eq!(
            (code.selector, code.type_, code.l, code.db),
            (0x10, 0xb, 1, 0)
        );
        assert_eq!((code.base, code.limit, code.present), (0, 0xffff_ffff, 1));
        let data = segment(3);
        assert_eq!((data.selector, data.type_, data.s), (0x18, 3, 1));
        let tss = segment(4);
        assert_eq!((tss.selector, tss.type_, tss.s), (0x20, 0xb, 0));
    }

    #[test]
    fn page_tables_map_one_to_one() {
        let memory = memory::allocate(4 << 20).unwrap();
        write_tables(&memory).unwrap();
        let read = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        for address in [0_u64, 0x100_0000, 0xd000_0000, 0xffff_f000] {
            let pdpt = read(layout::PML4) & !0xfff;
            let directory = read(pdpt + (address >> 30) * 8) & !0xfff;
            let page = read(directory + (address >> 21 & 511) * 8);
            assert_eq!(page & !0xfff, address & !((2 << 20) - 1));
            assert_eq!(page & 0x83, 0x83);
        }
    }
}
