//! The monitor: boots a Linux guest on KVM and gives it virtio devices.
//!
//! - [`config`]: what a virtual machine is made of; read by whoever boots one.
//! - [`control`]: the words spoken on a monitor's control socket, and a client.
//! - [`exit`]: how a monitor can end, each end with its own exit code.
//! - [`devices`]: device models. They know virtqueues and guest memory, and no
//!   transport.
//! - [`transport`]: virtio-mmio and vhost-user. They know no device.
//! - `kvm`: the virtual machine itself: memory, boot, virtual CPUs, interrupts.
//! - `sandbox`: seccomp and landlock.
//! - [`monitor`]: puts these together and runs a machine to its end; [`command`] is
//!   its command line.
//! - [`probe`]: tells whether this host's KVM can run a Linux.
//!
//! Called by the machine drivers in `app/machine` (as a process of its own, or
//! as vhost-user backends next to QEMU). It must know nothing of containers, and
//! must not trust a byte that a guest can write.

pub mod command;
pub mod config;
pub mod control;
pub mod devices;
pub mod exit;
mod kvm;
pub mod monitor;
pub mod probe;
pub mod sandbox;
pub mod transport;
