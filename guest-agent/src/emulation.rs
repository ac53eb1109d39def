//! Programs of other architectures, through the kernel's `binfmt_misc` and an
//! emulator that the host brings.
//!
//! Emulators are static executables (QEMU's user mode). They are kept on the data
//! disk, each named by its architecture and digest, and given to the kernel at every
//! boot. The kernel opens them at once (flag `F`), so containers need not have them.
//! Outside of a machine nothing is given to the kernel, which is somebody else's.
//!
//! Source: `Documentation/admin-guide/binfmt-misc.rst`; the ELF specification for
//! what an executable begins with.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use guest_protocol::{AgentError, ErrorKind, reference::is_digest};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};

/// Where the kernel is told.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";
/// What a file's name begins with until it is complete.
const TEMPORARY_PREFIX: &str = "tmp-";
/// The largest emulator, in bytes.
const MAX_SIZE: usize = 128 * 1024 * 1024;

/// The open file is used (`F`), with the credentials of the program that is run
/// (`C`, for set-user-id ones), which sees its own name (`P`).
const FLAGS: &str = "PCF";

/// How executables of an architecture begin.
#[derive(Debug, Clone, Copy)]
struct Format {
    /// Docker's word.
    architecture: &'static str,
    /// Whether it has 64 bits.
    wide: bool,
    big_endian: bool,
    /// ELF's number for it.
    machine: u16,
}

const FORMATS: &[Format] = &[
    little("amd64", 62),
    little("arm64", 183),
    Format {
        wide: false,
        ..little("arm", 40)
    },
    little("riscv64", 243),
    little("ppc64le", 21),
    little("loong64", 258),
    little("mips64le", 8),
    Format {
        big_endian: true,
        ..little("s390x", 22)
    },
];

const fn little(architecture: &'static str, machine: u16) -> Format {
    Format {
        architecture,
        wide: true,
        big_endian: false,
        machine,
    }
}

/// The emulators on the data disk.
#[derive(Debug)]
pub(crate) struct Emulators {
    directory: PathBuf,
    /// Held while the kernel is told.
    registering: Mutex<()>,
}

impl Emulators {
    /// Gives the kernel the emulators below `data`, and throws away what was not
    /// completed.
    pub(crate) fn open(data: &Path) -> Self {
        let emulators = Self {
            directory: data.join("emulators"),
            registering: Mutex::new(()),
        };
        if let Err(error) = emulators.register_all() {
            tracing::warn!("emulators of other architectures are not available: {error}");
        }
        emulators
    }

    fn register_all(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.context("cannot read their directory")?,
        };
        for entry in entries {
            let entry = entry.context("cannot read their directory")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match name
                .split_once('-')
                .and_then(|(first, _)| format_of(first).ok())
            {
                Some(format) => self.register(format, &entry.path())?,
                None => {
                    fs::remove_file(entry.path()).context(format_args!("cannot delete {name}"))?;
                }
            }
        }
        Ok(())
    }

    /// Whether this emulator is in use.
    ///
    /// # Errors
    /// When there can be none for `architecture`.
    pub(crate) fn has(&self, architecture: &str, digest: &str) -> Result<bool> {
        Ok(self.path(architecture, digest)?.exists())
    }

    /// Takes an emulator from `program` and puts it to use.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it does not have its digest,
    /// [`ErrorKind::InvalidParameter`] when there can be none for `architecture`.
    pub(crate) fn install(
        &self,
        architecture: &str,
        digest: &str,
        program: impl BufRead,
    ) -> Result<()> {
        let format = format_of(architecture)?;
        let path = self.path(architecture, digest)?;
        if rustix::process::getpid().as_raw_nonzero().get() != 1 {
            return Err(AgentError::new(
                ErrorKind::Unavailable,
                "emulators can only be used in a machine",
            ));
        }
        let _one_at_a_time = self
            .registering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let action = format_args!("cannot keep the emulator for {architecture}");
        fs::create_dir_all(&self.directory).context(action)?;
        let temporary = self
            .directory
            .join(format!("{TEMPORARY_PREFIX}{architecture}"));
        let written = write(program, &temporary, digest);
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        fs::rename(&temporary, &path).context(action)?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .context(action)?;
        self.register(format, &path)?;
        self.remove_others(architecture, &path);
        Ok(())
    }

    /// Deletes earlier emulators for the same architecture.
    fn remove_others(&self, architecture: &str, kept: &Path) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let same = name
                .split_once('-')
                .is_some_and(|(first, _)| first == architecture);
            if same && entry.path() != kept {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, architecture: &str, digest: &str) -> Result<PathBuf> {
        format_of(architecture)?;
        match digest.strip_prefix("sha256:") {
            Some(hex) if is_digest(digest) => {
                Ok(self.directory.join(format!("{architecture}-{hex}")))
            }
            _ => Err(AgentError::invalid(format!("{digest:?} is no digest"))),
        }
    }

    #[allow(
        clippy::unused_self,
        reason = "only emulators of the disk are registered"
    )]
    fn register(&self, format: Format, path: &Path) -> Result<()> {
        let name = format!("dctl-{}", format.architecture);
        let action = format_args!("cannot register the emulator for {}", format.architecture);
        let known = Path::new(BINFMT_MISC).join(&name);
        if known.exists() {
            fs::write(&known, "-1").context(action)?;
        }
        let line = registration(&name, format, path);
        fs::write(Path::new(BINFMT_MISC).join("register"), line).context(action)
    }
}

/// Writes the emulator to `path` and to the disk, checking it on the way.
fn write(mut program: impl BufRead, path: &Path, digest: &str) -> Result<()> {
    let action = "cannot keep the emulator";
    let mut file = File::create(path).context(action)?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let piece = program.fill_buf().context("the emulator did not come")?;
        if piece.is_empty() {
            break;
        }
        let length = piece.len();
        size += length;
        if size > MAX_SIZE {
            return Err(AgentError::invalid("the emulator is too large"));
        }
        hasher.update(piece);
        file.write_all(piece).context(action)?;
        program.consume(length);
    }
    let actual = format!("sha256:{}", hex::encode(hasher.finalize()));
    if actual != digest {
        return Err(AgentError::new(
            ErrorKind::Corrupt,
            format!("the emulator has digest {actual}, expected {digest}"),
        ));
    }
    let mut permissions = file.metadata().context(action)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    file.set_permissions(permissions).context(action)?;
    file.sync_all().context(action)
}

fn format_of(architecture: &str) -> Result<Format> {
    FORMATS
        .iter()
        .find(|format| format.architecture == architecture)
        .copied()
        .ok_or_else(|| {
            AgentError::invalid(format!(
                "programs of architecture {architecture:?} cannot be emulated"
            ))
        })
}

/// What `binfmt_misc` is told: how executables begin, which bits of that count, and
/// what runs them.
fn registration(name: &str, format: Format, path: &Path) -> String {
    let mut magic = [0; 20];
    let mut mask = [0xff; 20];
    magic[..4].copy_from_slice(b"\x7fELF");
    magic[4] = if format.wide { 2 } else { 1 };
    magic[5] = if format.big_endian { 2 } else { 1 };
    magic[6] = 1;
    // Whose ABI it is does not matter.
    mask[7] = 0;
    let word = |value: u16| {
        if format.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    // ET_EXEC or ET_DYN: 2 or 3.
    magic[16..18].copy_from_slice(&word(2));
    mask[16..18].copy_from_slice(&word(0xfffe));
    magic[18..20].copy_from_slice(&word(format.machine));
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        })
    };
    format!(
        ":{name}:M::{}:{}:{}:{FLAGS}",
        escaped(&magic),
        escaped(&mask),
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_what_the_kernel_reads() {
        let line = registration("dctl-arm64", format_of("arm64").unwrap(), "/d/e".as_ref());
        assert_eq!(
            line,
            ":dctl-arm64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\
             \\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\
             \\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:/d/e:PCF"
        );
        let line = registration("dctl-s390x", format_of("s390x").unwrap(), "/d/e".as_ref());
        assert!(line.contains("\\x02\\x02\\x01\\x00"), "{line}");
        assert!(line.contains("\\x00\\x02\\x00\\x16"), "{line}");
        assert!(format_of("pdp11").is_err());
    }

    #[test]
    fn an_emulator_with_another_digest_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let program = b"not what was promised";
        let error = write(&program[..], &path, "sha256:0").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(program)));
        write(&program[..], &path, &digest).unwrap();
        assert_eq!(fs::read(&path).unwrap(), program);
    }
}
