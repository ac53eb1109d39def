//! Records of a pax extended header: `<length> <keyword>=<value>\n`.
//!
//! The length counts the whole record, so values may hold any byte; extended
//! attributes' do.

use super::{
    archive::{ArchiveError, Time},
    sparse,
};

/// Prefix of the keywords that carry extended attributes; star's, everybody's.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an extended header says about the entry that follows, as far as it
/// matters to us. An empty value takes a record back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: sparse::Extensions,
}

impl Extensions {
    /// Reads the content of an extended header.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut extensions = Self::default();
        while !bytes.is_empty() {
            let record = Record::split_off(&mut bytes)?;
            extensions.set(record.keyword, record.value)?;
        }
        Ok(extensions)
    }

    fn set(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match keyword {
            b"path" => self.path = text(value),
            b"linkpath" => self.link_path = text(value),
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.modified = optional(value, time)?,
            _ => {
                if let Some(name) = keyword.strip_prefix(XATTR_PREFIX) {
                    if name.is_empty() || name.contains(&0) {
                        return Err(ArchiveError::Malformed(
                            "an extended attribute has no proper name",
                        ));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else {
                    self.sparse.set(keyword, value)?;
                }
            }
        }
        Ok(())
    }
}

struct Record<'a> {
    keyword: &'a [u8],
    value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes the first record off `bytes`.
    fn split_off(bytes: &mut &'a [u8]) -> Result<Self, ArchiveError> {
        const DAMAGED: ArchiveError = ArchiveError::Malformed("a pax record is damaged");
        let space = bytes
            .iter()
            .take(8)
            .position(|byte| *byte == b' ')
            .ok_or(DAMAGED)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| DAMAGED)?;
        let record = bytes.get(space + 1..length).ok_or(DAMAGED)?;
        let record = record.strip_suffix(b"\n").ok_or(DAMAGED)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or(DAMAGED)?;
        *bytes = &bytes[length..];
        Ok(Self {
            keyword: &record[..equals],
            value: &record[equals + 1..],
        })
    }
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn optional<T>(
    value: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, ArchiveError>,
) -> Result<Option<T>, ArchiveError> {
    if value.is_empty() {
        Ok(None)
    } else {
        parse(value).map(Some)
    }
}

/// A number in decimal digits, nothing else.
pub(super) fn decimal(text: &[u8]) -> Result<u64, ArchiveError> {
    const WRONG: ArchiveError = ArchiveError::Malformed("a number in a pax record is wrong");
    if text.is_empty() {
        return Err(WRONG);
    }
    let mut value = 0_u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return Err(WRONG);
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(byte - b'0')))
            .ok_or(WRONG)?;
    }
    Ok(value)
}

/// Seconds with an optional sign and fraction; digits below a nanosecond drop.
fn time(text: &[u8]) -> Result<Time, ArchiveError> {
    const WRONG: ArchiveError = ArchiveError::Malformed("a time in a pax record is wrong");
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| WRONG)?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        let digit = match fraction.get(place) {
            Some(byte) if byte.is_ascii_digit() => i64::from(byte - b'0'),
            Some(_) => return Err(WRONG),
            None => 0,
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(keyword: &[u8], value: &[u8]) -> Vec<u8> {
        let bare = keyword.len() + value.len() + 3;
        let mut length = bare + 1;
        while length != bare + length.to_string().len() {
            length = bare + length.to_string().len();
        }
        [
            length.to_string().as_bytes(),
            b" ",
            keyword,
            b"=",
            value,
            b"\n",
        ]
        .concat()
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let at = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds,
        };
        assert_eq!(time(b"12.5").unwrap(), at(12, 500_000_000));
        assert_eq!(time(b"12").unwrap(), at(12, 0));
        assert_eq!(time(b"-0.25").unwrap(), at(-1, 750_000_000));
        assert_eq!(time(b"1.0000000019").unwrap(), at(1, 1));
        for wrong in [&b""[..], b"-", b"1.x", b"x", b"99999999999999999999"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for wrong in [
            &b"x"[..],
            b"5 a=b\n",
            b"99 a=b\n",
            b"6 ab\n\n",
            b" a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"123456789012 a=b\n",
        ] {
            assert!(Extensions::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let bytes = [encode(b"path", b"a"), encode(b"path", b"")].concat();
        assert_eq!(Extensions::parse(&bytes).unwrap().path, None);
    }

    proptest! {
        #[test]
        fn any_value_of_an_attribute_survives(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [encode(b"SCHILY.xattr.user.x", &value), encode(b"path", b"p")].concat();
            let extensions = Extensions::parse(&bytes).unwrap();
            prop_assert_eq!(extensions.xattrs, vec![(b"user.x".to_vec(), value)]);
            prop_assert_eq!(extensions.path, Some(b"p".to_vec()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Extensions::parse(&bytes);
        }
    }
}
