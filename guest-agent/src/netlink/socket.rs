//! Sockets to the kernel.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink,
        netlink::SocketAddrNetlink, recv, send, socket_with, sockopt,
    },
};

use super::{HEADER, aligned, message::Message};

/// Type of the message that says how a request went.
const ERROR: u16 = 2;

/// Most that a datagram of the kernel holds, in bytes.
const DATAGRAM: usize = 64 * 1024;

/// Whom a socket speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Links, addresses, routes, rules.
    Route,
    /// Packet filters and their queues.
    Netfilter,
}

/// A netlink socket. Its calls block for as long as the kernel works.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            // Number zero: the default.
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request and waits until it is done.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn request(&mut self, mut message: Message) -> io::Result<()> {
        message.acknowledged();
        let sequence = self.next();
        self.send(&message.finish(sequence))?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            for answer in Answers(self.receive(&mut buffer)?) {
                if answer.kind == ERROR && answer.sequence == sequence {
                    return answer.outcome();
                }
            }
        }
    }

    /// Sends messages that are one transaction, `first` and `last` its brackets, and
    /// waits until it is done.
    ///
    /// # Errors
    /// The kernel's, with the index of the message among `messages` that it is about,
    /// if it is about one.
    pub(crate) fn batch(
        &mut self,
        first: Message,
        messages: Vec<Message>,
        last: Message,
    ) -> Result<(), (Option<usize>, io::Error)> {
        let begin = self.next();
        let count = messages.len();
        let mut bytes = first.finish(begin);
        for (index, mut message) in messages.into_iter().enumerate() {
            if index + 1 == count {
                message.acknowledged();
            }
            let sequence = self.next();
            bytes.extend(message.finish(sequence));
        }
        let end = self.next();
        bytes.extend(last.finish(end));
        // The kernel takes a message only if the socket's buffer holds it whole.
        let whole = |error| (None, io::Error::from(error));
        sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len().max(DATAGRAM) * 2)
            .map_err(whole)?;
        self.send(&bytes).map_err(|error| (None, error))?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let received = self.receive(&mut buffer).map_err(|error| (None, error))?;
            for answer in Answers(received) {
                if answer.kind != ERROR {
                    continue;
                }
                let offset = answer.sequence.wrapping_sub(begin);
                // What an earlier call left behind.
                if offset as usize > count + 1 {
                    continue;
                }
                let index = (offset as usize)
                    .checked_sub(1)
                    .filter(|index| *index < count);
                answer.outcome().map_err(|error| (index, error))?;
                if offset as usize == count {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a message that the kernel does not answer.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn tell(&self, message: Message) -> io::Result<()> {
        self.send(&message.finish(0))
    }

    /// Takes what has come, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing; the kernel's.
    pub(crate) fn take<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Answers<'a>> {
        let (length, _) = recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)?;
        Ok(Answers(buffer.get(..length).unwrap_or_default()))
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(&self.socket, bytes, SendFlags::empty())?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(buffer.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A message of the kernel.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Its type.
    pub(crate) kind: u16,
    sequence: u32,
    /// What follows its header.
    pub(crate) content: &'a [u8],
}

impl Answer<'_> {
    /// What an acknowledgement says.
    fn outcome(&self) -> io::Result<()> {
        match self
            .content
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code))
        {
            Some(code) if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            _ => Ok(()),
        }
    }
}

/// The messages in a datagram.
#[derive(Debug)]
pub(crate) struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let content = self.0.get(HEADER..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(Answer {
            kind: u16::from_ne_bytes([k0, k1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            content,
        })
    }
}
