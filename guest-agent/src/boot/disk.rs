//! The data disk: made when it is blank, mounted, grown to its device.
//!
//! A blank disk gets a small ext4 file system from a seed, with its superblock
//! written last: cut off half-way, the disk is blank still. It is then grown to
//! the device's size while mounted (`EXT4_IOC_RESIZE_FS`), as it is whenever the
//! device has become larger. A disk with anything else on it is never written to.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use guest_protocol::AgentError;
use rustix::mount::{
    MountFlags, UnmountFlags, mount as mount_file_system, unmount as unmount_file_system,
};

use super::seed::{BLOCK, Seed};
use crate::error::{Context, Result};

/// The data disk: the machine has one.
const DEVICE: &str = "/dev/vda";

/// How the file system is mounted: freed blocks are given back to the host, inode tables
/// are not written before they are needed, and bitmaps of all block groups, 512 for 64 GiB,
/// are not read as soon as it is mounted, which is while the machine starts.
const OPTIONS: &std::ffi::CStr = c"discard,noinit_itable,no_prefetch_block_bitmaps";

/// The superblock's place and length, and offsets in it
/// (Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_LENGTH: usize = 1024;
const BLOCKS_LOW: usize = 0x4;
const MAGIC_OFFSET: usize = 0x38;
const LABEL_OFFSET: usize = 0x78;
const BLOCKS_HIGH: usize = 0x150;
const MAGIC: &[u8] = &[0x53, 0xef];

/// The label of a file system that came from the seed.
const LABEL: &[u8] = b"dctl-data";

/// At the start of a disk whose seed is being written; ext4 leaves that place to
/// boot loaders.
const UNFINISHED: &[u8] = b"dctl: a file system is being made";

/// How much of a disk is looked at to see whether it is blank: whatever holds data
/// has its signature there.
const LOOKED_AT: u64 = 1024 * 1024;

/// Blocks of a block group.
const GROUP_BLOCKS: u64 = 32768;

/// `_IOW('f', 16, __u64)` of fs/ext4/ext4.h.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// What is on a disk.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    Blank,
    Ours,
    Foreign,
}

/// Mounts the data disk on `target`; `seed` is the [file system](super::seed) for
/// a blank one, compressed with zstd.
///
/// # Errors
/// When there is no disk, it holds something else, or the kernel refuses.
pub(super) fn mount(target: &Path, seed: Option<File>) -> Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .context(format_args!("there is no data disk: cannot open {DEVICE}"))?;
    match contents(&device).context("cannot read the data disk")? {
        Contents::Ours => {}
        Contents::Foreign => {
            return Err(AgentError::system(
                "the data disk holds something that is not a machine's data; \
                 it was not touched",
            ));
        }
        Contents::Blank => {
            let seed = seed.ok_or_else(|| {
                AgentError::system("the data disk is blank, and this boot has no seed for it")
            })?;
            tracing::info!("making a file system on the blank data disk");
            write_seed(&device, seed).context("cannot make a file system on the data disk")?;
        }
    }
    // The kernel takes a file system's size from the superblock before it replays the
    // journal. When that held a growth, it would go on with the size from before:
    // blocks that are used would be out of its bounds.
    let before = blocks(&device).context("cannot read the data disk")?;
    mount_device(target)?;
    if blocks(&device).context("cannot read the data disk")? != before {
        tracing::info!("the data disk was growing when the machine ended");
        unmount_file_system(target, UnmountFlags::empty())
            .context("cannot mount the data disk anew")?;
        mount_device(target)?;
    }
    drop(device);
    if let Err(error) = grow(target) {
        // What there is serves.
        tracing::error!("the data disk keeps its size: {error}");
    }
    Ok(())
}

fn mount_device(target: &Path) -> Result<()> {
    mount_file_system(
        DEVICE,
        target,
        "ext4",
        // Not without set-user-id programs and devices: mounts of volumes inherit that,
        // and a container's capabilities and cgroup say what it may do with them.
        MountFlags::NOATIME,
        Some(OPTIONS),
    )
    .context("cannot mount the data disk")
}

/// How many blocks the file system on `device` has, mounted or not.
fn blocks(device: &File) -> io::Result<u64> {
    let mut superblock = [0; SUPERBLOCK_LENGTH];
    device.read_exact_at(&mut superblock, SUPERBLOCK)?;
    let word = |offset: usize| {
        let bytes = superblock.get(offset..offset + 4).unwrap_or(&[0; 4]);
        u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    Ok(word(BLOCKS_LOW) | word(BLOCKS_HIGH) << 32)
}

/// Grows the mounted file system once the device has `size` bytes, which the kernel
/// hears of from the host just now.
///
/// # Errors
/// When the device does not get that size, or the kernel refuses.
pub(crate) async fn grow_to(mounted: PathBuf, size: u64) -> Result<()> {
    // virtio_blk takes a new capacity over in a work item of its own: soon after
    // the interrupt, and without a word to anybody who waits.
    const PATIENCE: Duration = Duration::from_secs(20);
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    // Outside of a machine the data is in a folder of somebody else's disk.
    if !is_on_device(&mounted).context("cannot look at the data disk")? {
        return Err(AgentError::system("the data is not on a disk of its own"));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let has = device_size().context("cannot look at the data disk")?;
        if has >= size {
            break;
        }
        if Instant::now() > deadline {
            return Err(AgentError::system(format!(
                "the data disk still has {} MiB, not {}",
                has >> 20,
                size >> 20
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::task::spawn_blocking(move || grow(&mounted))
        .await
        .context("growing the data disk failed")?
        .context("cannot grow the data disk's file system")
}

fn is_on_device(mounted: &Path) -> io::Result<bool> {
    match std::fs::metadata(DEVICE) {
        Ok(device) => Ok(device.rdev() == std::fs::metadata(mounted)?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn device_size() -> io::Result<u64> {
    File::open(DEVICE)?.seek(SeekFrom::End(0))
}

/// Unmounts the data disk, or at least has all of it written.
pub(super) fn unmount(target: &Path) {
    rustix::fs::sync();
    if let Err(error) = unmount_file_system(target, UnmountFlags::empty()) {
        tracing::warn!("the data disk is busy: {error}");
        // Read-only, it is consistent as well.
        let result = rustix::mount::mount_remount(target, MountFlags::RDONLY, c"");
        if let Err(error) = result {
            tracing::warn!("the data disk stays writable: {error}");
        }
        rustix::fs::sync();
    }
}

fn contents(device: &File) -> io::Result<Contents> {
    let mut start = Vec::new();
    let mut reader = device;
    reader.seek(SeekFrom::Start(0))?;
    // At each boot but the first, the superblock is all that is read.
    reader
        .take(SUPERBLOCK + SUPERBLOCK_LENGTH as u64)
        .read_to_end(&mut start)?;
    if is_ours(&start) {
        return Ok(Contents::Ours);
    }
    reader
        .take(LOOKED_AT - start.len() as u64)
        .read_to_end(&mut start)?;
    Ok(
        if start.starts_with(UNFINISHED) || start.iter().all(|byte| *byte == 0) {
            Contents::Blank
        } else {
            Contents::Foreign
        },
    )
}

/// Whether a disk that starts like this has a superblock that came from the seed.
fn is_ours(start: &[u8]) -> bool {
    let superblock = start.get(SUPERBLOCK as usize..).unwrap_or_default();
    let has = |offset: usize, bytes: &[u8]| {
        superblock
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(bytes))
    };
    has(MAGIC_OFFSET, MAGIC) && has(LABEL_OFFSET, LABEL)
}

/// Writes the seed so that it counts only when all of it is there.
fn write_seed(device: &File, seed: impl Read) -> io::Result<()> {
    let seed = Seed::open(BufReader::new(zstd::stream::read::Decoder::new(seed)?))?;
    let mut disk = device;
    let size = disk.seek(SeekFrom::End(0))?;
    if seed.length() > size {
        return Err(io::Error::other(format!(
            "the disk has {} MiB, and {} is the least",
            size >> 20,
            seed.length() >> 20
        )));
    }
    let mut mark = [0; BLOCK];
    mark[..UNFINISHED.len()].copy_from_slice(UNFINISHED);
    device.write_all_at(&mark, 0)?;
    device.sync_data()?;
    let first = seed.write(device)?;
    device.sync_data()?;
    device.write_all_at(&first, 0)?;
    device.sync_data()
}

/// Grows the mounted file system to its device, when that is larger.
fn grow(mounted: &Path) -> io::Result<()> {
    let device = File::open(DEVICE)?;
    let size = (&device).seek(SeekFrom::End(0))?;
    let file_system = rustix::fs::statvfs(mounted)?;
    let block_size = file_system.f_frsize;
    let blocks = blocks(&device)?;
    let wanted = size / block_size.max(1);
    // Less than a block group more is not worth the writes.
    if wanted <= blocks + GROUP_BLOCKS / 8 {
        return Ok(());
    }
    let folder = File::open(mounted)?;
    // SAFETY: the request reads one u64, which lives across the call.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const wanted) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    tracing::info!(
        "the data disk grew from {} to {} MiB",
        (blocks * block_size) >> 20,
        (wanted * block_size) >> 20
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::seed::tests::encode, *};

    /// Zeroes with a superblock of ours, and some bytes further on.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 1024 * 1024];
        let superblock = SUPERBLOCK as usize;
        image[superblock + MAGIC_OFFSET..][..2].copy_from_slice(MAGIC);
        image[superblock + LABEL_OFFSET..][..LABEL.len()].copy_from_slice(LABEL);
        image[500_000] = 7;
        image
    }

    #[test]
    fn a_blank_disk_becomes_ours() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(8 * 1024 * 1024).unwrap();
        assert_eq!(contents(&disk).unwrap(), Contents::Blank);
        let seed = zstd::encode_all(encode(&image()).as_slice(), 1).unwrap();
        write_seed(&disk, seed.as_slice()).unwrap();
        assert_eq!(contents(&disk).unwrap(), Contents::Ours);
        let mut written = vec![0; image().len()];
        disk.read_exact_at(&mut written, 0).unwrap();
        assert_eq!(written, image());
    }

    #[test]
    fn a_seed_that_was_cut_off_leaves_a_blank_disk() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(8 * 1024 * 1024).unwrap();
        let seed = zstd::encode_all(encode(&image()).as_slice(), 1).unwrap();
        assert!(write_seed(&disk, &seed[..seed.len() / 2]).is_err());
        assert_eq!(contents(&disk).unwrap(), Contents::Blank);
        // As if another seed had been cut off there.
        disk.write_all_at(&[3; 64], 600_000).unwrap();
        write_seed(&disk, seed.as_slice()).unwrap();
        assert_eq!(contents(&disk).unwrap(), Contents::Ours);
        let mut written = vec![0; image().len()];
        disk.read_exact_at(&mut written, 0).unwrap();
        assert_eq!(written, image());
    }

    #[test]
    fn a_disk_that_is_too_small_is_left_alone() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(512 * 1024).unwrap();
        let seed = zstd::encode_all(encode(&image()).as_slice(), 1).unwrap();
        assert!(write_seed(&disk, seed.as_slice()).is_err());
        let mut bytes = Vec::new();
        (&disk).seek(SeekFrom::Start(0)).unwrap();
        (&disk).read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn somebody_elses_disk_is_recognized() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(8 * 1024 * 1024).unwrap();
        disk.write_all_at(b"LVM", 512).unwrap();
        assert_eq!(contents(&disk).unwrap(), Contents::Foreign);
        let mut other = image();
        other[SUPERBLOCK as usize + LABEL_OFFSET] = b'x';
        disk.write_all_at(&other, 0).unwrap();
        assert_eq!(contents(&disk).unwrap(), Contents::Foreign);
    }
}
