//! A virtual machine of KVM's: its memory slots, interrupt controllers, virtual
//! CPUs, and the eventfds that connect a device to it.

use std::sync::{Mutex, PoisonError};

use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_PMU_CAP_DISABLE,
    KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{
    Cap, IoEventAddress, Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd,
    VmFd,
};
use vm_memory::{GuestMemory as _, GuestMemoryRegion, GuestRegionMmap};
use vmm_sys_util::eventfd::EventFd;

use super::io_apic::IoApic;
use super::{Error, GuestMemory, cpuid, layout, mp_table, registers};

/// A virtual machine with memory and interrupt controllers: local APICs in KVM, an
/// I/O APIC here, and no PIC.
pub(crate) struct Machine {
    vm: VmFd,
    cpus: u8,
    io_apic: Mutex<IoApic>,
    supported_cpuid: kvm_bindings::CpuId,
    tsc_frequency_known: bool,
    /// KVM reads and writes it for as long as `vm` is open.
    _memory: GuestMemory,
}

impl Machine {
    /// Makes a virtual machine that has `memory`, will have `cpus` virtual CPUs, and
    /// has `interrupt_lines` interrupt lines.
    pub(crate) fn new(
        kvm: &Kvm,
        memory: GuestMemory,
        cpus: u8,
        interrupt_lines: u8,
    ) -> Result<Self, Error> {
        let vm = create(kvm)?;
        for (slot, region) in (0..).zip(memory.iter()) {
            set_memory(&vm, slot, region)?;
        }
        // Only Intel processors without unrestricted guest mode use these pages.
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(Error::at("place its identity map"))?;
        vm.set_tss_address(layout::KVM_TSS)
            .map_err(Error::at("place its task state segment"))?;
        let mut local_apics_only = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        local_apics_only.args[0] = u64::from(interrupt_lines);
        vm.enable_cap(&local_apics_only)
            .map_err(Error::at("create the local APICs"))?;
        disable_performance_monitoring(&vm)?;
        hide_performance_counters(&vm)?;
        Ok(Self {
            cpus,
            io_apic: Mutex::new(IoApic::new(mp_table::io_apic_id(cpus), interrupt_lines)),
            supported_cpuid: cpuid::supported(kvm)?,
            tsc_frequency_known: kvm.check_extension(Cap::GetTscKhz),
            vm,
            _memory: memory,
        })
    }

    /// Makes virtual CPU `id`. The boot CPU (0) starts at `entry`; the
    /// others wait for it to start them.
    pub(crate) fn create_vcpu(&self, id: u8, entry: u64) -> Result<VcpuFd, Error> {
        let vcpu = self
            .vm
            .create_vcpu(u64::from(id))
            .map_err(Error::at("create a virtual CPU"))?;
        let tsc_khz = if self.tsc_frequency_known {
            vcpu.get_tsc_khz().unwrap_or(0)
        } else {
            0
        };
        let leaves = cpuid::for_cpu(self.supported_cpuid.as_slice(), id, self.cpus, tsc_khz)?;
        vcpu.set_cpuid2(&leaves)
            .map_err(Error::at("set CPU features"))?;
        registers::set_every_cpu(&vcpu)?;
        if id == 0 {
            registers::set_boot_cpu(&vcpu, entry)?;
        }
        Ok(vcpu)
    }

    /// The guest reads a register of the I/O APIC.
    pub(crate) fn read_io_apic(&self, offset: u64) -> u32 {
        let io_apic = self.io_apic.lock();
        io_apic.unwrap_or_else(PoisonError::into_inner).read(offset)
    }

    /// The guest writes a register of the I/O APIC.
    pub(crate) fn write_io_apic(&self, offset: u64, value: u32) -> Result<(), Error> {
        let io_apic = self.io_apic.lock();
        let mut io_apic = io_apic.unwrap_or_else(PoisonError::into_inner);
        if io_apic.write(offset, value) {
            // Under the lock: two CPUs' changes get to KVM in their order.
            self.route(&io_apic)?;
        }
        Ok(())
    }

    /// Tells KVM what each interrupt line sends.
    fn route(&self, io_apic: &IoApic) -> Result<(), Error> {
        let entries: Vec<_> = io_apic
            .messages()
            .map(|(line, message)| kvm_irq_routing_entry {
                gsi: line,
                type_: KVM_IRQ_ROUTING_MSI,
                u: kvm_irq_routing_entry__bindgen_ty_1 {
                    msi: kvm_irq_routing_msi {
                        address_lo: message.address,
                        data: message.data,
                        ..Default::default()
                    },
                },
                ..Default::default()
            })
            .collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| {
            Error::at("hold that many interrupt lines")(kvm_ioctls::Error::new(libc::E2BIG))
        })?;
        self.vm
            .set_gsi_routing(&routing)
            .map_err(Error::at("route interrupts"))
    }

    /// A write to `event` raises interrupt line `irq`, by an edge.
    pub(crate) fn connect_interrupt(&self, event: &EventFd, irq: u32) -> Result<(), Error> {
        self.vm
            .register_irqfd(event, irq)
            .map_err(Error::at("connect an interrupt"))
    }

    /// The guest's write of `queue` (32 bits) to `address` signals `event`, and
    /// makes no exit to user space.
    pub(crate) fn connect_notification(
        &self,
        event: &EventFd,
        address: u64,
        queue: u32,
    ) -> Result<(), Error> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), queue)
            .map_err(Error::at("connect a queue's notification"))
    }
}

/// `KVM_CREATE_VM` can be interrupted by a signal.
fn create(kvm: &Kvm) -> Result<VmFd, Error> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(Error::at("create a virtual machine")),
        }
    }
}

fn set_memory(vm: &VmFd, slot: u32, region: &GuestRegionMmap<()>) -> Result<(), Error> {
    let slot = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the region is a mapping of that address and length, and `Machine`
    // holds it for as long as the virtual machine is open.
    unsafe { vm.set_user_memory_region(slot) }.map_err(Error::at("take guest memory"))
}

/// Guests get no performance counters: they make each switch to a guest dearer,
/// and those of a shared host tell about its other users.
fn disable_performance_monitoring(vm: &VmFd) -> Result<(), Error> {
    let offered = vm.check_extension_raw(u64::from(KVM_CAP_PMU_CAPABILITY));
    if offered & KVM_PMU_CAP_DISABLE as i32 == 0 {
        return Ok(());
    }
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        ..Default::default()
    };
    capability.args[0] = u64::from(KVM_PMU_CAP_DISABLE);
    vm.enable_cap(&capability)
        .map_err(Error::at("disable performance monitoring"))
}

/// Linux on AMD tries the oldest counters whatever CPUID says. It takes the refusal
/// well, but the host's kernel would log each try.
fn hide_performance_counters(vm: &VmFd) -> Result<(), Error> {
    const AMD_COUNTERS: u32 = 0xc001_0000;
    if !vm.check_extension(Cap::X86MsrFilter) {
        return Ok(());
    }
    vm.set_msr_filter(
        MsrFilterDefaultAction::ALLOW,
        &[MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base: AMD_COUNTERS,
            msr_count: 8,
            // KVM reads whole longs of it.
            bitmap: &[0; 8],
        }],
    )
    .map_err(Error::at("hide performance counters"))
}
