//! Requests, written by hand.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use shares::{ExportOptions, Limits, Outcome, Server, open_root};

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const FORGET: u32 = 2;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const SETATTR: u32 = 4;
pub(crate) const READLINK: u32 = 5;
pub(crate) const SYMLINK: u32 = 6;
pub(crate) const MKNOD: u32 = 8;
pub(crate) const MKDIR: u32 = 9;
pub(crate) const UNLINK: u32 = 10;
pub(crate) const RMDIR: u32 = 11;
pub(crate) const RENAME: u32 = 12;
pub(crate) const LINK: u32 = 13;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const WRITE: u32 = 16;
pub(crate) const SETXATTR: u32 = 21;
pub(crate) const GETXATTR: u32 = 22;
pub(crate) const REMOVEXATTR: u32 = 24;
pub(crate) const OPENDIR: u32 = 27;
pub(crate) const CREATE: u32 = 35;
pub(crate) const RENAME2: u32 = 45;
pub(crate) const TMPFILE: u32 = 51;

/// The session's root.
pub(crate) const ROOT: u64 = 1;

/// Fields of a request.
#[derive(Default, Clone)]
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn text(mut self, text: &[u8]) -> Self {
        self.0.extend(text);
        self.0.push(0);
        self
    }
}

pub(crate) fn fields() -> Fields {
    Fields::default()
}

/// A guest, its server, and the folder that the share `x` is in.
pub(crate) struct Guest {
    pub(crate) server: Arc<Server>,
    pub(crate) outside: tempfile::TempDir,
}

impl Guest {
    pub(crate) fn new(options: ExportOptions) -> Self {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("x")).unwrap();
        let server = Arc::new(Server::new(Limits::default()).unwrap());
        let guest = Self { server, outside };
        guest.export("x", options);
        guest
    }

    pub(crate) fn export(&self, name: &str, options: ExportOptions) {
        let root = open_root(&self.outside.path().join(name)).unwrap();
        self.server.add_export(name, root, options).unwrap();
    }

    /// What is exported.
    pub(crate) fn inside(&self) -> std::path::PathBuf {
        self.outside.path().join("x")
    }

    pub(crate) fn send(&self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.send_as(0, opcode, node, body)
    }

    /// One request; an error number is positive.
    pub(crate) fn send_as(
        &self,
        uid: u32,
        opcode: u32,
        node: u64,
        body: &[u8],
    ) -> Result<Vec<u8>, i32> {
        let request = fields()
            .u32(40 + body.len() as u32)
            .u32(opcode)
            .u64(99)
            .u64(node)
            .u32(uid)
            .u32(0)
            .u64(0);
        let mut bytes = request.0;
        bytes.extend(body);
        let mut reply = vec![0; 1 << 17];
        match self
            .server
            .handle(&bytes.as_slice(), &mut reply.as_mut_slice())
        {
            Outcome::Reply(length) => {
                let length_field = u32::from_ne_bytes(reply[..4].try_into().unwrap());
                assert_eq!(length_field as usize, length);
                assert_eq!(reply[8..16], 99_u64.to_ne_bytes());
                let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
                if error == 0 {
                    return Ok(reply[16..length].to_vec());
                }
                assert!((-4095..0).contains(&error) && length == 16);
                Err(-error)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A node number.
    pub(crate) fn lookup(&self, node: u64, name: &str) -> Result<u64, i32> {
        let entry = self.send(LOOKUP, node, &fields().text(name.as_bytes()).0)?;
        Ok(u64::from_ne_bytes(entry[..8].try_into().unwrap()))
    }

    /// The share's root.
    pub(crate) fn share(&self) -> u64 {
        self.lookup(ROOT, "x").unwrap()
    }

    pub(crate) fn open(&self, node: u64, flags: i32) -> Result<u64, i32> {
        let open = self.send(OPEN, node, &fields().u32(flags as u32).u32(0).0)?;
        Ok(u64::from_ne_bytes(open[..8].try_into().unwrap()))
    }

    pub(crate) fn read(&self, node: u64, handle: u64) -> Result<Vec<u8>, i32> {
        let body = fields().u64(handle).u64(0).u32(4096).u32(0).u64(0).u64(0);
        self.send(READ, node, &body.0)
    }

    pub(crate) fn write(&self, node: u64, handle: u64, data: &[u8]) -> Result<Vec<u8>, i32> {
        let mut body = fields()
            .u64(handle)
            .u64(0)
            .u32(data.len() as u32)
            .u32(0)
            .u64(0)
            .u64(0);
        body.0.extend(data);
        self.send(WRITE, node, &body.0)
    }

    pub(crate) fn create(&self, node: u64, name: &str) -> Result<Vec<u8>, i32> {
        let flags = (libc::O_RDWR | libc::O_CREAT) as u32;
        let body = fields().u32(flags).u32(0o100_644).u32(0).u32(0);
        self.send(CREATE, node, &body.text(name.as_bytes()).0)
    }
}

/// Everything that is in a folder, with sizes and times: to see that nothing changed.
pub(crate) fn snapshot(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        all.push(format!(
            "{} {} {:o} {} {}.{}",
            entry.path().display(),
            metadata.len(),
            metadata.mode(),
            metadata.nlink(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ));
        if metadata.is_dir() {
            all.extend(snapshot(&entry.path()));
        }
    }
    all.sort();
    all
}
