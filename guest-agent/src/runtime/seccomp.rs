//! The system call filters of a container's processes: kept in a file of its bundle,
//! and installed in each new process.
//!
//! What the filters say is worked out by [`crate::containers`], from a profile.

use std::{fs, io, path::Path};

use guest_protocol::AgentError;
use rustix::io::Errno;
use seccompiler::{BpfProgram, sock_filter};

use crate::error::{Context, Result};

/// Bytes of an instruction: `struct sock_filter`.
const INSTRUCTION: usize = 8;

/// Filters of a process, to be installed in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(Vec<BpfProgram>);

impl Filters {
    pub(crate) fn new(programs: Vec<BpfProgram>) -> Self {
        Self(programs)
    }

    /// Writes them to a file: of each the number of instructions, and these.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for program in &self.0 {
            bytes.extend(program.len().to_le_bytes());
            for instruction in program {
                bytes.extend(instruction.code.to_le_bytes());
                bytes.extend([instruction.jt, instruction.jf]);
                bytes.extend(instruction.k.to_le_bytes());
            }
        }
        fs::write(path, bytes)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it cannot be read, or is cut short.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let mut rest = bytes.as_slice();
        let mut programs = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk() {
            let size = usize::from_le_bytes(*length).saturating_mul(INSTRUCTION);
            let (program, after) = after
                .split_at_checked(size)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            rest = after;
            let (instructions, _) = program.as_chunks::<INSTRUCTION>();
            programs.push(instructions.iter().copied().map(instruction).collect());
        }
        Ok(Self(programs))
    }

    /// Installs them in the calling process, for good. It needs `CAP_SYS_ADMIN` in
    /// its user namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn install(&self) -> Result<()> {
        self.0.iter().try_for_each(install)
    }
}

fn instruction(bytes: [u8; INSTRUCTION]) -> sock_filter {
    let [code_low, code_high, jt, jf, k @ ..] = bytes;
    sock_filter {
        code: u16::from_le_bytes([code_low, code_high]),
        jt,
        jf,
        k: u32::from_le_bytes(k),
    }
}

/// seccompiler's own installer also sets `no_new_privs`, which would disarm every
/// set-user-id program in the container.
fn install(program: &BpfProgram) -> Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| AgentError::system("the seccomp profile is too long"))?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which `program`
    // holds in the kernel's layout, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
            .context("cannot install the seccomp profile");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let number = |k| sock_filter {
            code: 0x0106,
            jt: 1,
            jf: 2,
            k,
        };
        let filters = Filters::new(vec![vec![number(7), number(0xffff_ffff)], vec![number(3)]]);
        filters.write(file.path()).unwrap();
        let read = Filters::read(file.path()).unwrap();
        assert_eq!(format!("{:?}", read.0), format!("{:?}", filters.0));
        let bytes = fs::read(file.path()).unwrap();
        fs::write(file.path(), &bytes[..bytes.len() - 1]).unwrap();
        assert!(Filters::read(file.path()).is_err());
    }
}
