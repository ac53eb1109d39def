//! Reading attributes.

use super::aligned;

/// The attributes in a piece of a message: type (without the flag of nesting) and
/// value. Ends at the first that is malformed.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Message;
    use super::*;

    #[test]
    fn what_is_built_is_read() {
        let mut message = Message::new(7, 0, &[1, 2, 3, 4]);
        message.text(1, "lo").big(2, 5).nest(3, |message| {
            message.bytes(4, b"abcde");
        });
        let bytes = message.finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let mut attributes = Attributes(&bytes[20..]);
        assert_eq!(attributes.next(), Some((1, &b"lo\0"[..])));
        assert_eq!(attributes.next(), Some((2, &[0, 0, 0, 5][..])));
        let (kind, nested) = attributes.next().unwrap();
        assert_eq!(kind, 3);
        assert_eq!(Attributes(nested).find(4), Some(&b"abcde"[..]));
        assert_eq!(attributes.next(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            // Each attribute takes at least its header.
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
