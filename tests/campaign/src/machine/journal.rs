//! What the monitor recorded of a disk, and the disk as a power cut would have left
//! it: all that was flushed, and of the rest what chance kept.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes of a record's head.
const HEAD: u64 = 24;
/// What a disk writes whole or not at all.
const BLOCK: usize = 4096;
const WRITE: u64 = 1;
const FLUSH: u64 = 2;
const ZERO: u64 = 3;

/// One record; data stays in the journal.
#[derive(Debug, Clone, Copy)]
struct Record {
    kind: u64,
    offset: u64,
    length: u64,
    /// Where its data is in the journal.
    data: u64,
}

/// A whole journal.
pub(crate) struct Journal {
    file: File,
    records: Vec<Record>,
}

impl Journal {
    /// Reads the records' heads. The last one may be cut off.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).context("there is no journal of the disk")?;
        let end = file.metadata()?.len();
        let mut reader = BufReader::new(&file);
        let mut records = Vec::new();
        let mut at = 0;
        while at + HEAD <= end {
            let mut words = [0; 3];
            for word in &mut words {
                let mut bytes = [0; 8];
                reader.read_exact(&mut bytes)?;
                *word = u64::from_le_bytes(bytes);
            }
            let [kind, offset, length] = words;
            let record = Record {
                kind,
                offset,
                length,
                data: at + HEAD,
            };
            at += HEAD;
            match kind {
                WRITE => {
                    at += length;
                    reader.seek_relative(length.cast_signed())?;
                }
                FLUSH | ZERO => {}
                _ => bail!("the journal is damaged at {at}"),
            }
            if at <= end {
                records.push(record);
            }
        }
        drop(reader);
        Ok(Self { file, records })
    }

    /// How many records it has.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Where in the file the records up to `count` end, in bytes.
    pub(crate) fn position(&self, count: usize) -> u64 {
        match self.records.get(count) {
            Some(next) => next.data - HEAD,
            None => u64::MAX,
        }
    }

    /// Applies the records `from` to `to` to an image.
    pub(crate) fn apply(&self, from: usize, to: usize, image: &File) -> io::Result<()> {
        for record in self.records.get(from..to).unwrap_or_default() {
            self.replay(record, image, |_| true)?;
        }
        Ok(())
    }

    /// The last flush among the first `count` records; zero if there is none.
    pub(crate) fn flushed(&self, count: usize) -> usize {
        let records = self.records.get(..count).unwrap_or_default();
        let last = records.iter().rposition(|record| record.kind == FLUSH);
        last.map_or(0, |index| index + 1)
    }

    /// Applies the records `from` to `to` as if the power had gone after them: of each
    /// write any blocks, or none. Returns how many blocks were lost.
    pub(crate) fn cut(
        &self,
        from: usize,
        to: usize,
        image: &File,
        random: &mut fastrand::Rng,
    ) -> io::Result<u64> {
        let mut lost = 0;
        // Some cuts lose nearly everything, some nearly nothing.
        let kept = random.f64();
        for record in self.records.get(from..to).unwrap_or_default() {
            self.replay(record, image, |_| {
                let keep = random.f64() < kept;
                lost += u64::from(!keep);
                keep
            })?;
        }
        Ok(lost)
    }

    fn replay(
        &self,
        record: &Record,
        image: &File,
        mut keep: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        match record.kind {
            WRITE => {
                let mut file = &self.file;
                file.seek(SeekFrom::Start(record.data))?;
                let mut done = 0;
                while done < record.length {
                    let mut block = vec![0; (record.length - done).min(BLOCK as u64) as usize];
                    file.read_exact(&mut block)?;
                    if keep(done) {
                        image.write_all_at(&block, record.offset + done)?;
                    }
                    done += block.len() as u64;
                }
            }
            ZERO if keep(0) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(image, flags, record.offset, record.length)?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

    use super::*;

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_go() {
        let mut bytes = Vec::new();
        let mut add = |words: [u64; 3], data: &[u8]| {
            bytes.extend(words.map(u64::to_le_bytes).concat());
            bytes.extend_from_slice(data);
        };
        add([WRITE, 0, 4096], &[1; 4096]);
        add([FLUSH, 0, 0], &[]);
        add([WRITE, 4096, 8192], &[2; 8192]);
        add([ZERO, 0, 4096], &[]);
        // Cut off.
        add([WRITE, 0, 4096], &[3; 10]);
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &bytes).unwrap();
        let journal = Journal::read(path.path()).unwrap();
        assert_eq!((journal.len(), journal.flushed(4)), (4, 2));
        assert_eq!(journal.position(1), 24 + 4096);

        let image = tempfile::tempfile().unwrap();
        image.set_len(1 << 20).unwrap();
        journal.apply(0, 2, &image).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let lost = journal.cut(2, 3, &image, &mut random).unwrap();
        let mut disk = [0; 3 * 4096];
        image.read_exact_at(&mut disk, 0).unwrap();
        assert!(disk[..4096].iter().all(|byte| *byte == 1));
        let blocks = disk[4096..].chunks(4096);
        let there = blocks.filter(|block| **block == [2; 4096]).count() as u64;
        assert_eq!(there, 2 - lost);
        journal.apply(2, 4, &image).unwrap();
        image.read_exact_at(&mut disk, 0).unwrap();
        assert!(disk[..4096].iter().all(|byte| *byte == 0));
        assert!(disk[4096..].iter().all(|byte| *byte == 2));
    }
}
