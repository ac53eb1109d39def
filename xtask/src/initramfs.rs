//! The guest's initial root: the agent as `/init`, a shell for `dctl machine
//! shell`, and a seed of the data disk's file system.
//!
//! It is a cpio archive that is not compressed: the monitor puts it in guest
//! memory as it is, which costs less than unpacking it at each boot.

mod sparse;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache::{self, Key, Places};
use crate::cpio::Archive;
use crate::{process, rust};

/// The seed's length: two block groups, so that the journal fits. What ext4 fixes
/// when it is made (inodes of each group, the journal) is sized for the disk that
/// it grows to; the seed is nearly all zeros.
const SEED_BYTES: u64 = 256 << 20;

/// The journal never grows, so it is as large as that of a disk of tens of GiB.
const JOURNAL_MIB: u32 = 64;

/// Every machine's data disk has the same identity: none is ever seen beside
/// another one by the same kernel.
const SEED_IDENTITY: &str = "64637466-6c2d-4461-7461-6469736b0001";

/// Builds the archive and returns its path.
pub(crate) fn build(places: &Places) -> Result<PathBuf> {
    let agent = read(&rust::agent(places)?)?;
    let shell = process::need("busybox")?;
    let dynamic = process::output(
        Command::new("file")
            .arg("--brief")
            .arg("--dereference")
            .arg(&shell),
    );
    if dynamic.is_ok_and(|text| text.contains("dynamically linked")) {
        bail!(
            "{} needs shared libraries, which the guest hasn't; install Debian's busybox-static",
            shell.display()
        );
    }
    let applets = process::output(Command::new(&shell).arg("--list"))?;
    let applets: Vec<_> = applets.lines().collect();
    let archive = archive(&agent, &read(&shell)?, &applets, &read(&seed(places)?)?)?;
    let path = rust::guest_directory(places).join("initramfs.cpio");
    if !fs::read(&path).is_ok_and(|present| present == archive) {
        cache::write(&path, &archive)?;
    }
    Ok(path)
}

/// The initial root with these programs; `applets` are the commands that the shell
/// is when it is called by their names.
fn archive(agent: &[u8], shell: &[u8], applets: &[&str], seed: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    // Mount points of the agent.
    for directory in ["bin", "data", "dev", "proc", "run", "sys"] {
        archive.directory(directory, 0o755)?;
    }
    archive.directory("tmp", 0o1777)?;
    // PID 1's standard streams, until the agent mounts devtmpfs.
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.character_device("dev/null", 0o666, (1, 3))?;
    archive.file("init", 0o755, agent)?;
    archive.file("bin/busybox", 0o755, shell)?;
    for applet in applets {
        if *applet != "busybox" {
            archive.symbolic_link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    archive.file("seed.ext4.sparse.zst", 0o644, seed)?;
    Ok(archive.finish()?)
}

/// A small ext4 that the agent writes to a blank data disk and grows to the
/// disk's size while it is mounted; sparse and compressed.
fn seed(places: &Places) -> Result<PathBuf> {
    let mkfs = process::need("mke2fs")?;
    let version = Command::new(&mkfs).arg("-V").output()?.stderr;
    let options = [
        // 4 KiB blocks, and 64-bit block numbers: the disk may grow beyond 16 TiB.
        "-b",
        "4096",
        "-I",
        "256",
        "-i",
        "16384",
        "-O",
        "64bit,metadata_csum,extent,flex_bg,dir_index,large_dir,^orphan_file",
        // Nothing kept back for root: in the guest, everybody is.
        "-m",
        "0",
        "-L",
        "dctl-data",
        "-U",
        SEED_IDENTITY,
        // Room for the descriptors of 4 TiB beside the first ones, so that
        // growing a disk moves nothing; the disk is blank, so its inode tables
        // and journal are zero already.
        "-E",
    ];
    let extended = format!(
        "resize={},hash_seed={SEED_IDENTITY},lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        (4_u64 << 40) / 4096
    );
    let key = Key::new("2")
        .with("mke2fs", &version)
        .with("options", options.join(" ").as_bytes())
        .with("extended", extended.as_bytes())
        .with("journal", &JOURNAL_MIB.to_le_bytes())
        .with("length", &SEED_BYTES.to_le_bytes());
    let entry = places.entry("seed", &key, |work| {
        let image = work.join("seed.ext4");
        fs::File::create(&image)?.set_len(SEED_BYTES)?;
        process::run(
            Command::new(&mkfs)
                .args(["-q", "-F", "-t", "ext4"])
                .args(options)
                .arg(&extended)
                .args(["-J", &format!("size={JOURNAL_MIB}")])
                .arg(&image)
                // e2fsprogs before 1.47.1 knows only the second.
                .env("SOURCE_DATE_EPOCH", "1767225600")
                .env("E2FSPROGS_FAKE_TIME", "1767225600")
                .stdout(Stdio::null()),
        )?;
        process::run(
            Command::new(process::need("e2fsck")?)
                .args(["-f", "-n"])
                .arg(&image)
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .context("mke2fs made a file system that e2fsck finds faults in")?;
        let sparse = work.join("seed.ext4.sparse");
        sparse::write(&image, &sparse).context("cannot write the seed")?;
        compress(&sparse, &work.join("seed.ext4.sparse.zst"))?;
        fs::remove_file(image)?;
        fs::remove_file(sparse)?;
        Ok(())
    })?;
    Ok(entry.join("seed.ext4.sparse.zst"))
}

/// Compresses a file as well as zstd does at reasonable speed.
pub(crate) fn compress(from: &Path, to: &Path) -> Result<()> {
    process::run(
        Command::new(process::need("zstd")?)
            .args(["--quiet", "-19", "--force", "-o"])
            .args([to, from]),
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_programs_make_the_same_archive() {
        let make = || archive(b"agent", b"shell", &["busybox", "ls"], b"seed").unwrap();
        assert_eq!(make(), make());
    }

    #[test]
    fn each_command_of_the_shell_has_a_link() {
        let archive = archive(b"agent", b"shell", &["busybox", "ls", "uname"], b"seed").unwrap();
        for (path, count) in [("bin/ls", 1), ("bin/uname", 1), ("bin/busybox", 1)] {
            let path = format!("{path}\0");
            let found = archive
                .windows(path.len())
                .filter(|window| *window == path.as_bytes());
            assert_eq!(found.count(), count, "{path}");
        }
    }
}
