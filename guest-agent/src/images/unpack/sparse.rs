//! Maps of sparse files: which bytes of a file an archive holds.
//!
//! GNU tar has had four ways to write one. Source: GNU tar manual, "Storing
//! Sparse Files".

use super::{
    archive::ArchiveError,
    header::{BLOCK, number},
    pax::decimal,
};

/// The most segments we keep of one file: 2 MiB of memory.
const MAX_SEGMENTS: usize = 128 * 1024;

/// A run of bytes that the archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::images) struct Segment {
    /// Where it goes in the file.
    pub(super) offset: u64,
    /// How long it is.
    pub(super) length: u64,
}

/// What an extended header says of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// The file's name; the entry's own is made up for readers that know no
    /// sparse files.
    pub(super) name: Option<Vec<u8>>,
    /// The file's length.
    pub(super) real_size: Option<u64>,
    /// The map, or where it is.
    pub(super) map: Map,
    /// An offset (format 0.0) that waits for its length.
    pending: Option<u64>,
}

/// Where a sparse file's map is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Map {
    /// The file is not sparse.
    #[default]
    None,
    /// Here (formats 0.0 and 0.1).
    InHeader(Vec<Segment>),
    /// Before the content (format 1.0).
    InContent,
}

impl Extensions {
    /// Takes a record of an extended header, if it is one of a sparse file.
    pub(super) fn set(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match keyword {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.real_size = Some(decimal(value)?);
            }
            b"GNU.sparse.major" if value == b"1" => self.map = Map::InContent,
            b"GNU.sparse.major" if value != b"0" => {
                return Err(ArchiveError::Malformed(
                    "a sparse file is of an unknown version",
                ));
            }
            b"GNU.sparse.numblocks" => self.map = Map::InHeader(Vec::new()),
            b"GNU.sparse.offset" => self.pending = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.pending.take().ok_or(ArchiveError::Malformed(
                    "a sparse file's map has a length without an offset",
                ))?;
                let length = decimal(value)?;
                self.add(Segment { offset, length })?;
            }
            b"GNU.sparse.map" => {
                self.map = Map::InHeader(Vec::new());
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(offset) = numbers.next().filter(|text| !text.is_empty()) {
                    let length = numbers.next().ok_or(ArchiveError::Malformed(
                        "a sparse file's map has an offset without a length",
                    ))?;
                    self.add(Segment {
                        offset: decimal(offset)?,
                        length: decimal(length)?,
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, segment: Segment) -> Result<(), ArchiveError> {
        if let Map::InHeader(segments) = &mut self.map {
            keep(segments, segment)
        } else {
            self.map = Map::InHeader(vec![segment]);
            Ok(())
        }
    }
}

/// Adds a field of a GNU header; unused ones are empty.
pub(super) fn push(
    segments: &mut Vec<Segment>,
    field: &tar::GnuSparseHeader,
) -> Result<(), ArchiveError> {
    if field.is_empty() {
        return Ok(());
    }
    keep(
        segments,
        Segment {
            offset: number(&field.offset)?,
            length: number(&field.numbytes)?,
        },
    )
}

fn keep(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), ArchiveError> {
    if segments.len() >= MAX_SEGMENTS {
        return Err(ArchiveError::Malformed(
            "a sparse file has too many segments",
        ));
    }
    segments.push(segment);
    Ok(())
}

/// Reads a map of format 1.0: decimal numbers, each on a line, first how many
/// segments there are, in whole blocks. `next_block` fills one block.
pub(super) fn read_map(
    mut next_block: impl FnMut(&mut [u8; BLOCK]) -> Result<(), ArchiveError>,
) -> Result<Vec<Segment>, ArchiveError> {
    /// More digits than any 64-bit number has.
    const MAX_LINE: usize = 24;
    let mut block = [0; BLOCK];
    let mut at = BLOCK;
    let mut next_number = || {
        let mut line = Vec::with_capacity(MAX_LINE);
        loop {
            if at == BLOCK {
                next_block(&mut block)?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return decimal(&line);
            }
            if line.len() == MAX_LINE {
                return Err(ArchiveError::Malformed("a sparse file's map is damaged"));
            }
            line.push(byte);
        }
    };
    let count = next_number()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let offset = next_number()?;
        let length = next_number()?;
        keep(&mut segments, Segment { offset, length })?;
    }
    Ok(segments)
}

/// Checks that segments ascend without overlapping, lie inside the file's `size`
/// and are as long together as the content that is `stored`.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), ArchiveError> {
    const WRONG: ArchiveError = ArchiveError::Malformed("a sparse file's map does not fit it");
    let mut end = 0;
    let mut total = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return Err(WRONG);
        }
        end = segment.offset.checked_add(segment.length).ok_or(WRONG)?;
        total += segment.length;
    }
    if end > size || total != stored || i64::try_from(size).is_err() {
        return Err(WRONG);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn a_map_must_fit_its_file() {
        let fits = |segments: &[Segment], size, stored| check(segments, size, stored).is_ok();
        assert!(fits(&[segment(0, 5), segment(10, 5)], 20, 10));
        assert!(fits(&[segment(20, 0)], 20, 0));
        assert!(!fits(&[segment(0, 5), segment(4, 5)], 20, 10));
        assert!(!fits(&[segment(10, 5), segment(0, 5)], 20, 10));
        assert!(!fits(&[segment(0, 5)], 4, 5));
        assert!(!fits(&[segment(0, 5)], 20, 6));
        assert!(!fits(&[segment(u64::MAX, 5)], 20, 5));
    }

    #[test]
    fn a_map_in_the_content_is_read_over_block_borders() {
        let mut text = String::from("100\n");
        text.extend((0..100).map(|index| format!("{}\n512\n", index * 4096)));
        let mut blocks = text.as_bytes().chunks(BLOCK);
        let segments = read_map(|block| {
            let bytes = blocks.next().ok_or(ArchiveError::Truncated)?;
            block.fill(0);
            block[..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!(segments.len(), 100);
        assert_eq!(segments[99], segment(99 * 4096, 512));
    }

    #[test]
    fn a_map_that_promises_the_moon_costs_no_memory() {
        let error = read_map(|block| {
            block.fill(b'\n');
            block[..9].copy_from_slice(b"99999999\n");
            Ok(())
        });
        assert!(error.is_err());
        let error = read_map(|block| {
            block.fill(b'1');
            Ok(())
        });
        assert!(error.is_err());
    }
}
