//! The seed of a data disk: a small file system without its empty parts.
//!
//! `xtask` makes it and puts it into the initial ramdisk, compressed with zstd as
//! a whole. Inside, all numbers being little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 8 | length of the file system |
//! | for each piece of data, from the first to the last: | |
//! | 8 | where it begins |
//! | 8 | its length, which is not zero |
//! | its length | the data |
//! | 16 | the end: the length of the file system again, and a length of zero |
//!
//! Places and lengths are multiples of [`BLOCK`]; what no piece covers is zeroes.
//! The first piece begins at 0, for there is the superblock.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

const MAGIC: &[u8; 8] = b"DCTLSEED";

/// What places and lengths are multiples of; the first block holds the superblock.
pub(super) const BLOCK: usize = 4096;

/// The longest file system that is believed: a seed is a few block groups.
const LONGEST: u64 = 4 << 30;

/// Bytes that are carried at once.
const CHUNK: usize = 256 * 1024;

/// A seed being read.
#[derive(Debug)]
pub(super) struct Seed<R> {
    data: R,
    length: u64,
}

impl<R: Read> Seed<R> {
    /// Reads the beginning of what was a seed before it was compressed.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn open(mut data: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        data.read_exact(&mut magic)?;
        let length = number(&mut data)?;
        if &magic != MAGIC || !whole(length) || length < BLOCK as u64 || length > LONGEST {
            return Err(invalid("it has no valid beginning"));
        }
        Ok(Self { data, length })
    }

    /// Length of the file system.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Makes the beginning of `device` the file system, all but its first block,
    /// which it gives back. Nothing of the first block is touched.
    ///
    /// # Errors
    /// When the seed is damaged, or the device cannot be written.
    pub(super) fn write(mut self, device: &File) -> io::Result<[u8; BLOCK]> {
        // What an earlier try wrote that was cut off, for one.
        zero(device, BLOCK as u64, self.length - BLOCK as u64)?;
        let mut first = [0; BLOCK];
        let mut chunk = vec![0; CHUNK];
        let mut written = 0;
        loop {
            let (start, length) = (number(&mut self.data)?, number(&mut self.data)?);
            if length == 0 && start == self.length {
                return Ok(first);
            }
            let end = start
                .checked_add(length)
                .filter(|end| *end <= self.length && whole(start) && whole(length))
                .filter(|_| length > 0 && start >= written && (start == 0) == (written == 0))
                .ok_or_else(|| invalid("a piece of it is out of place"))?;
            let mut place = start;
            if start == 0 {
                self.data.read_exact(&mut first)?;
                place = BLOCK as u64;
            }
            while place < end {
                let part = (end - place).min(CHUNK as u64) as usize;
                self.data.read_exact(&mut chunk[..part])?;
                device.write_all_at(&chunk[..part], place)?;
                place += part as u64;
            }
            written = end;
        }
    }
}

fn number(data: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    data.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn whole(number: u64) -> bool {
    number.is_multiple_of(BLOCK as u64)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the seed in the initial ramdisk is damaged: {what}"),
    )
}

/// Makes a part of `device` read as zeroes, without taking up space for them.
fn zero(device: &File, start: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    // On a block device it never is a discard that may leave what was there.
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(device, flags, start, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => overwrite(device, start, length),
        result => Ok(result?),
    }
}

/// As [`zero`], for a device that cannot do it by itself: writes where there is
/// something, so that what is blank takes up no space.
fn overwrite(device: &File, start: u64, length: u64) -> io::Result<()> {
    let (mut chunk, zeroes) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut done = 0;
    while done < length {
        let part = (length - done).min(CHUNK as u64) as usize;
        device.read_exact_at(&mut chunk[..part], start + done)?;
        if chunk[..part] != zeroes[..part] {
            device.write_all_at(&zeroes[..part], start + done)?;
        }
        done += part as u64;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The seed of `image`, before compression; a piece for each block.
    pub(in crate::boot) fn encode(image: &[u8]) -> Vec<u8> {
        let mut seed = MAGIC.to_vec();
        let end = image.len() as u64;
        seed.extend(end.to_le_bytes());
        for (index, block) in image.chunks(BLOCK).enumerate() {
            if index == 0 || block.iter().any(|byte| *byte != 0) {
                seed.extend(((index * BLOCK) as u64).to_le_bytes());
                seed.extend((block.len() as u64).to_le_bytes());
                seed.extend(block);
            }
        }
        seed.extend(end.to_le_bytes());
        seed.extend(0_u64.to_le_bytes());
        seed
    }

    fn disk() -> File {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(1024 * 1024).unwrap();
        disk
    }

    fn write(seed: &[u8], disk: &File) -> io::Result<[u8; BLOCK]> {
        Seed::open(seed)?.write(disk)
    }

    #[test]
    fn what_was_on_the_disk_is_gone() {
        for clear in [zero, overwrite] {
            let disk = disk();
            disk.write_all_at(&vec![0xff; 8 * BLOCK], 0).unwrap();
            clear(&disk, BLOCK as u64, 6 * BLOCK as u64).unwrap();
            let mut bytes = vec![1; 8 * BLOCK];
            disk.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[..BLOCK].iter().all(|byte| *byte == 0xff));
            assert!(bytes[BLOCK..7 * BLOCK].iter().all(|byte| *byte == 0));
            assert!(bytes[7 * BLOCK..].iter().all(|byte| *byte == 0xff));
        }
    }

    #[test]
    fn pieces_that_are_out_of_place_are_refused() {
        let seed = |pieces: &[(u64, u64)]| {
            let mut seed = MAGIC.to_vec();
            seed.extend(65536_u64.to_le_bytes());
            for (start, length) in pieces {
                seed.extend(start.to_le_bytes());
                seed.extend(length.to_le_bytes());
                seed.extend(vec![1; usize::try_from(*length).unwrap_or(0).min(65536)]);
            }
            seed
        };
        write(&seed(&[(0, 4096), (8192, 8192), (65536, 0)]), &disk()).unwrap();
        for pieces in [
            &[(4096, 4096), (65536, 0)][..],
            &[(0, 4096), (0, 4096), (65536, 0)],
            &[(0, 8192), (4096, 4096), (65536, 0)],
            &[(0, 4096), (8192, 100), (65536, 0)],
            &[(0, 4096), (8000, 4096), (65536, 0)],
            &[(0, 4096), (65536, 4096), (65536, 0)],
            &[(0, 4096), (u64::MAX - 4095, 4096), (65536, 0)],
            &[(0, 4096), (8192, 0), (65536, 0)],
            &[(0, 4096)],
            &[(0, 4096), (61440, !4095)],
        ] {
            assert!(write(&seed(pieces), &disk()).is_err(), "{pieces:?}");
        }
        let mut other = seed(&[(0, 4096), (65536, 0)]);
        other[8..16].copy_from_slice(&(LONGEST * 2).to_le_bytes());
        assert!(write(&other, &disk()).is_err());
        other[0] = 0;
        assert!(write(&other, &disk()).is_err());
    }

    proptest! {
        #[test]
        fn the_disk_becomes_the_image(blocks in proptest::collection::vec(0_u8..3, 1..40)) {
            let image: Vec<u8> = blocks.iter().flat_map(|byte| [*byte; BLOCK]).collect();
            let disk = disk();
            disk.write_all_at(&vec![9; image.len()], 0).unwrap();
            let first = write(&encode(&image), &disk).unwrap();
            let mut written = vec![0; image.len()];
            disk.read_exact_at(&mut written, 0).unwrap();
            prop_assert_eq!(&written[..BLOCK], &[9; BLOCK]);
            written[..BLOCK].copy_from_slice(&first);
            prop_assert_eq!(written, image);
        }
    }
}
