//! The probe's guest: 64-bit kernel-mode code that says by a port what it is
//! about to do, does it, and checks the result.
//!
//! It starts as a Linux would, with the same registers and page tables.

use std::arch::global_asm;
use std::slice;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::kvm::{GuestMemory, layout};

/// The guest writes the stage it begins, or a fault, to this port.
pub(super) const STAGE_PORT: u16 = 0xe9;
/// The guest writes here at its end.
pub(super) const FINISHED_PORT: u16 = 0xf4;
/// What it must read from the first virtio-mmio page.
pub(super) const MMIO_VALUE: u32 = 0x600d_cafe;
/// Faults, instead of a stage.
pub(super) const FAULT_WRONG_RESULT: u8 = 0xfe;
const FAULT_EXCEPTION: u8 = 0xff;

/// Steps of one loop; it is run three times, and the fastest counts.
pub(super) const LOOP_STEPS: u32 = 20_000;
pub(super) const STAGE_LOOP: u8 = 1;
pub(super) const LOOP: &str = "a kernel-mode loop";
/// What the guest does, in order.
pub(super) const STAGES: [(u8, &str); 11] = [
    (STAGE_LOOP, LOOP),
    (2, "cpuid"),
    (3, "cmpxchg16b"),
    (4, "popcnt"),
    (5, "fninit and fwait"),
    (6, "xsetbv, xsave and xrstor"),
    (7, "stac and clac"),
    (8, "int3 with a handler"),
    (9, "wrmsr, swapgs and syscall"),
    (10, "a device register"),
    (11, "hlt until a timer interrupt"),
];

/// A stage for people.
pub(super) fn stage_name(stage: u8) -> &'static str {
    STAGES
        .iter()
        .find(|(known, _)| *known == stage)
        .map_or("the first instruction", |(_, name)| name)
}

/// Where the code is loaded, and starts.
pub(super) const ENTRY: u64 = layout::HIGH_MEMORY;
/// 8 KiB that the code uses: scratch, counters, the XSAVE area.
const DATA: u64 = ENTRY + 0x1_0000;
const IDT: u64 = ENTRY + 0x2_0000;
const IDT_ENTRIES: u64 = 256;
const BREAKPOINT: u64 = 3;
const TIMER: u64 = 0x20;

global_asm!(
    ".pushsection .rodata.dctl_probe_guest, \"a\", @progbits",
    ".balign 16",
    ".macro dctl_stage number",
    "    mov al, \\number",
    "    out {stage_port}, al",
    ".endm",
    ".globl dctl_probe_guest_start",
    ".hidden dctl_probe_guest_start",
    "dctl_probe_guest_start:",
    "    mov r15d, {data}",
    // Three loops.
    "    mov r8d, 3",
    "2:  dctl_stage 1",
    "    mov ecx, {loop_steps}",
    "3:  dec ecx",
    "    jnz 3b",
    "    dctl_stage 2",
    "    dec r8d",
    "    jnz 2b",
    // CPUID: leaf 1 ECX to r14d, leaf 7 EBX to r13d.
    "    mov eax, 1",
    "    xor ecx, ecx",
    "    cpuid",
    "    mov r14d, ecx",
    "    xor eax, eax",
    "    cpuid",
    "    xor r13d, r13d",
    "    cmp eax, 7",
    "    jb 4f",
    "    mov eax, 7",
    "    xor ecx, ecx",
    "    cpuid",
    "    mov r13d, ebx",
    "4:",
    // The atomic exchange of 16 bytes.
    "    dctl_stage 3",
    "    bt r14d, 13",
    "    jnc 4f",
    "    xor eax, eax",
    "    xor edx, edx",
    "    mov ebx, 1",
    "    mov ecx, 2",
    "    lock cmpxchg16b [r15]",
    "    jnz 8f",
    "    cmp qword ptr [r15 + 8], 2",
    "    jne 8f",
    "4:  dctl_stage 4",
    "    bt r14d, 23",
    "    jnc 4f",
    "    mov eax, 0xf0f",
    "    popcnt eax, eax",
    "    cmp eax, 8",
    "    jne 8f",
    "4:  dctl_stage 5",
    "    fninit",
    "    fwait",
    // CR4: OSFXSR, OSXMMEXCPT, OSXSAVE; x87 and SSE state.
    "    dctl_stage 6",
    "    bt r14d, 26",
    "    jnc 4f",
    "    mov rax, cr4",
    "    or eax, 0x40600",
    "    mov cr4, rax",
    "    xor ecx, ecx",
    "    mov eax, 3",
    "    xor edx, edx",
    "    xsetbv",
    "    mov eax, 3",
    "    xor edx, edx",
    "    xsave [r15 + 0x1000]",
    "    xrstor [r15 + 0x1000]",
    "4:  dctl_stage 7",
    "    bt r13d, 20",
    "    jnc 4f",
    "    stac",
    "    clac",
    "4:  dctl_stage 8",
    "    sub rsp, 16",
    "    mov word ptr [rsp], {idt_limit}",
    "    mov qword ptr [rsp + 2], {idt}",
    "    lidt [rsp]",
    "    add rsp, 16",
    "    int3",
    "    cmp dword ptr [r15 + 0x40], 1",
    "    jne 8f",
    // EFER.SCE, STAR (code segment 0x10), LSTAR; then SYSCALL goes to 4.
    "    dctl_stage 9",
    "    mov ecx, 0xc0000080",
    "    rdmsr",
    "    or eax, 1",
    "    wrmsr",
    "    mov ecx, 0xc0000081",
    "    xor eax, eax",
    "    mov edx, 0x10",
    "    wrmsr",
    "    mov ecx, 0xc0000082",
    "    lea rax, [rip + 4f]",
    "    xor edx, edx",
    "    wrmsr",
    "    mov ecx, 0xc0000084",
    "    xor eax, eax",
    "    wrmsr",
    "    swapgs",
    "    syscall",
    "    jmp 8f",
    "4:  swapgs",
    "    dctl_stage 10",
    "    mov ebx, {mmio}",
    "    mov eax, [rbx]",
    "    cmp eax, {mmio_value}",
    "    jne 8f",
    // The local APIC: enable, divide by 1, one shot, 1000 ns.
    "    dctl_stage 11",
    "    mov ebx, {local_apic}",
    "    mov dword ptr [rbx + 0xf0], 0x1ff",
    "    mov dword ptr [rbx + 0x3e0], 0xb",
    "    mov dword ptr [rbx + 0x320], {timer}",
    "    mov dword ptr [rbx + 0x380], 1000",
    "    sti",
    "    hlt",
    "    cli",
    "    cmp dword ptr [r15 + 0x44], 1",
    "    jne 8f",
    "    xor eax, eax",
    "    out {finished_port}, al",
    "7:  hlt",
    "    jmp 7b",
    "8:  mov al, {wrong_result}",
    "    out {stage_port}, al",
    "    jmp 7b",
    ".globl dctl_probe_guest_breakpoint",
    ".hidden dctl_probe_guest_breakpoint",
    "dctl_probe_guest_breakpoint:",
    "    inc dword ptr [r15 + 0x40]",
    "    iretq",
    ".globl dctl_probe_guest_timer",
    ".hidden dctl_probe_guest_timer",
    "dctl_probe_guest_timer:",
    "    inc dword ptr [r15 + 0x44]",
    "    mov dword ptr [rbx + 0xb0], 0",
    "    iretq",
    ".globl dctl_probe_guest_exception",
    ".hidden dctl_probe_guest_exception",
    "dctl_probe_guest_exception:",
    "    mov al, {exception}",
    "    out {stage_port}, al",
    "9:  hlt",
    "    jmp 9b",
    ".globl dctl_probe_guest_end",
    ".hidden dctl_probe_guest_end",
    "dctl_probe_guest_end:",
    ".purgem dctl_stage",
    ".popsection",
    stage_port = const STAGE_PORT,
    finished_port = const FINISHED_PORT,
    data = const DATA,
    idt = const IDT,
    idt_limit = const IDT_ENTRIES * 16 - 1,
    loop_steps = const LOOP_STEPS,
    mmio = const layout::VIRTIO_MMIO,
    mmio_value = const MMIO_VALUE,
    local_apic = const layout::LOCAL_APIC,
    timer = const TIMER,
    wrong_result = const FAULT_WRONG_RESULT,
    exception = const FAULT_EXCEPTION,
);

unsafe extern "C" {
    static dctl_probe_guest_start: u8;
    static dctl_probe_guest_breakpoint: u8;
    static dctl_probe_guest_timer: u8;
    static dctl_probe_guest_exception: u8;
    static dctl_probe_guest_end: u8;
}

/// Writes the guest's code and its interrupt descriptor table.
pub(super) fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let start = &raw const dctl_probe_guest_start;
    let in_guest = |label: *const u8| ENTRY + (label.addr() - start.addr()) as u64;
    let length = (&raw const dctl_probe_guest_end).addr() - start.addr();
    // SAFETY: the assembly above is one piece of read-only data between the two
    // labels.
    let code = unsafe { slice::from_raw_parts(start, length) };
    memory.write_slice(code, GuestAddress(ENTRY))?;
    for vector in 0..IDT_ENTRIES {
        let handler = in_guest(match vector {
            BREAKPOINT => &raw const dctl_probe_guest_breakpoint,
            TIMER => &raw const dctl_probe_guest_timer,
            _ => &raw const dctl_probe_guest_exception,
        });
        // A present 64-bit interrupt gate to code segment 0x10.
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        memory.write_obj(low, GuestAddress(IDT + vector * 16))?;
        memory.write_obj(handler >> 32, GuestAddress(IDT + vector * 16 + 8))?;
    }
    Ok(())
}
