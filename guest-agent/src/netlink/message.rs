//! Building a message.

use super::{HEADER, aligned};

/// Flags of a request.
pub(crate) mod flags {
    /// It is a request.
    pub(crate) const REQUEST: u16 = 0x1;
    /// The kernel shall say how it went.
    pub(crate) const ACKNOWLEDGE: u16 = 0x4;
    /// Replace what exists.
    pub(crate) const REPLACE: u16 = 0x100;
    /// Fail when it exists.
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    /// Make it when it does not exist.
    pub(crate) const CREATE: u16 = 0x400;
    /// Put it at the end.
    pub(crate) const APPEND: u16 = 0x800;
}

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// One message, as it is built.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this type with these [`flags`] ([`flags::REQUEST`] is implied);
    /// `header` is the subsystem's own header.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        bytes.resize(aligned(bytes.len()), 0);
        Self { bytes }
    }

    /// Adds an attribute.
    ///
    /// What the agent sends is short: a value of 64 KiB or more is cut off, since no
    /// attribute can hold it.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let value = &value[..value.len().min(usize::from(u16::MAX) - 4)];
        let length = value.len() as u16 + 4;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self
    }

    /// Adds an attribute that is a text, with the zero byte that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds an integer in network byte order, as netfilter has them.
    pub(crate) fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds an integer in the machine's byte order, as routes have them.
    pub(crate) fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that holds the attributes which `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start).min(usize::from(u16::MAX)) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Whether the kernel shall say how it went.
    pub(crate) fn acknowledged(&mut self) -> &mut Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags::ACKNOWLEDGE;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// The message as it is sent, with this sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}
