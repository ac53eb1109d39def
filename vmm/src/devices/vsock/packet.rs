//! The header of vsock packets (5.10.6).

/// Bytes of a header.
pub(super) const HEADER_SIZE: usize = 44;

/// The host's context id (5.10.4).
pub(super) const HOST_CID: u64 = 2;

/// The only socket type that is supported (5.10.6).
pub(super) const TYPE_STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Response,
    Reset,
    Shutdown,
    ReadWrite,
    CreditUpdate,
    CreditRequest,
    Unknown(u16),
}

impl Operation {
    fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            code => Self::Unknown(code),
        }
    }

    fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::ReadWrite => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
            Self::Unknown(code) => code,
        }
    }
}

/// `struct virtio_vsock_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of payload after the header.
    pub(super) length: u32,
    pub(super) socket_type: u16,
    pub(super) operation: Operation,
    pub(super) flags: u32,
    /// The sender's receive buffer, in bytes.
    pub(super) buffer_size: u32,
    /// Bytes that the sender has taken out of it since the connection began, modulo
    /// 2^32.
    pub(super) forwarded: u32,
}

impl Header {
    /// The reset that answers this packet: to where it came from.
    pub(super) fn reset_in_answer(&self) -> Self {
        Self {
            source_cid: self.destination_cid,
            destination_cid: self.source_cid,
            source_port: self.destination_port,
            destination_port: self.source_port,
            length: 0,
            socket_type: self.socket_type,
            operation: Operation::Reset,
            flags: 0,
            buffer_size: 0,
            forwarded: 0,
        }
    }

    pub(super) fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            source_cid: u64::from_le_bytes(fields.take()),
            destination_cid: u64::from_le_bytes(fields.take()),
            source_port: u32::from_le_bytes(fields.take()),
            destination_port: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            socket_type: u16::from_le_bytes(fields.take()),
            operation: Operation::from_code(u16::from_le_bytes(fields.take())),
            flags: u32::from_le_bytes(fields.take()),
            buffer_size: u32::from_le_bytes(fields.take()),
            forwarded: u32::from_le_bytes(fields.take()),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = bytes.as_mut_slice();
        let mut put = |field: &[u8]| {
            if let Some((front, back)) = std::mem::take(&mut rest).split_at_mut_checked(field.len())
            {
                front.copy_from_slice(field);
                rest = back;
            }
        };
        put(&self.source_cid.to_le_bytes());
        put(&self.destination_cid.to_le_bytes());
        put(&self.source_port.to_le_bytes());
        put(&self.destination_port.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.socket_type.to_le_bytes());
        put(&self.operation.code().to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buffer_size.to_le_bytes());
        put(&self.forwarded.to_le_bytes());
        bytes
    }
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_specification_s() {
        let header = Header {
            source_cid: 0x0807_0605_0403_0201,
            destination_cid: 2,
            source_port: 0x1413_1211,
            destination_port: 0x1817_1615,
            length: 0x1c1b_1a19,
            socket_type: TYPE_STREAM,
            operation: Operation::ReadWrite,
            flags: SHUTDOWN_BOTH,
            buffer_size: 0x2827_2625,
            forwarded: 0x2c2b_2a29,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..9], [1, 2, 3, 4, 5, 6, 7, 8, 2]);
        assert_eq!(
            bytes[16..28],
            [17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28]
        );
        assert_eq!(bytes[28..36], [1, 0, 5, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[36..], [37, 38, 39, 40, 41, 42, 43, 44]);
        assert_eq!(Header::decode(&bytes), header);
    }

    #[test]
    fn unknown_operations_survive() {
        for code in 0..=u16::MAX {
            assert_eq!(Operation::from_code(code).code(), code);
        }
    }
}
