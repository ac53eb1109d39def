//! QEMU's command line.

use std::{
    ffi::OsString,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use dctl_vmm::config::{ShareTransport, VmConfig};

/// A tick of the guest's kernel (`CONFIG_HZ_100`).
const JIFFY_MILLISECONDS: u64 = 10;

/// QEMU's ends of the connections to our devices.
#[derive(Default)]
pub(super) struct BackEnds {
    /// In the guest's order.
    pub(super) disks: Vec<UnixStream>,
    pub(super) vsock: Option<UnixStream>,
    /// Shared files.
    pub(super) shares: Option<UnixStream>,
}

fn tag(config: &VmConfig) -> Option<&str> {
    match &config.shares.as_ref()?.transport {
        ShareTransport::VirtioFs { tag } => Some(tag),
        ShareTransport::Vsock { .. } => None,
    }
}

/// The command line, for descriptors that QEMU inherits under their numbers.
pub(super) fn arguments(
    config: &VmConfig,
    back_ends: &BackEnds,
    qmp: &UnixStream,
    console: &UnixStream,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
    let inherited =
        |id: &str, socket: &UnixStream| format!("socket,id={id},fd={}", socket.as_raw_fd());

    add("-name", "dctl".into());
    // No firmware tables, no PCI, no legacy devices but those that a software CPU's
    // clock is calibrated by: PIT and PIC.
    add(
        "-machine",
        "microvm,acpi=off,rtc=off,pit=on,pic=on,isa-serial=off,x-option-roms=off,\
         memory-backend=memory"
            .into(),
    );
    // Virtio 1.0 and no older: our devices know no other.
    add("-global", "virtio-mmio.force-legacy=false".into());
    // Translated code is kept in at most so many MiB.
    add("-accel", "tcg,thread=multi,tb-size=256".into());
    // TCG copies strings of bytes one byte at a time; kernels and C libraries that are
    // told that those are fast, as they are on hardware, copy everything so.
    add("-cpu", "max,-erms,-fsrm".into());
    add("-smp", config.cpus.to_string().into());
    add("-m", format!("{}M", config.memory_mib).into());
    // Shared, so that our devices reach it.
    add(
        "-object",
        format!(
            "memory-backend-memfd,id=memory,share=on,size={}M",
            config.memory_mib
        )
        .into(),
    );
    arguments.extend(
        ["-nodefaults", "-no-user-config", "-no-reboot"]
            .into_iter()
            .map(OsString::from),
    );
    let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
    add("-display", "none".into());
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );

    add("-kernel", config.kernel.clone().into());
    add("-initrd", config.initramfs.clone().into());
    // The rate of its counter, and what it counts in a tick (which each CPU would else measure
    // for some ticks, a quarter of what is executed at boot).
    let clock = super::clock::time_stamp_counter_khz()
        .map(|khz| format!(" tsc_early_khz={khz} lpj={}", khz * JIFFY_MILLISECONDS))
        .unwrap_or_default();
    add("-append", format!("{}{clock}", config.command_line).into());

    add("-chardev", inherited("qmp", qmp).into());
    add("-mon", "chardev=qmp,mode=control".into());
    for (index, disk) in back_ends.disks.iter().enumerate() {
        add("-chardev", inherited(&format!("disk{index}"), disk).into());
        add(
            "-device",
            format!("vhost-user-blk,chardev=disk{index},num-queues=1").into(),
        );
    }
    if let Some(vsock) = &back_ends.vsock {
        add("-chardev", inherited("vsock", vsock).into());
        add("-device", "vhost-user-vsock-device,chardev=vsock".into());
    }
    if let (Some(shares), Some(tag)) = (&back_ends.shares, tag(config)) {
        add("-chardev", inherited("shares", shares).into());
        add(
            "-device",
            format!("vhost-user-fs-device,chardev=shares,tag={tag},queue-size=512").into(),
        );
    }
    add("-device", "virtio-rng-device".into());
    add(
        "-device",
        "virtio-balloon-device,id=balloon,free-page-reporting=on,deflate-on-oom=on".into(),
    );
    add("-chardev", inherited("console", console).into());
    // One port: no control queue, and the console is there as soon as its driver is.
    add("-device", "virtio-serial-device,max_ports=1".into());
    add("-device", "virtconsole,chardev=console".into());
    // The orderly power-off: a byte of zero there ends QEMU with exit code 1.
    add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04".into());
    arguments
}
