//! The server: what it holds, and the way of a request from its bytes to its answer.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::devices::Devices;
use crate::exports::{ExportError, ExportOptions, Exports};
use crate::handles::Handles;
use crate::host::Descriptors;
use crate::inodes::Inodes;
use crate::limits::Limits;
use crate::operations::{Answer, Call, Locks};
use crate::ownership::HostUser;
use crate::recent::Recent;
use crate::transport::{Outcome, ReplyBuffer, RequestBuffer};
use crate::wire::{self, Body, Fields, RequestHeader, init, opcode};

/// Bytes of a request without file data: names, an attribute's value, a list of what is
/// forgotten.
const LONGEST: usize = 1 << 20;

/// Bytes of a request's fields that need no allocation.
const USUAL: usize = 640;

/// Bytes of WRITE's fields; its data stays where it is.
const WRITE_FIELDS: usize = 40;

/// The largest transfer that the protocol's count of pages allows for here.
const MOST_TRANSFER: u32 = 1 << 20;

/// What the server holds at the moment, for those who look after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Files that the client knows.
    pub inodes: usize,
    /// Descriptors that they hold.
    pub descriptors: usize,
    /// What the client has open.
    pub handles: usize,
}

/// A FUSE server with any number of exports, and one client. All of its calls may run at
/// the same time in several threads.
#[derive(Debug)]
pub struct Server {
    pub(crate) limits: Limits,
    pub(crate) exports: Exports,
    pub(crate) inodes: Inodes,
    pub(crate) handles: Handles,
    pub(crate) locks: Locks,
    pub(crate) devices: Devices,
    pub(crate) descriptors: Descriptors,
    pub(crate) user: HostUser,
    pub(crate) recent: Recent,
}

impl Server {
    /// A server without exports. Fails where `/proc` is not mounted.
    pub fn new(mut limits: Limits) -> io::Result<Self> {
        limits.transfer = limits.transfer.clamp(4096, MOST_TRANSFER) & !4095;
        Ok(Self {
            exports: Exports::new()?,
            inodes: Inodes::new(limits.inodes, limits.descriptors),
            handles: Handles::new(limits.handles),
            locks: Locks::new(limits.handles),
            devices: Devices::default(),
            descriptors: Descriptors::open()?,
            user: HostUser::current(),
            recent: Recent::new(),
            limits,
        })
    }

    /// Makes `root` (see [`open_root`](crate::open_root)) the entry `name` of the
    /// session's root directory.
    pub fn add_export(
        &self,
        name: &str,
        root: OwnedFd,
        options: ExportOptions,
    ) -> Result<(), ExportError> {
        self.exports.add(name, root, options)
    }

    /// Takes an export away. Its entry is gone at once; requests for files of it that the
    /// guest still has open fail with ESTALE or EBADF, and no descriptor of it stays open
    /// beyond the requests that are being answered.
    pub fn remove_export(&self, name: &str) -> Result<(), ExportError> {
        for export in self.exports.remove(name)? {
            self.handles.close_export(&export);
            self.inodes.close_export(&export);
        }
        let gone = |node| self.inodes.get(node).is_err();
        self.locks.close_nodes(gone);
        Ok(())
    }

    /// Ends the [`Watcher`](crate::watch::Watcher) of this server.
    pub fn stop_watching(&self) {
        self.exports.end_watching();
    }

    /// Forgets all that the client knew and had open: it has gone, or starts anew.
    pub fn reset(&self) {
        self.locks.clear();
        self.handles.clear();
        self.inodes.clear();
    }

    /// What it holds.
    pub fn counts(&self) -> Counts {
        let (inodes, descriptors) = self.inodes.counts();
        Counts {
            inodes,
            descriptors,
            handles: self.handles.count(),
        }
    }

    /// The longest request that a client may send, in bytes, header and data included.
    pub fn longest_request(&self) -> usize {
        let data = wire::REQUEST_HEADER + WRITE_FIELDS + self.limits.transfer as usize;
        data.max(wire::REQUEST_HEADER + LONGEST)
    }

    /// The longest answer that a client may ask for, in bytes.
    pub fn longest_reply(&self) -> usize {
        (wire::REPLY_HEADER + self.limits.transfer as usize).max(wire::REPLY_HEADER + (1 << 16))
    }

    /// Answers one request. Never panics and never waits for other requests, whatever the
    /// bytes are.
    pub fn handle(&self, request: &impl RequestBuffer, reply: &mut impl ReplyBuffer) -> Outcome {
        let mut bytes = [0; wire::REQUEST_HEADER];
        if request.copy_to(0, &mut bytes) < bytes.len() {
            return Outcome::None;
        }
        let Ok(header) = RequestHeader::parse(&bytes) else {
            return Outcome::None;
        };
        let answer = self.answer(header, request, reply);
        let (body, error) = match answer {
            Ok(Answer::Body(body)) => (body.0, 0),
            Ok(Answer::Data(length)) => {
                let length = wire::REPLY_HEADER + length;
                let head = wire::reply_header(length, 0, header.unique);
                return match reply.put(0, &head) {
                    Ok(()) => Outcome::Reply(length),
                    Err(_) => Outcome::None,
                };
            }
            Ok(Answer::Silent) => return Outcome::None,
            Ok(Answer::Wait(pending)) => return Outcome::Pending(pending),
            Err(error) => (Vec::new(), error.raw_os_error()),
        };
        let length = wire::REPLY_HEADER + body.len();
        if length > reply.capacity() {
            // The client asked for more than it has room for.
            let head = wire::reply_header(
                wire::REPLY_HEADER,
                Errno::INVAL.raw_os_error(),
                header.unique,
            );
            return match reply.put(0, &head) {
                Ok(()) => Outcome::Reply(wire::REPLY_HEADER),
                Err(_) => Outcome::None,
            };
        }
        let head = wire::reply_header(length, error, header.unique);
        if reply.put(0, &head).is_err() || reply.put(wire::REPLY_HEADER, &body).is_err() {
            return Outcome::None;
        }
        Outcome::Reply(length)
    }

    fn answer(
        &self,
        header: RequestHeader,
        request: &impl RequestBuffer,
        reply: &mut impl ReplyBuffer,
    ) -> Result<Answer, Errno> {
        let length = header.length as usize;
        if length < wire::REQUEST_HEADER || length > request.size() {
            return Err(Errno::INVAL);
        }
        let mut length = length - wire::REQUEST_HEADER;
        if header.opcode == opcode::WRITE {
            length = length.min(WRITE_FIELDS);
        }
        if length > LONGEST {
            return Err(Errno::INVAL);
        }
        let mut usual = [0; USUAL];
        let mut long = Vec::new();
        let bytes = if let Some(bytes) = usual.get_mut(..length) {
            bytes
        } else {
            long.resize(length, 0);
            &mut long
        };
        let there = request.copy_to(wire::REQUEST_HEADER, bytes);
        let fields = Fields(bytes.get(..there).unwrap_or_default());
        match header.opcode {
            opcode::INIT => self.init(fields).map(Answer::Body),
            opcode::DESTROY => {
                self.reset();
                Ok(Answer::Body(Body::default()))
            }
            _ => Call {
                server: self,
                header,
                fields,
            }
            .answer(request, reply),
        }
    }

    /// A session begins.
    fn init(&self, mut fields: Fields<'_>) -> Result<Body, Errno> {
        let major = fields.u32()?;
        let _minor = fields.u32()?;
        let readahead = fields.u32()?;
        let flags = fields.u32()?;
        self.reset();
        let mut body = Body::default();
        if major != wire::MAJOR {
            // A newer client asks again with this version.
            body.u32(wire::MAJOR).u32(wire::MINOR).zeroes(56);
            return Ok(body);
        }
        let wanted = init::ASYNC_READ
            | init::POSIX_LOCKS
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::FLOCK_LOCKS
            | init::AUTO_INVAL_DATA
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::HANDLE_KILLPRIV_V2;
        let pages = u16::try_from(self.limits.transfer / 4096).unwrap_or(1);
        body.u32(wire::MAJOR)
            .u32(wire::MINOR)
            .u32(readahead)
            .u32(flags & wanted)
            // Requests in the background, and how many are many.
            .u16(64)
            .u16(48)
            .u32(self.limits.transfer)
            // Times are as fine as a nanosecond.
            .u32(1)
            .u16(pages)
            .u16(0)
            .u32(0)
            .zeroes(28);
        Ok(body)
    }
}
