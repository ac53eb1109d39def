//! A seccomp profile, read and compiled for containers with and without privileges.
//! Whatever it holds: no panic, no filter that the kernel would find unsound.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/containers/spec/seccomp/mod.rs"]
#[allow(dead_code)]
mod seccomp;

/// The kernel's limit of instructions (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// Classes of instructions: jumps and returns (linux/bpf_common.h).
const CLASS: u16 = 0x07;
const JUMP: u16 = 0x05;
const ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;

fuzz_target!(|text: &str| {
    let Ok(profile) = seccomp::Profile::parse(text) else {
        return;
    };
    for names in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]] {
        let capabilities: HashSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        let subject = seccomp::Subject {
            capabilities: &capabilities,
            kernel: (6, 12),
        };
        for program in profile.compile(&subject).into_iter().flatten() {
            assert!(program.len() <= LONGEST);
            for (at, instruction) in program.iter().enumerate() {
                let furthest = match instruction.code {
                    ALWAYS => instruction.k as usize,
                    code if code & CLASS == JUMP => instruction.jt.max(instruction.jf).into(),
                    _ => 0,
                };
                assert!(
                    at + 1 + furthest <= program.len(),
                    "a jump out of the filter"
                );
            }
            let last = program.last().expect("a filter has a verdict");
            assert_eq!(last.code & CLASS, RETURN);
        }
    }
});
