//! Headers of tar entries: ustar, with pax records where its fields do not suffice.
//!
//! Source: POSIX.1-2024 `pax`, "ustar Interchange Format" and "pax Extended Header".

/// Size of a block, in bytes; everything in an archive is padded to it.
pub(crate) const BLOCK: usize = 512;

const NAME: usize = 100;
/// The largest number in a field of eight and of twelve bytes.
const MAX_ID: u64 = 0o777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;

/// What an entry is, by its type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    File = b'0',
    HardLink = b'1',
    Symlink = b'2',
    Character = b'3',
    Block = b'4',
    Directory = b'5',
    Fifo = b'6',
}

/// What an entry's header says.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Unix seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Of a link: where to.
    pub(crate) link: &'a [u8],
    /// Of a device: its major and minor number.
    pub(crate) device: (u32, u32),
    /// Records of the extended header beside those that fields do not hold.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header<'_> {
    /// The header as blocks: an extended header first, if it takes one.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.path.len() > NAME {
            push_record(&mut records, b"path", self.path);
        }
        if self.link.len() > NAME {
            push_record(&mut records, b"linkpath", self.link);
        }
        if self.size > MAX_SIZE {
            push_record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        for (keyword, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if u64::from(id) > MAX_ID {
                push_record(&mut records, keyword, id.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = self.modified;
        if nanoseconds != 0 || !u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_SIZE) {
            push_record(
                &mut records,
                b"mtime",
                time(seconds, nanoseconds).as_bytes(),
            );
        }
        for (keyword, value) in &self.records {
            push_record(&mut records, keyword, value);
        }
        let mut blocks = Vec::with_capacity(4 * BLOCK);
        if !records.is_empty() {
            blocks.extend_from_slice(&block(
                &Self {
                    path: b"PaxHeaders/entry",
                    link: b"",
                    mode: 0o644,
                    uid: 0,
                    gid: 0,
                    size: records.len() as u64,
                    modified: (0, 0),
                    device: (0, 0),
                    kind: self.kind,
                    records: Vec::new(),
                },
                b'x',
            ));
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks.extend_from_slice(&block(self, self.kind as u8));
        blocks
    }
}

/// One header block.
fn block(header: &Header<'_>, flag: u8) -> [u8; BLOCK] {
    const SUM: std::ops::Range<usize> = 148..156;
    let mut block = [0; BLOCK];
    let name = &header.path[..header.path.len().min(NAME)];
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], u64::from(header.mode));
    octal(&mut block[108..116], u64::from(header.uid).min(MAX_ID));
    octal(&mut block[116..124], u64::from(header.gid).min(MAX_ID));
    octal(&mut block[124..136], header.size.min(MAX_SIZE));
    let seconds = u64::try_from(header.modified.0).unwrap_or(0);
    octal(&mut block[136..148], seconds.min(MAX_SIZE));
    block[156] = flag;
    let link = &header.link[..header.link.len().min(NAME)];
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(header.kind, Kind::Character | Kind::Block) {
        octal(&mut block[329..337], u64::from(header.device.0));
        octal(&mut block[337..345], u64::from(header.device.1));
    }
    block[SUM].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Octal digits and a NUL; what does not fit is left off, pax records have it.
fn octal(field: &mut [u8], mut number: u64) {
    if let Some((last, digits)) = field.split_last_mut() {
        *last = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number & 7) as u8;
            number >>= 3;
        }
    }
}

/// `<length> <keyword>=<value>\n`, where the length counts itself.
fn push_record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let bare = keyword.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length = bare + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction. Before 1970 nanoseconds count back from the next second.
fn time(seconds: i64, nanoseconds: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let (whole, fraction) = (total / 1_000_000_000, total % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_on_both_sides_of_1970() {
        assert_eq!(time(5, 0), "5");
        assert_eq!(time(5, 10), "5.000000010");
        assert_eq!(time(-1, 750_000_000), "-0.250000000");
        assert_eq!(time(-2, 0), "-2");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 88, 89, 90, 988, 989, 990] {
            let mut records = Vec::new();
            push_record(&mut records, b"path", &vec![b'x'; length]);
            let said: usize = String::from_utf8_lossy(&records)
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, records.len());
        }
    }
}
