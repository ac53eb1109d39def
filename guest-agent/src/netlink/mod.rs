//! Netlink: messages with attributes, and sockets that carry them to the kernel.
//!
//! Lives here: [`Message`] (building one), [`Attributes`] (reading one) and
//! [`Socket`] (requests with their acknowledgement, batches, what the kernel sends of
//! itself). It knows no subsystem: routes are spoken by who needs them, packet filters
//! by [`nftables`](crate::nftables).
//!
//! A socket belongs to the network namespace of the thread that opens it.

mod attributes;
mod message;
mod socket;

pub(crate) use attributes::Attributes;
pub(crate) use message::{Message, flags};
pub(crate) use socket::{Protocol, Socket};

/// Size of the header that each message begins with, in bytes.
const HEADER: usize = 16;

/// Messages and attributes begin at multiples of four bytes.
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}
