//! Puts a kernel, its initramfs and its command line into guest memory, for the
//! 64-bit entry of the Linux x86 boot protocol
//! (Linux, Documentation/arch/x86/boot.rst). The files are read straight into
//! guest memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{self, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, GuestMemoryError, GuestMemoryRegion};

use super::{GuestMemory, layout, mp_table, registers};

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// "Undefined" boot loader.
const LOADER_TYPE: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x0100_0000;
const E820_RAM: u32 = 1;
const PAGE: u64 = 4096;

/// Why a guest cannot be booted from what it was given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// A file that cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The kernel or the initramfs.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not an uncompressed kernel, or damaged.
    #[error("{} is not a bootable vmlinux: {reason}", path.display())]
    Kernel {
        /// The kernel.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Too little memory.
    #[error(
        "the kernel ({kernel_bytes} bytes) and the initramfs ({initramfs_bytes} bytes) do not \
         fit into {memory_mib} MiB of memory: give the machine more"
    )]
    DoesNotFit {
        /// Up to the end of the kernel.
        kernel_bytes: u64,
        /// The initramfs.
        initramfs_bytes: u64,
        /// The guest's memory.
        memory_mib: u64,
    },
    /// Longer than Linux takes.
    #[error(
        "the kernel's command line is {0} bytes long, and Linux takes at most {max}",
        max = layout::COMMAND_LINE_SIZE - 1
    )]
    CommandLine(usize),
    /// A NUL or a line break inside the command line.
    #[error("the kernel's command line has a control character in it")]
    CommandLineCharacter,
    /// The guest's first page tables, or the like.
    #[error("cannot write to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// What a guest is booted from.
pub(crate) struct Sources<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) command_line: &'a str,
    pub(crate) cpus: u8,
    /// Of the I/O APIC.
    pub(crate) interrupt_lines: u8,
}

/// Loads everything, and returns the address that the boot CPU starts at.
pub(crate) fn load(memory: &GuestMemory, sources: &Sources) -> Result<u64, BootError> {
    write_command_line(memory, sources.command_line)?;
    let kernel = load_kernel(memory, sources.kernel)?;
    let (initramfs_start, initramfs_bytes) = load_initramfs(memory, sources.initramfs, kernel.end)?;
    mp_table::write(memory, sources.cpus, sources.interrupt_lines)?;
    registers::write_tables(memory)?;
    write_zero_page(
        memory,
        initramfs_start,
        initramfs_bytes,
        sources.command_line.len(),
    )?;
    Ok(kernel.entry)
}

fn write_command_line(memory: &GuestMemory, line: &str) -> Result<(), BootError> {
    if line.len() >= layout::COMMAND_LINE_SIZE {
        return Err(BootError::CommandLine(line.len()));
    }
    if line.chars().any(char::is_control) {
        return Err(BootError::CommandLineCharacter);
    }
    let start = GuestAddress(layout::COMMAND_LINE);
    memory.write_slice(line.as_bytes(), start)?;
    memory.write_obj(0_u8, GuestAddress(start.0 + line.len() as u64))?;
    Ok(())
}

struct Kernel {
    entry: u64,
    end: u64,
}

fn load_kernel(memory: &GuestMemory, path: &Path) -> Result<Kernel, BootError> {
    let mut file = open(path)?;
    let highest = layout::IDENTITY_MAPPED_GIB << 30;
    let unusable = |reason: String| BootError::Kernel {
        path: path.to_owned(),
        reason,
    };
    let loaded = loader::Elf::load(
        memory,
        None,
        &mut file,
        Some(GuestAddress(layout::HIGH_MEMORY)),
    )
    .map_err(|error| unusable(error.to_string()))?;
    let entry = loaded.kernel_load.0;
    if entry >= loaded.kernel_end || loaded.kernel_end > highest {
        return Err(unusable(format!(
            "its entry {entry:#x} is outside of what it loads (up to {:#x})",
            loaded.kernel_end
        )));
    }
    Ok(Kernel {
        entry,
        end: loaded.kernel_end,
    })
}

/// Reads the initramfs to the highest pages of low memory, where it is in nobody's
/// way. Returns where, and its length.
fn load_initramfs(
    memory: &GuestMemory,
    path: &Path,
    kernel_end: u64,
) -> Result<(u64, u64), BootError> {
    let read_error = |source| BootError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = open(path)?;
    let bytes = file.metadata().map_err(read_error)?.len();
    let low_end = low_memory_end(memory);
    let start = low_end
        .checked_sub(bytes)
        .map(|start| start & !(PAGE - 1))
        .filter(|start| *start >= kernel_end)
        .ok_or(BootError::DoesNotFit {
            kernel_bytes: kernel_end,
            initramfs_bytes: bytes,
            memory_mib: memory.iter().map(GuestMemoryRegion::len).sum::<u64>() >> 20,
        })?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, bytes as usize)
        .map_err(|error| read_error(io::Error::other(error)))?;
    Ok((start, bytes))
}

fn open(path: &Path) -> Result<File, BootError> {
    File::open(path).map_err(|source| BootError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Where memory ends below the hole.
fn low_memory_end(memory: &GuestMemory) -> u64 {
    memory
        .iter()
        .next()
        .map_or(0, |region| region.start_addr().0 + region.len())
}

fn write_zero_page(
    memory: &GuestMemory,
    initramfs_start: u64,
    initramfs_bytes: u64,
    command_line_bytes: usize,
) -> Result<(), BootError> {
    let mut params = boot_params::default();
    params.hdr.type_of_loader = LOADER_TYPE;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = command_line_bytes as u32;
    // Below 4 GiB, as the hole is.
    params.hdr.ramdisk_image = initramfs_start as u32;
    params.hdr.ramdisk_size = initramfs_bytes as u32;
    let map = memory_map(memory);
    params.e820_entries = map.len() as u8;
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot = entry;
    }
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))?;
    Ok(())
}

/// The memory map (e820): all memory but what lies between 639 KiB and 1 MiB.
fn memory_map(memory: &GuestMemory) -> Vec<boot_e820_entry> {
    let ram = |addr: u64, end: u64| boot_e820_entry {
        addr,
        size: end.saturating_sub(addr),
        type_: E820_RAM,
    };
    let mut map = vec![ram(0, layout::LOW_MEMORY_END)];
    for region in memory.iter() {
        let start = region.start_addr().0;
        map.push(ram(start.max(layout::HIGH_MEMORY), start + region.len()));
    }
    map
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::kvm::memory;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_memory_map_covers_memory_and_nothing_else() {
        let small = memory_map(&memory::allocate(128 << 20).unwrap());
        let ranges = |map: &[boot_e820_entry]| {
            map.iter()
                .map(|entry| (entry.addr, entry.addr + entry.size, entry.type_))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ranges(&small),
            [
                (0, layout::LOW_MEMORY_END, 1),
                (layout::HIGH_MEMORY, 128 << 20, 1)
            ]
        );
        let large = memory_map(&memory::allocate(5 << 30).unwrap());
        assert_eq!(
            ranges(&large)[1..],
            [
                (layout::HIGH_MEMORY, layout::HOLE, 1),
                (
                    layout::ABOVE_HOLE,
                    layout::ABOVE_HOLE + (5 << 30) - layout::HOLE,
                    1
                )
            ]
        );
    }

    #[test]
    fn an_initramfs_sits_at_the_top_and_must_fit() {
        let memory = memory::allocate(4 << 20).unwrap();
        let initramfs = file(&[7; 5000]);
        let (start, bytes) = load_initramfs(&memory, initramfs.path(), 1 << 20).unwrap();
        assert_eq!((start, bytes), ((4 << 20) - 8192, 5000));
        assert_eq!(
            memory.read_obj::<u8>(GuestAddress(start + 4999)).unwrap(),
            7
        );
        let error = load_initramfs(&memory, initramfs.path(), start + 1).unwrap_err();
        assert!(matches!(error, BootError::DoesNotFit { memory_mib: 4, .. }));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let memory = memory::allocate(4 << 20).unwrap();
        for bytes in [&b""[..], b"MZ", &[0x7f; 4096], b"\x7fELF\x02\x01\x01"] {
            let kernel = file(bytes);
            assert!(matches!(
                load_kernel(&memory, kernel.path()),
                Err(BootError::Kernel { .. })
            ));
        }
        assert!(matches!(
            load_kernel(&memory, Path::new("/nonexistent")),
            Err(BootError::Read { .. })
        ));
    }

    #[test]
    fn command_lines_are_checked() {
        let memory = memory::allocate(4 << 20).unwrap();
        write_command_line(&memory, &"x".repeat(2047)).unwrap();
        assert!(matches!(
            write_command_line(&memory, &"x".repeat(2048)),
            Err(BootError::CommandLine(2048))
        ));
        assert!(matches!(
            write_command_line(&memory, "a\0b"),
            Err(BootError::CommandLineCharacter)
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_kernel_file_makes_the_loader_panic(bytes in proptest::collection::vec(0_u8.., 0..512)) {
            let memory = memory::allocate(2 << 20).unwrap();
            let mut image = b"\x7fELF\x02\x01\x01\0".to_vec();
            image.extend(bytes);
            let kernel = file(&image);
            let _ = load_kernel(&memory, kernel.path());
        }
    }
}
