//! A folder, exported, and mounted again by this kernel.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use shares::{ExportOptions, Limits, Outcome, Server, open_root, serve_stream};

/// How requests get to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// One by one, as a virtio-fs device hands them over.
    Device,
    /// As over a device, to a server that is not root: as it is on a developer's machine.
    User,
    /// Over a byte stream.
    Stream,
}

/// Who that is.
const USER: u32 = 4711;

/// Runs the server's part on a thread, as the user that the road asks for.
fn spawn<T: Send + 'static>(
    road: Road,
    action: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
    std::thread::spawn(move || {
        if road == Road::User {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            set_thread_groups(&[]).unwrap();
            set_thread_gid(gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            // A process that changes users may not look at itself otherwise.
            set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        }
        action()
    })
}

/// A share named `share`.
pub(crate) struct Mounted {
    pub(crate) server: Arc<Server>,
    /// What is exported is the folder `share` in it.
    outside: tempfile::TempDir,
    point: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(road: Road) -> Self {
        Self::with(road, Limits::default(), ExportOptions::default())
    }

    pub(crate) fn with(road: Road, limits: Limits, options: ExportOptions) -> Self {
        let outside = tempfile::tempdir().unwrap();
        let point = tempfile::tempdir().unwrap();
        let folder = outside.path().join("share");
        std::fs::create_dir(&folder).unwrap();
        if road == Road::User {
            std::os::unix::fs::chown(&folder, Some(USER), Some(USER)).unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(outside.path(), open).unwrap();
        }
        let server = spawn(road, move || Server::new(limits).unwrap());
        let server = Arc::new(server.join().unwrap());
        server
            .add_export("share", open_root(&folder).unwrap(), options)
            .unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        mount(
            "share",
            point.path(),
            "fuse",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        let device = Arc::new(device);
        match road {
            Road::Device | Road::User => {
                for _ in 0..3 {
                    let (server, device) = (Arc::clone(&server), Arc::clone(&device));
                    spawn(road, move || answer(&server, &device));
                }
            }
            Road::Stream => {
                let (guest, host) = UnixStream::pair().unwrap();
                let its_server = Arc::clone(&server);
                std::thread::spawn(move || serve_stream(&its_server, &host, &host, 3));
                let (from, to) = (guest.try_clone().unwrap(), Arc::clone(&device));
                std::thread::spawn(move || carry_answers(from, &to));
                std::thread::spawn(move || carry_requests(&device, guest));
            }
        }
        Self {
            server,
            outside,
            point,
        }
    }

    /// The share as the guest sees it.
    pub(crate) fn path(&self) -> PathBuf {
        self.point.path().join("share")
    }

    /// The session's root as the guest sees it.
    pub(crate) fn root(&self) -> &Path {
        self.point.path()
    }

    /// The share on the host.
    pub(crate) fn host(&self) -> PathBuf {
        self.outside.path().join("share")
    }

    /// The folder that the share is in, on the host.
    pub(crate) fn outside(&self) -> &Path {
        self.outside.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(
            self.point.path(),
            UnmountFlags::FORCE | UnmountFlags::DETACH,
        )
        .unwrap();
    }
}

/// The next request of the kernel; none when it is unmounted.
fn next<'a>(device: &File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            Ok(length) => return Some(&buffer[..length]),
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NODEV) => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn send(device: &File, answer: &[u8]) {
    match rustix::io::write(device, answer) {
        // The request was given up.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
        Err(error) => panic!(
            "the kernel takes no answer of {} bytes: {error}",
            answer.len()
        ),
    }
}

fn answer(server: &Server, device: &Arc<File>) {
    let mut buffer = vec![0; server.longest_request() + 4096];
    let mut reply = vec![0; server.longest_reply()];
    while let Some(request) = next(device, &mut buffer) {
        match server.handle(&request, &mut reply.as_mut_slice()) {
            Outcome::Reply(length) => send(device, &reply[..length]),
            Outcome::None => {}
            Outcome::Pending(mut pending) => {
                let device = Arc::clone(device);
                std::thread::spawn(move || {
                    loop {
                        if let Some(answer) = pending.attempt() {
                            return send(&device, &answer);
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
        }
    }
}

fn carry_requests(device: &File, mut to: UnixStream) {
    let mut buffer = vec![0; (1 << 20) + 8192];
    while let Some(request) = next(device, &mut buffer) {
        to.write_all(request).unwrap();
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn carry_answers(mut from: UnixStream, device: &File) {
    let mut answer = vec![0; (1 << 20) + 8192];
    while from.read_exact(&mut answer[..4]).is_ok() {
        let length = u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize;
        from.read_exact(&mut answer[4..length]).unwrap();
        send(device, &answer[..length]);
    }
}
