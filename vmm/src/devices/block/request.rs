//! One request to a disk (5.2.6), from its chain to its status.

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::{
    SECTOR_SHIFT,
    image::{Image, Range},
    limits,
};
use crate::devices::{Buffers, Chain};

/// Why a request is not carried out.
#[derive(Debug)]
enum Refusal {
    /// It makes no sense, or goes beyond the disk or what was promised to work.
    Invalid,
    /// Its type or flags are not supported.
    Unsupported,
    /// The host failed.
    Host(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Bytes written to its writable part.
    pub(super) written: u32,
    /// How the host failed, if it did.
    pub(super) failure: Option<io::Error>,
}

/// Carries out the request in `chain`. A chain without room for a status is dropped.
pub(super) fn execute(image: &Image, id: &str, write_through: bool, chain: Chain<'_>) -> Done {
    let Chain {
        mut readable,
        mut writable,
        ..
    } = chain;
    // The status is the last byte of what the device writes.
    let Some(data_length) = writable.len().checked_sub(1) else {
        return Done::default();
    };
    let mut status = writable.split_off(data_length);
    let result = carry_out(image, id, write_through, &mut readable, &mut writable);
    let written = data_length - writable.len();
    let (code, failure) = match result {
        Ok(()) => (VIRTIO_BLK_S_OK, None),
        Err(Refusal::Unsupported) => (VIRTIO_BLK_S_UNSUPP, None),
        Err(Refusal::Invalid) => (VIRTIO_BLK_S_IOERR, None),
        Err(Refusal::Host(error)) => (VIRTIO_BLK_S_IOERR, Some(error)),
    };
    status.write(&[code as u8]);
    // The status is at the end: with it, all is written as far as the driver cares.
    Done {
        written: u32::try_from(written + 1).unwrap_or(u32::MAX),
        failure,
    }
}

fn carry_out(
    image: &Image,
    id: &str,
    write_through: bool,
    readable: &mut Buffers<'_>,
    writable: &mut Buffers<'_>,
) -> Result<(), Refusal> {
    let mut header = [0; 16];
    if readable.read(&mut header) != header.len() {
        return Err(Refusal::Invalid);
    }
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let changes = matches!(
        kind,
        VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES
    );
    if changes && image.read_only() {
        return Err(Refusal::Invalid);
    }
    match kind {
        VIRTIO_BLK_T_IN => {
            let range = data_range(image, sector, writable)?;
            image.read(range.offset, writable)?;
        }
        VIRTIO_BLK_T_OUT => {
            let range = data_range(image, sector, readable)?;
            image.write(range, readable)?;
        }
        VIRTIO_BLK_T_FLUSH => {
            if !image.read_only() {
                image.flush()?;
            }
        }
        VIRTIO_BLK_T_GET_ID => {
            let mut bytes = [0; VIRTIO_BLK_ID_BYTES as usize];
            for (to, from) in bytes.iter_mut().zip(id.as_bytes()) {
                *to = *from;
            }
            if writable.write(&bytes) < bytes.len() {
                return Err(Refusal::Invalid);
            }
        }
        VIRTIO_BLK_T_DISCARD => {
            for_each_range(image, limits::DISCARD_SECTORS, readable, |range, unmap| {
                // Unmapping is what a discard does anyway; the flag is reserved.
                if unmap {
                    return Err(Refusal::Unsupported);
                }
                Ok(image.discard(range)?)
            })?;
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            for_each_range(image, limits::ZERO_SECTORS, readable, |range, unmap| {
                Ok(image.write_zeroes(range, unmap)?)
            })?;
        }
        _ => return Err(Refusal::Unsupported),
    }
    if changes && write_through {
        image.flush()?;
    }
    Ok(())
}

/// Where on the disk `data` belongs: whole sectors, all of them on it.
fn data_range(image: &Image, sector: u64, data: &Buffers<'_>) -> Result<Range, Refusal> {
    let length = data.len() as u64;
    let sectors = length >> SECTOR_SHIFT;
    if sectors << SECTOR_SHIFT != length {
        return Err(Refusal::Invalid);
    }
    image.range(sector, sectors).ok_or(Refusal::Invalid)
}

/// Reads the ranges to discard or zero (`struct virtio_blk_discard_write_zeroes`),
/// checks all of them, and only then applies `change`.
fn for_each_range(
    image: &Image,
    max_sectors: u32,
    readable: &mut Buffers<'_>,
    mut change: impl FnMut(Range, bool) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    const ENTRY: usize = 16;
    let count = readable.len() / ENTRY;
    if count == 0 || count * ENTRY != readable.len() || count > limits::RANGES as usize {
        return Err(Refusal::Invalid);
    }
    let mut ranges = Vec::with_capacity(count);
    let mut entry = [0; ENTRY];
    while readable.read(&mut entry) == ENTRY {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = entry;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Refusal::Unsupported);
        }
        let range = image
            .range(sector, sectors.into())
            .filter(|_| sectors <= max_sectors)
            .ok_or(Refusal::Invalid)?;
        ranges.push((range, flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0));
    }
    for (range, unmap) in ranges {
        // An empty range is nothing to do; `fallocate` would refuse it.
        if range.length > 0 {
            change(range, unmap)?;
        }
    }
    Ok(())
}
