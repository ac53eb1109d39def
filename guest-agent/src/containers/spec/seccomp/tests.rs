//! Profiles read and compiled, and what their filters answer.

use proptest::prelude::*;
use seccompiler::sock_filter;

use super::*;

const EPERM: u32 = libc::EPERM as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: u32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number
}

fn programs(json: &str, capabilities: &[&str]) -> Result<Vec<BpfProgram>, ProfileError> {
    let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
    Profile::parse(json)?.compile(&Subject {
        capabilities: &capabilities,
        kernel: (6, 12),
    })
}

fn default(capabilities: &[&str]) -> Vec<BpfProgram> {
    programs(include_str!("default.json"), capabilities).unwrap()
}

/// The verdict of all filters: the strictest one.
fn verdict(programs: &[BpfProgram], call: i64, arguments: &[u64]) -> u32 {
    programs
        .iter()
        .map(|program| answer(program, call, arguments))
        // As the kernel compares them: signed.
        .min_by_key(|verdict| (verdict & libc::SECCOMP_RET_ACTION_FULL).cast_signed())
        .unwrap_or(ALLOW)
}

/// What one filter answers, worked out instruction by instruction (`struct
/// seccomp_data`: the call's number, the architecture, the address, six arguments).
fn answer(program: &[sock_filter], call: i64, arguments: &[u64]) -> u32 {
    let architecture: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
    let mut data = vec![call as u32, architecture, 0, 0];
    for index in 0..6 {
        let argument = arguments.get(index).copied().unwrap_or(0);
        data.extend([argument as u32, (argument >> 32) as u32]);
    }
    let (mut accumulator, mut next) = (0_u32, 0_usize);
    loop {
        let instruction = &program[next];
        next += 1;
        let number = instruction.k;
        let jump = |taken: bool| {
            usize::from(if taken {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        match instruction.code {
            0x20 => accumulator = data[number as usize / 4],
            0x54 => accumulator &= number,
            0x05 => next += number as usize,
            0x15 => next += jump(accumulator == number),
            0x25 => next += jump(accumulator > number),
            0x35 => next += jump(accumulator >= number),
            0x06 => return number,
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}

#[test]
fn the_default_profile_refuses_what_docker_refuses() {
    let plain = default(&[]);
    assert_eq!(verdict(&plain, libc::SYS_read, &[]), ALLOW);
    assert_eq!(verdict(&plain, libc::SYS_ptrace, &[]), ALLOW);
    assert_eq!(verdict(&plain, libc::SYS_mount, &[]), errno(EPERM));
    assert_eq!(verdict(&plain, libc::SYS_unshare, &[]), errno(EPERM));
    assert_eq!(verdict(&plain, libc::SYS_keyctl, &[]), errno(EPERM));
    assert_eq!(verdict(&plain, 9999, &[]), errno(EPERM));
    // glibc falls back to clone.
    let absent = errno(libc::ENOSYS as u32);
    assert_eq!(verdict(&plain, libc::SYS_clone3, &[]), absent);
    assert_eq!(
        verdict(&plain, libc::SYS_clone, &[libc::SIGCHLD as u64]),
        ALLOW
    );
    let namespace = libc::CLONE_NEWUSER as u64;
    assert_eq!(verdict(&plain, libc::SYS_clone, &[namespace]), errno(EPERM));
}

#[test]
fn capabilities_open_what_they_are_for() {
    let admin = default(&["CAP_SYS_ADMIN"]);
    for call in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_clone3] {
        assert_eq!(verdict(&admin, call, &[]), ALLOW, "{call}");
    }
    assert_eq!(
        verdict(&admin, libc::SYS_clone, &[libc::CLONE_NEWUSER as u64]),
        ALLOW
    );
    assert_eq!(verdict(&admin, libc::SYS_reboot, &[]), errno(EPERM));
    let boot = default(&["CAP_SYS_BOOT"]);
    assert_eq!(verdict(&boot, libc::SYS_reboot, &[]), ALLOW);
}

#[test]
fn arguments_of_32_bits_cannot_evade_a_rule_with_the_upper_half() {
    let plain = default(&[]);
    let vsock = libc::AF_VSOCK as u64;
    assert_eq!(verdict(&plain, libc::SYS_socket, &[1]), ALLOW);
    assert_eq!(verdict(&plain, libc::SYS_socket, &[vsock]), errno(EPERM));
    assert_eq!(
        verdict(&plain, libc::SYS_socket, &[vsock | 1 << 32]),
        errno(EPERM)
    );
    let namespace = libc::CLONE_NEWNET as u64 | 1 << 40;
    assert_eq!(verdict(&plain, libc::SYS_clone, &[namespace]), errno(EPERM));
    assert_eq!(
        verdict(&plain, libc::SYS_personality, &[0xffff_ffff]),
        ALLOW
    );
    assert_eq!(verdict(&plain, libc::SYS_personality, &[1]), errno(EPERM));
}

#[test]
fn every_action_has_its_calls() {
    let all = programs(
        r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"],
            "comment": "ignored", "syscalls": [
            {"names": ["read", "_llseek", "no_such_call"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"name": "mkdirat", "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
            {"names": ["unlinkat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {}},
            {"names": ["acct"], "action": "SCMP_ACT_TRAP"},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
             "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
                      {"index": 2, "value": 4294967296, "op": "SCMP_CMP_GE"}]}
        ]}"#,
        &[],
    )
    .unwrap();
    for (call, expected) in [
        (libc::SYS_read, ALLOW),
        (libc::SYS_mkdirat, errno(30)),
        (libc::SYS_unlinkat, errno(EPERM)),
        (libc::SYS_ptrace, libc::SECCOMP_RET_KILL_PROCESS),
        (libc::SYS_acct, libc::SECCOMP_RET_TRAP),
        (libc::SYS_openat, libc::SECCOMP_RET_LOG),
    ] {
        assert_eq!(verdict(&all, call, &[]), expected, "{call}");
    }
    let write = |arguments: &[u64]| verdict(&all, libc::SYS_write, arguments);
    assert_eq!(write(&[2, 0, 1 << 32]), errno(9));
    assert_eq!(write(&[2, 0, 5]), libc::SECCOMP_RET_LOG);
    assert_eq!(write(&[1, 0, 1 << 32]), libc::SECCOMP_RET_LOG);
}

#[test]
fn conditions_about_one_argument_are_alternatives() {
    let either = programs(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"],
            "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 4, "op": "SCMP_CMP_EQ"}]}]}"#,
        &[],
    )
    .unwrap();
    for (argument, expected) in [(3, errno(EPERM)), (4, errno(EPERM)), (5, ALLOW)] {
        assert_eq!(verdict(&either, libc::SYS_dup, &[argument]), expected);
    }
}

#[test]
fn entries_are_for_some_kernels_and_capabilities_only() {
    let text = |condition: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["dup"],
                "action": "SCMP_ACT_ALLOW", {condition}}}]}}"#
        )
    };
    for (condition, allowed) in [
        (r#""includes": {"minKernel": "6.12"}"#, true),
        (r#""includes": {"minKernel": "6.13"}"#, false),
        (r#""excludes": {"minKernel": "4.8"}"#, false),
        (r#""includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}"#, false),
        (r#""includes": {"caps": ["CAP_CHOWN"]}"#, true),
        (r#""excludes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}"#, false),
        (r#""includes": {"arches": ["s390x"]}"#, false),
        (r#""includes": {"arches": ["amd64", "arm64"]}"#, true),
        (r#""excludes": {"arches": ["amd64", "arm64"]}"#, false),
    ] {
        let programs = programs(&text(condition), &["CAP_CHOWN"]).unwrap();
        let verdict = verdict(&programs, libc::SYS_dup, &[]);
        assert_eq!(verdict == ALLOW, allowed, "{condition}");
    }
}

#[test]
fn what_is_no_profile_is_refused() {
    let entry =
        |entry: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{entry}]}}"#);
    for (text, message) in [
        ("{".to_owned(), "Decoding seccomp profile failed"),
        (
            r#"{"defaultAction": "ALLOW"}"#.to_owned(),
            "string ALLOW is not a valid action for seccomp",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#
                .to_owned(),
            "use either 'architectures' or 'archMap'",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}"#.to_owned(),
            "string x86 is not a valid arch for seccomp",
        ),
        (
            entry(r#"{"names": ["dup"], "action": "SCMP_ACT_NOTIFY"}"#),
            "SCMP_ACT_NOTIFY is not supported",
        ),
        (
            entry(r#"{"name": "dup", "names": ["dup"], "action": "SCMP_ACT_TRAP"}"#),
            "use either 'name' or 'names'",
        ),
        (
            entry(
                r#"{"names": ["dup"], "action": "SCMP_ACT_TRAP", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            "argument 6",
        ),
        (
            entry(
                r#"{"names": ["dup"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "op": "EQ"}]}"#,
            ),
            "string EQ is not a valid operator for seccomp",
        ),
        (
            entry(
                r#"{"names": ["dup"], "action": "SCMP_ACT_TRAP", "includes": {"minKernel": "x"}}"#,
            ),
            "not a version",
        ),
    ] {
        let error = programs(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_profile_that_is_too_large_is_refused() {
    let condition = r#"{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}"#;
    let names = vec![r#""dup""#; 5000].join(",");
    let text = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": [{names}],
            "action": "SCMP_ACT_TRAP", "args": [{condition}]}}]}}"#
    );
    assert!(matches!(
        programs(&text, &[]),
        Err(ProfileError::TooManyRules)
    ));
    let long = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW"}}{}"#,
        " ".repeat(LONGEST)
    );
    assert!(matches!(Profile::parse(&long), Err(ProfileError::TooLong)));
}

proptest! {
    #[test]
    fn a_condition_means_what_it_says(value in any::<u64>(), argument in any::<u64>(), mask in any::<u64>(), operator in 0_usize..7) {
        let names = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let (first, second) = if operator == 6 { (mask, value) } else { (value, 0) };
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["dup"], "action": "SCMP_ACT_TRAP",
                "args": [{{"index": 1, "value": {first}, "valueTwo": {second}, "op": "SCMP_CMP_{}"}}]}}]}}"#,
            names[operator]
        );
        let programs = programs(&text, &[]).unwrap();
        for argument in [argument, value, value.wrapping_add(1), value.wrapping_sub(1)] {
            let expected = match operator {
                0 => argument != value,
                1 => argument < value,
                2 => argument <= value,
                3 => argument == value,
                4 => argument >= value,
                5 => argument > value,
                _ => argument & mask == value & mask,
            };
            let met = verdict(&programs, libc::SYS_dup, &[0, argument]) != ALLOW;
            prop_assert_eq!(met, expected);
        }
    }
}
