//! Guest memory: anonymous, private, not reserved and not touched; one region
//! below the hole, one above it if the guest has that much.

use std::io;
use std::ptr;

use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

use super::{GuestMemory, layout};

/// Huge pages need host and guest addresses to agree modulo their size.
const HUGE_PAGE: usize = 2 << 20;

/// The guest's memory as (guest address, bytes), in ascending order.
pub(crate) fn regions(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= layout::HOLE {
        vec![(0, bytes)]
    } else {
        vec![
            (0, layout::HOLE),
            (layout::ABOVE_HOLE, bytes - layout::HOLE),
        ]
    }
}

/// Allocates address space for `bytes` of guest memory, a multiple of 4 KiB.
///
/// It is never unmapped: devices and KVM hold on to it for as long as the
/// process, which is the virtual machine, lives.
pub(crate) fn allocate(bytes: u64) -> io::Result<GuestMemory> {
    let regions = regions(bytes)
        .into_iter()
        .map(|(start, bytes)| {
            let mapping = map(bytes as usize)?;
            GuestRegionMmap::new(mapping, GuestAddress(start))
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        })
        .collect::<io::Result<Vec<_>>>()?;
    GuestMemory::from_regions(regions).map_err(io::Error::other)
}

fn map(bytes: usize) -> io::Result<MmapRegion<()>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let length = bytes
        .checked_add(HUGE_PAGE)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice
    // changes nothing that exists.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let aligned = start.wrapping_byte_add(start.align_offset(HUGE_PAGE));
    // Fewer, larger faults while the guest boots. Refused where the kernel has no
    // transparent huge pages, which only costs speed.
    // SAFETY: advice on pages of the mapping made above, which nothing uses yet.
    unsafe {
        libc::madvise(aligned, bytes, libc::MADV_HUGEPAGE);
        libc::madvise(aligned, bytes, libc::MADV_DONTDUMP);
    }
    // SAFETY: `aligned` starts less than a huge page into a mapping that is a huge
    // page longer than `bytes`; it is never unmapped.
    unsafe { MmapRegion::build_raw(aligned.cast(), bytes, protection, flags) }
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemory as _};

    use super::*;

    #[test]
    fn memory_leaves_the_hole_free() {
        assert_eq!(regions(512 << 20), [(0, 512 << 20)]);
        assert_eq!(regions(layout::HOLE), [(0, layout::HOLE)]);
        assert_eq!(
            regions(5 << 30),
            [
                (0, layout::HOLE),
                (layout::ABOVE_HOLE, (5 << 30) - layout::HOLE)
            ]
        );
    }

    #[test]
    fn memory_is_aligned_to_huge_pages_and_usable_at_both_ends() {
        let memory = allocate(6 << 30).unwrap();
        for (start, bytes) in regions(6 << 30) {
            let host = memory.get_host_address(GuestAddress(start)).unwrap();
            assert_eq!(host.align_offset(HUGE_PAGE), 0);
            for address in [start, start + bytes - 8] {
                memory.write_obj(7_u64, GuestAddress(address)).unwrap();
                assert_eq!(memory.read_obj::<u64>(GuestAddress(address)).unwrap(), 7);
            }
        }
        assert!(memory.write_obj(7_u8, GuestAddress(layout::HOLE)).is_err());
    }
}
