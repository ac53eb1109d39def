//! The server: what it holds, and the way of a request from its bytes to its answer.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::exports::{ExportError, ExportOptions, Exports};
use crate::limits::Limits;
use crate::transport::{Outcome, ReplyBuffer, RequestBuffer};
use crate::wire::{self, Body, Fields, RequestHeader, Short, init, opcode};

/// A FUSE server with any number of exports. All of its calls may run at the same time
/// in several threads.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    exports: Exports,
}

impl Server {
    /// A server without exports.
    pub fn new(limits: Limits) -> std::io::Result<Self> {
        Ok(Self {
            limits,
            exports: Exports::default(),
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
    /// guest still has open fail with ESTALE, and no descriptor of it stays open.
    pub fn remove_export(&self, name: &str) -> Result<(), ExportError> {
        self.exports.remove(name).map(drop)
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
        let mut body = [0; 64];
        let there = request.copy_to(wire::REQUEST_HEADER, &mut body);
        let answer = match header.opcode {
            opcode::INIT => self.init(Fields(&body[..there])),
            _ => Err(Errno::NOSYS),
        };
        let (body, error) = match answer {
            Ok(body) => (body.0, 0),
            Err(error) => (Vec::new(), error.raw_os_error()),
        };
        let length = wire::REPLY_HEADER + body.len();
        let head = wire::reply_header(length, error, header.unique);
        if reply.put(0, &head).is_err() || reply.put(wire::REPLY_HEADER, &body).is_err() {
            return Outcome::None;
        }
        Outcome::Reply(length)
    }

    fn init(&self, mut fields: Fields<'_>) -> Result<Body, Errno> {
        let read = |fields: &mut Fields<'_>| -> Result<_, Short> {
            Ok((fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?))
        };
        let (major, _minor, readahead, flags) = read(&mut fields).map_err(|Short| Errno::INVAL)?;
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
            | init::HANDLE_KILLPRIV_V2
            | init::INIT_EXT;
        let pages = u16::try_from(self.limits.transfer / 4096).unwrap_or(256);
        body.u32(wire::MAJOR)
            .u32(wire::MINOR)
            .u32(readahead)
            .u32(flags & wanted)
            .u16(64)
            .u16(48)
            .u32(self.limits.transfer)
            .u32(1)
            .u16(pages)
            .u16(0)
            .u32(0)
            .zeroes(28);
        Ok(body)
    }
}
