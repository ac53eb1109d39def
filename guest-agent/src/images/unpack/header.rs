//! The fields of a tar's header block: numbers, ids, devices, names, and its sum.
//!
//! They come from strangers: every number is checked to be one, and to be in range.

use rustix::fs::{Dev, makedev};
use tar::Header;

use super::archive::ArchiveError;

/// Size of a block, in bytes; everything in a tar stream is padded to it.
pub(super) const BLOCK: usize = 512;

/// Checks a header's sum; old writers summed signed bytes.
pub(super) fn check_sum(block: &[u8; BLOCK]) -> Result<(), ArchiveError> {
    const FIELD: std::ops::Range<usize> = 148..156;
    let mut unsigned = 0_i64;
    let mut signed = 0_i64;
    for (index, byte) in block.iter().enumerate() {
        let byte = if FIELD.contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    let stored = signed_number(&block[FIELD])?;
    if stored == unsigned || stored == signed {
        Ok(())
    } else {
        Err(ArchiveError::Malformed("a header's checksum is wrong"))
    }
}

/// A header's number that cannot be negative.
pub(super) fn number(field: &[u8]) -> Result<u64, ArchiveError> {
    u64::try_from(signed_number(field)?)
        .map_err(|_| ArchiveError::Malformed("a number in a header is negative"))
}

/// A header's number: octal digits between spaces and NULs, or, with the first
/// bit set, a big-endian two's complement.
pub(super) fn signed_number(field: &[u8]) -> Result<i64, ArchiveError> {
    const TOO_LARGE: ArchiveError = ArchiveError::Malformed("a number in a header is too large");
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // The marker bit is not part of the number, the next one is its sign.
        let negative = first & 0x40 != 0;
        let mut value = if negative {
            i64::from(first | 0x80) - 0x100
        } else {
            i64::from(first & 0x7f)
        };
        for byte in rest {
            value = value
                .checked_mul(256)
                .and_then(|value| value.checked_add(i64::from(*byte)))
                .ok_or(TOO_LARGE)?;
        }
        return Ok(value);
    }
    let mut value = 0_i64;
    let mut ended = false;
    for byte in field {
        match byte {
            b'0'..=b'7' if !ended => {
                value = value
                    .checked_mul(8)
                    .and_then(|value| value.checked_add(i64::from(byte - b'0')))
                    .ok_or(TOO_LARGE)?;
            }
            b' ' if value == 0 && !ended => {}
            b' ' | 0 => ended = true,
            // What follows the terminator is nobody's.
            _ if ended => break,
            _ => {
                return Err(ArchiveError::Malformed("a header's number is not octal"));
            }
        }
    }
    Ok(value)
}

/// A user's or group's id. The largest one means "leave it" to chown(2).
pub(super) fn owner(id: u64) -> Result<u32, ArchiveError> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(ArchiveError::Malformed("an owner's number is out of range")),
    }
}

/// A device's number. Both formats that have one keep it in the same place.
pub(super) fn device(header: &Header) -> Result<Dev, ArchiveError> {
    const MAJOR: std::ops::Range<usize> = 329..337;
    const MINOR: std::ops::Range<usize> = 337..345;
    let range = |field: &[u8]| {
        u32::try_from(number(field)?)
            .map_err(|_| ArchiveError::Malformed("a device's number is out of range"))
    };
    let bytes = header.as_bytes();
    Ok(makedev(range(&bytes[MAJOR])?, range(&bytes[MINOR])?))
}

/// Bytes up to the first NUL.
pub(super) fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0").unwrap(), 1 << 32);
        assert_eq!(signed_number(&[0xff; 12]).unwrap(), -1);
        assert!(number(&[0xff; 12]).is_err());
        assert!(number(b"\x8f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(number(b"12x4\0").is_err());
        assert!(number(b"8\0").is_err());
    }
}
