//! Where things are in the guest's physical address space.
//!
//! | from | what |
//! |---|---|
//! | `0x500` | boot GDT |
//! | `0x7000` | zero page (`boot_params`) |
//! | `0x9000` | boot page tables |
//! | `0x20000` | command line |
//! | `0xf0000` | MP table |
//! | `0x100000` | memory for the kernel |
//! | top of low memory | initramfs |
//! | `0xd0000000` | virtio-mmio devices |
//! | `0xfec00000`, `0xfee00000` | I/O APIC, local APICs |
//! | 4 GiB | memory above the hole |

/// The boot GDT.
pub(crate) const GDT: u64 = 0x500;
/// `struct boot_params`, the "zero page" of the 64-bit boot protocol.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// The first instructions' stack grows down from here.
pub(crate) const BOOT_STACK: u64 = 0x8ff0;
/// Boot page tables: one PML4, one PDPT, and a page directory for each GiB.
pub(crate) const PML4: u64 = 0x9000;
pub(crate) const PDPT: u64 = 0xa000;
pub(crate) const PAGE_DIRECTORIES: u64 = 0xb000;
/// GiB that the boot page tables map one to one.
pub(crate) const IDENTITY_MAPPED_GIB: u64 = 4;
/// The command line, NUL-terminated.
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
/// Linux's `COMMAND_LINE_SIZE` on x86, the NUL included.
pub(crate) const COMMAND_LINE_SIZE: usize = 2048;
/// Conventional memory ends here; above it Linux looks for an EBDA.
pub(crate) const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Within the range that Linux searches for the MP floating pointer.
pub(crate) const MP_TABLE: u64 = 0xf_0000;
/// Memory from 1 MiB on.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
/// The hole below 4 GiB: no memory, but devices and APICs.
pub(crate) const HOLE: u64 = 0xd000_0000;
/// Memory goes on above the hole.
pub(crate) const ABOVE_HOLE: u64 = 1 << 32;

/// The first virtio-mmio device's registers.
pub(crate) const VIRTIO_MMIO: u64 = HOLE;
/// Each device has a page to itself.
pub(crate) const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// `QueueNotify`, within a device's page (virtio 1.2, 4.2.2).
pub(crate) const VIRTIO_MMIO_QUEUE_NOTIFY: u64 = 0x50;
/// The first device's interrupt line. Line 0 is nobody's: Linux takes it for none.
pub(crate) const FIRST_IRQ: u32 = 1;
/// The last line of an I/O APIC with 24 of them, as PCs have.
pub(crate) const LAST_IRQ: u32 = 23;
/// So many devices fit.
pub(crate) const MAX_DEVICES: usize = (LAST_IRQ - FIRST_IRQ + 1) as usize;

/// The lines of an I/O APIC for `devices` devices.
pub(crate) const fn interrupt_lines(devices: usize) -> u8 {
    FIRST_IRQ as u8 + devices as u8
}

/// The I/O APIC's registers.
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
/// So long is their window.
pub(crate) const IO_APIC_SIZE: u64 = 0x20;
/// The local APICs' registers (in KVM).
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM on Intel needs for itself, and one for an identity map.
pub(crate) const KVM_TSS: usize = 0xfffb_d000;
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
