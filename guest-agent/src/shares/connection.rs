//! The shared file system over vsock: the kernel's FUSE requests go to the host and its
//! replies come back on one stream, as they are. Each begins with its own length.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    thread,
};

use guest_protocol::SHARES_PORT;
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount as mount_file_system, unmount},
};
use vsock::{VMADDR_CID_HOST, VsockStream};

/// The longest request or reply: 1 MiB of data, and what is around it.
const MAX_MESSAGE: usize = (1 << 20) + 4096;

/// `struct fuse_out_header`.
const REPLY_HEADER: usize = 16;

/// Mounts the file system at `root`, until the stream ends: then it is unmounted, what
/// uses it is told ENOTCONN, and `lost` is called.
pub(super) fn mount(
    root: &Path,
    flags: MountFlags,
    lost: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let stream = Arc::new(VsockStream::connect_with_cid_port(
        VMADDR_CID_HOST,
        SHARES_PORT,
    )?);
    let device = Arc::new(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")?,
    );
    let options = CString::new(format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    ))?;
    mount_file_system("dctl", root, "fuse", flags, Some(options.as_c_str()))?;
    let (its_device, its_stream) = (Arc::clone(&device), Arc::clone(&stream));
    thread::Builder::new()
        .name("shares-requests".to_owned())
        .spawn(move || {
            let outcome = carry_requests(&its_device, &its_stream);
            tell("requests for", outcome);
            hang_up(&its_stream);
        })?;
    let root = root.to_owned();
    thread::Builder::new()
        .name("shares-replies".to_owned())
        .spawn(move || {
            let outcome = carry_replies(&stream, &device);
            tell("replies about", outcome);
            hang_up(&stream);
            // By force: the requests that wait fail, and the other thread ends.
            match unmount(&root, UnmountFlags::FORCE | UnmountFlags::DETACH) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => tracing::error!("shared files stay mounted: {error}"),
            }
            lost();
        })?;
    Ok(())
}

fn tell(what: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!("{what} the host's files are lost: {error}");
    }
}

/// From the kernel to the host, until the file system is unmounted.
fn carry_requests(mut device: &File, mut stream: &VsockStream) -> io::Result<()> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        match device.read(&mut message) {
            Ok(length) => stream.write_all(message.get(..length).unwrap_or_default())?,
            Err(error) => match Errno::from_io_error(&error) {
                // A request that was given up before it was read.
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                // Unmounted.
                Some(Errno::NODEV) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

/// From the host to the kernel, until the host hangs up.
fn carry_replies(mut stream: &VsockStream, device: &File) -> io::Result<()> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        let (header, body) = message.split_at_mut(REPLY_HEADER);
        match stream.read_exact(header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let [l0, l1, l2, l3, ..] = *header else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = length
            .checked_sub(REPLY_HEADER)
            .and_then(|length| body.get_mut(..length))
            .ok_or_else(|| io::Error::other("a reply has an impossible length"))?;
        stream.read_exact(body)?;
        // The kernel takes a reply whole or not at all.
        match rustix::io::write(device, message.get(..length).unwrap_or_default()) {
            // NOENT: the request was given up.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn hang_up(stream: &VsockStream) {
    // It may be gone.
    let _ = stream.shutdown(Shutdown::Both);
}
