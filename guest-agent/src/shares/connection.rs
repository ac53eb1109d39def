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
            let outcome = carry_replies(&*stream, &device);
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

/// From the host to the kernel, until the host hangs up. As much as there is, is read at
/// once: most replies are short, and come together.
fn carry_replies(mut stream: impl Read, device: &File) -> io::Result<()> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut there = 0;
    loop {
        match stream.read(buffer.get_mut(there..).unwrap_or_default()) {
            Ok(0) if there == 0 => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => there += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let mut rest = buffer.get(..there).unwrap_or_default();
        while let Some((reply, after)) = split_reply(rest)? {
            // The kernel takes a reply whole or not at all.
            match rustix::io::write(device, reply) {
                // NOENT: the request was given up.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            rest = after;
        }
        let left = rest.len();
        // A long reply that comes in pieces lies where it belongs.
        if left < there {
            buffer.copy_within(there - left..there, 0);
            there = left;
        }
    }
}

/// The first reply of these bytes, and what follows it; none if not all of it is there.
fn split_reply(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_ne_bytes(*length) as usize;
    if !(REPLY_HEADER..=MAX_MESSAGE).contains(&length) {
        return Err(io::Error::other("a reply has an impossible length"));
    }
    Ok(bytes.split_at_checked(length))
}

fn hang_up(stream: &VsockStream) {
    // It may be gone.
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_split_by_their_lengths() {
        let reply = |length: u32| {
            let mut reply = vec![7; length as usize];
            reply[..4].copy_from_slice(&length.to_ne_bytes());
            reply
        };
        let bytes = [reply(16), reply(80), reply(20)].concat();
        let (first, rest) = split_reply(&bytes).unwrap().unwrap();
        assert_eq!(first, reply(16));
        let (second, rest) = split_reply(rest).unwrap().unwrap();
        assert_eq!(second, reply(80));
        for cut in 0..20 {
            assert_eq!(split_reply(&rest[..cut]).unwrap(), None);
        }
        assert_eq!(split_reply(rest).unwrap(), Some((rest, &[][..])));
        for length in [0, 15, MAX_MESSAGE as u32 + 1, u32::MAX] {
            split_reply(&length.to_ne_bytes()).unwrap_err();
        }
    }
}
