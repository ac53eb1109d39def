//! Which devices a container may open: a BPF program on its cgroup.
//!
//! cgroup v2 has no list of devices; the kernel asks a program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` at each open and mknod. This one is a chain of
//! comparisons, one link for each [`Rule`]. Containers may make any device node,
//! as in Docker, and open those that are theirs.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// `access_type` of `struct bpf_cgroup_dev_ctx` (include/uapi/linux/bpf.h): the
/// kind in the low half, what is wanted in the high half.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// `enum bpf_cmd`, `bpf_prog_type` and `bpf_attach_type`, same place.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// Devices that are allowed; `None` stands for every number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    kind: i32,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

impl Rule {
    /// The character device with these numbers, to read and write.
    pub(crate) const fn character(major: u32, minor: Option<u32>) -> Self {
        Self {
            kind: CHARACTER,
            major: Some(major),
            minor,
            access: READ | WRITE | MKNOD,
        }
    }

    /// The device of that kind (`b` or `c`) with these numbers, with an access of
    /// the letters `rwm`.
    pub(crate) fn new(
        kind: &str,
        major: Option<u32>,
        minor: Option<u32>,
        access: &str,
    ) -> Option<Self> {
        let kind = match kind {
            "b" => BLOCK,
            "c" => CHARACTER,
            _ => return None,
        };
        let mut bits = 0;
        for letter in access.chars() {
            bits |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return None,
            };
        }
        (bits != 0).then_some(Self {
            kind,
            major,
            minor,
            access: bits,
        })
    }

    /// As in Docker's `--device-cgroup-rule`: `c 42:* rmw`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_whitespace();
        let (kind, numbers, access) = (fields.next()?, fields.next()?, fields.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let rule = Self::new(kind, number(major)?, number(minor)?, access)?;
        fields.next().is_none().then_some(rule)
    }
}

/// What every container may open: null, zero, full, random, urandom, tty, console,
/// ptmx and the slaves of terminals.
pub(crate) const ALWAYS: [Rule; 9] = [
    Rule::character(1, Some(3)),
    Rule::character(1, Some(5)),
    Rule::character(1, Some(7)),
    Rule::character(1, Some(8)),
    Rule::character(1, Some(9)),
    Rule::character(5, Some(0)),
    Rule::character(5, Some(1)),
    Rule::character(5, Some(2)),
    Rule::character(136, None),
];

/// Lets the processes of the cgroup at `path` open what `rules` allow, and nothing
/// else.
///
/// # Errors
/// When the kernel refuses the program.
pub(super) fn confine(path: &Path, rules: &[Rule]) -> io::Result<()> {
    let cgroup = File::open(path)?;
    let program = load(&program(rules))?;
    let attachment = Attachment {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        ..Attachment::default()
    };
    // SAFETY: the kernel reads the attributes, which live across the call, and takes
    // its own references to both files.
    unsafe { bpf(BPF_PROG_ATTACH, &attachment) }.map(drop)
}

/// One instruction: `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

// Operation codes (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb4;
const AND_NUMBER: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, KIND, 0, 0),
        instruction(AND_NUMBER, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        // Making a node opens nothing.
        instruction(JUMP_UNLESS_EQUAL, ACCESS, 0, 2, MKNOD),
        instruction(MOVE_NUMBER, RESULT, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
    ];
    for rule in rules {
        let mut conditions = vec![(KIND, rule.kind)];
        conditions.extend(rule.major.map(|number| (MAJOR, number as i32)));
        conditions.extend(rule.minor.map(|number| (MINOR, number as i32)));
        // Behind the conditions: three for the access, two to allow it.
        let mut behind = conditions.len() as i16 + 4;
        for (register, number) in conditions {
            program.push(instruction(JUMP_UNLESS_EQUAL, register, 0, behind, number));
            behind -= 1;
        }
        program.extend([
            instruction(MOVE, RESULT, ACCESS, 0, 0),
            instruction(AND_NUMBER, RESULT, 0, 0, !rule.access),
            instruction(JUMP_UNLESS_EQUAL, RESULT, 0, 2, 0),
            instruction(MOVE_NUMBER, RESULT, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
    }
    program.extend([
        instruction(MOVE_NUMBER, RESULT, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    program
}

/// `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing for zero.
#[derive(Debug, Default)]
#[repr(C)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH`.
#[derive(Debug, Default)]
#[repr(C)]
struct Attachment {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        length: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: the kernel reads the attributes, `length` instructions and the licence,
    // all of which live across the call.
    let file = unsafe { bpf(BPF_PROG_LOAD, &load) }?;
    // SAFETY: for this command the result is a new file of ours.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// # Safety
/// `attributes` must be what `command` takes.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    let attributes: *const T = attributes;
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers, worked out instruction by instruction.
    fn answer(program: &[Instruction], kind: i32, access: i32, major: u32, minor: u32) -> i32 {
        let context = [access << 16 | kind, major as i32, minor as i32];
        let mut registers = [0_i32; 6];
        let mut next = 0;
        loop {
            let Instruction {
                code,
                registers: both,
                offset,
                immediate,
            } = program[next];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            next += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = immediate,
                AND_NUMBER => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] = (registers[to] as u32 >> immediate) as i32,
                JUMP_UNLESS_EQUAL if registers[to] != immediate => next += offset as usize,
                JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0],
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn only_what_a_rule_allows_can_be_opened() {
        let mut rules = ALWAYS.to_vec();
        rules.push(Rule::parse("b 8:* r").unwrap());
        let program = program(&rules);
        let may = |kind, access, major, minor| answer(&program, kind, access, major, minor) == 1;
        assert!(may(CHARACTER, READ | WRITE, 1, 3));
        assert!(may(CHARACTER, READ | WRITE, 136, 77));
        assert!(may(BLOCK, READ, 8, 16));
        assert!(!may(BLOCK, READ | WRITE, 8, 16));
        assert!(!may(BLOCK, READ, 254, 0));
        assert!(!may(CHARACTER, READ, 1, 1));
        assert!(!may(BLOCK, READ, 1, 3));
        assert!(may(BLOCK, MKNOD, 254, 0));
    }

    #[test]
    fn rules_are_read_as_docker_writes_them() {
        assert_eq!(Rule::parse("c 1:3 rwm"), Some(Rule::character(1, Some(3))));
        assert_eq!(Rule::parse("c *:* m").unwrap().major, None);
        for text in [
            "",
            "c",
            "a *:* rwm",
            "c 1:3",
            "c 1:3 x",
            "c 1 r",
            "c 1:3 r more",
            "c -1:3 r",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }
}
