//! What CPUID tells the guest: what KVM supports, less what makes no sense in a
//! virtual machine of ours, plus the machine's topology (one socket, a core for
//! each virtual CPU) and the hypervisor's own leaves.
//!
//! Leaf numbers and fields: Intel SDM volume 2 (CPUID), AMD APM volume 3 appendix
//! E; the hypervisor's: Linux, Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use super::Error;

const HYPERVISOR: u32 = 0x4000_0000;
/// Frequencies, in the form that `VMware` began: EAX the TSC's, EBX the local APIC
/// timer's, in kHz.
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds.
const APIC_TIMER_KHZ: u32 = 1_000_000;

/// What KVM supports on this host.
pub(crate) fn supported(kvm: &Kvm) -> Result<CpuId, Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::at("tell which CPU features it supports"))
}

/// The leaves for virtual CPU `id` of `cpus`, from those that KVM supports.
pub(crate) fn for_cpu(
    supported: &[kvm_cpuid_entry2],
    id: u8,
    cpus: u8,
    tsc_khz: u32,
) -> Result<CpuId, Error> {
    let mut leaves: Vec<kvm_cpuid_entry2> = supported
        .iter()
        .filter(|leaf| !replaced(leaf.function))
        .copied()
        .collect();
    let amd = leaves
        .iter()
        .any(|leaf| leaf.function == 0 && leaf.ecx == u32::from_le_bytes(*b"cAMD"));
    for leaf in &mut leaves {
        adjust(leaf, id, cpus, amd);
    }
    if leaves
        .iter()
        .any(|leaf| leaf.function == 0 && leaf.eax >= 0xb)
    {
        leaves.extend(topology(id, cpus));
    }
    if amd
        && leaves
            .iter()
            .any(|leaf| leaf.function == 0x8000_0000 && leaf.eax >= 0x8000_001e)
    {
        leaves.push(kvm_cpuid_entry2 {
            function: 0x8000_001e,
            eax: u32::from(id),
            ebx: u32::from(id),
            ..Default::default()
        });
    }
    if tsc_khz != 0 {
        leaves.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_FREQUENCIES,
            eax: tsc_khz,
            ebx: APIC_TIMER_KHZ,
            ..Default::default()
        });
    }
    CpuId::from_entries(&leaves)
        .map_err(|_| Error::at("hold that many CPUID leaves")(kvm_ioctls::Error::new(libc::E2BIG)))
}

/// Leaves that are made here, or that the guest is better off without: extended
/// topologies that would contradict ours, performance monitoring (it is off, see
/// `machine`), frequencies.
fn replaced(function: u32) -> bool {
    matches!(
        function,
        0xa | 0xb | 0x15 | 0x16 | 0x1f | 0x8000_001e | 0x8000_0022 | 0x8000_0026
    ) || function == HYPERVISOR_FREQUENCIES
}

fn adjust(leaf: &mut kvm_cpuid_entry2, id: u8, cpus: u8, amd: bool) {
    let others = u32::from(cpus) - 1;
    // Intel counts APIC ids that the bits for them can hold.
    let other_ids = (1 << id_bits(cpus)) - 1;
    match leaf.function {
        0x1 => {
            const HYPERTHREADING: u32 = 1 << 28;
            const TSC_DEADLINE: u32 = 1 << 24;
            const HYPERVISOR_PRESENT: u32 = 1 << 31;
            const MONITOR: u32 = 1 << 3;
            const PERFORMANCE_CAPABILITIES: u32 = 1 << 15;
            // Initial APIC id, APIC ids in the socket, cache line of 8 quadwords.
            leaf.ebx = u32::from(id) << 24 | (other_ids + 1) << 16 | 8 << 8 | leaf.ebx & 0xff;
            leaf.ecx |= TSC_DEADLINE | HYPERVISOR_PRESENT;
            leaf.ecx &= !(MONITOR | PERFORMANCE_CAPABILITIES);
            leaf.edx &= !HYPERTHREADING;
            if cpus > 1 {
                leaf.edx |= HYPERTHREADING;
            }
        }
        // Intel's caches: the last level is everybody's, the others a core's own.
        0x4 => {
            let level = leaf.eax >> 5 & 7;
            let sharing = if level >= 3 { other_ids } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | sharing << 14 | other_ids << 26;
        }
        // Of power management only ARAT: the local APIC timer never stops.
        0x6 => {
            leaf.eax = 1 << 2;
            leaf.ebx = 0;
            leaf.ecx = 0;
            leaf.edx = 0;
        }
        HYPERVISOR => leaf.eax = leaf.eax.max(HYPERVISOR_FREQUENCIES),
        0x8000_0001 => {
            // AMD's performance counters: core, north bridge, last level cache.
            leaf.ecx &= !(1 << 23 | 1 << 24 | 1 << 28);
        }
        // AMD: cores, and bits of an APIC id that number them.
        0x8000_0008 if amd => leaf.ecx = id_bits(cpus) << 12 | others,
        // AMD's caches, as leaf 4.
        0x8000_001d => {
            let level = leaf.eax >> 5 & 7;
            let sharing = if level >= 3 { others } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | sharing << 14;
        }
        _ => {}
    }
}

/// Leaf 0xb: one thread in a core, `cpus` cores in the socket.
fn topology(id: u8, cpus: u8) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1;
    const CORE: u32 = 2;
    let level = |index: u32, kind: u32, shift: u32, processors: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: kind << 8 | index,
        edx: u32::from(id),
        ..Default::default()
    };
    [
        level(0, THREAD, 0, 1),
        level(1, CORE, id_bits(cpus), u32::from(cpus)),
        level(2, 0, 0, 0),
    ]
}

/// Bits that hold the highest of `cpus` APIC ids.
fn id_bits(cpus: u8) -> u32 {
    u32::from(cpus).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..Default::default()
        }
    }

    fn made(id: u8, cpus: u8) -> Vec<kvm_cpuid_entry2> {
        let supported = [
            kvm_cpuid_entry2 {
                eax: 0x1f,
                ..leaf(0)
            },
            kvm_cpuid_entry2 {
                ebx: 0xaabb_ccdd,
                ..leaf(1)
            },
            leaf(0x6),
            leaf(0xa),
            leaf(0xb),
            leaf(0x1f),
            kvm_cpuid_entry2 {
                eax: 0x4000_0001,
                ..leaf(HYPERVISOR)
            },
        ];
        for_cpu(&supported, id, cpus, 2_000_000)
            .unwrap()
            .as_slice()
            .to_vec()
    }

    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found: Vec<_> = leaves
            .iter()
            .filter(|leaf| leaf.function == function && leaf.index == index)
            .collect();
        assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
        *found[0]
    }

    #[test]
    fn each_cpu_has_its_own_apic_id() {
        let leaves = made(2, 3);
        assert_eq!(find(&leaves, 1, 0).ebx >> 24, 2);
        assert_eq!(find(&leaves, 1, 0).ebx >> 16 & 0xff, 4);
        for level in 0..3 {
            assert_eq!(find(&leaves, 0xb, level).edx, 2);
        }
        let cores = find(&leaves, 0xb, 1);
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 3, 2 << 8 | 1));
    }

    #[test]
    fn hyperthreading_bit_tells_of_several_cpus() {
        assert_eq!(find(&made(0, 1), 1, 0).edx >> 28 & 1, 0);
        assert_eq!(find(&made(0, 2), 1, 0).edx >> 28 & 1, 1);
    }

    #[test]
    fn the_local_apic_timer_is_usable_and_counters_are_hidden() {
        let leaves = made(0, 1);
        assert_eq!(find(&leaves, 6, 0).eax, 4);
        assert_eq!(find(&leaves, 1, 0).ecx >> 24 & 1, 1);
        assert!(leaves.iter().all(|leaf| leaf.function != 0xa));
        assert!(leaves.iter().all(|leaf| leaf.function != 0x1f));
        assert_eq!(find(&leaves, HYPERVISOR, 0).eax, HYPERVISOR_FREQUENCIES);
        assert_eq!(find(&leaves, HYPERVISOR_FREQUENCIES, 0).eax, 2_000_000);
    }

    #[test]
    fn ids_fit_their_bits() {
        for cpus in 1..=64_u8 {
            assert!(u32::from(cpus - 1) < 1 << id_bits(cpus));
        }
        assert_eq!(id_bits(1), 0);
        assert_eq!(id_bits(64), 6);
    }
}
