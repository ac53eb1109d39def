//! Transports: how a guest's drivers reach device models.
//!
//! - [`mmio`]: virtio over MMIO (4.2), for our own monitor, driven by a
//!   [`worker`] thread.
//! - [`vhost_user`]: the same devices in a process beside QEMU.
//!
//! A transport negotiates features, owns the queues and carries notifications. It
//! knows devices only as [`crate::devices::VirtioDevice`].

pub mod mmio;
pub mod vhost_user;
pub mod worker;

use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

/// The features of queues and transports (6) that every device gets.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;
