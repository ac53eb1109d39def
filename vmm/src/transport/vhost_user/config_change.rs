//! Tells QEMU that a device's configuration space has changed
//! (`VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`).
//!
//! That message goes over a channel of its own, which QEMU hands to the back-end as
//! a descriptor. The `vhost` crate keeps it and has no such message to send, so the
//! connection passes through a [`ConfigChange::relay`], which keeps a duplicate.
//! Only messages that set a device up take this way: queues are in shared memory.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Bytes of a message's header: request, flags, length of what follows.
const HEADER: usize = 12;
/// The longest body; the largest of those in use, a memory table, has 264 bytes.
const MAX_BODY: usize = 64 * 1024;
/// The most descriptors with one message, more than any has.
const MAX_DESCRIPTORS: usize = 32;
/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;
/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, protocol version 1, without a body and
/// without an answer.
const CONFIG_CHANGE: [u32; 3] = [2, 1, 0];

/// The channel to the front-end, once it has given one. Clones share it.
#[derive(Clone, Default)]
pub struct ConfigChange(Arc<Mutex<Option<UnixStream>>>);

impl ConfigChange {
    /// Carries messages between a front-end and a back-end, on a thread of its own,
    /// until one of them hangs up.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn relay(&self, front_end: UnixStream, back_end: UnixStream) -> io::Result<()> {
        let channel = self.clone();
        thread::Builder::new()
            .name("vhost-relay".to_owned())
            .spawn(move || {
                // Both ends see the other's end when the relay drops its own.
                if let Err(error) = channel.carry(&front_end, &back_end) {
                    tracing::debug!(%error, "a vhost-user connection ended");
                }
            })?;
        Ok(())
    }

    /// Says that the configuration space has changed. A front-end that gave no
    /// channel is not interested.
    ///
    /// # Errors
    /// When the front-end has gone.
    pub(super) fn notify(&self) -> io::Result<()> {
        match &mut *self.lock() {
            Some(channel) => channel.write_all(&CONFIG_CHANGE.map(u32::to_ne_bytes).concat()),
            None => Ok(()),
        }
    }

    fn carry(&self, front_end: &UnixStream, back_end: &UnixStream) -> io::Result<()> {
        loop {
            let mut ends = [front_end, back_end].map(|end| PollFd::new(end, PollFlags::IN));
            match poll(&mut ends, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [from_front, from_back] = ends.map(|end| !end.revents().is_empty());
            if from_front {
                let message = Message::receive(front_end)?;
                if message.request() == SET_BACKEND_REQ_FD {
                    let descriptor = message.descriptors.first();
                    let channel = descriptor.map(OwnedFd::try_clone).transpose()?;
                    *self.lock() = channel.map(UnixStream::from);
                }
                message.send(back_end)?;
            }
            if from_back {
                Message::receive(back_end)?.send(front_end)?;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message and the descriptors that came with it.
struct Message {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Reads a whole message: no more, since descriptors come with its first byte.
    fn receive(mut stream: &UnixStream) -> io::Result<Self> {
        let mut bytes = vec![0; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(
                stream,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a message has too many descriptors"));
        }
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        stream.read_exact(bytes.get_mut(received.bytes..).unwrap_or_default())?;
        let mut message = Self { bytes, descriptors };
        let body = message.word(2) as usize;
        if body > MAX_BODY {
            return Err(io::Error::other("a message is too long"));
        }
        message.bytes.resize(HEADER + body, 0);
        stream.read_exact(message.bytes.get_mut(HEADER..).unwrap_or_default())?;
        Ok(message)
    }

    fn send(&self, mut stream: &UnixStream) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(
                stream,
                &[IoSlice::new(&self.bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        stream.write_all(self.bytes.get(sent..).unwrap_or_default())
    }

    fn request(&self) -> u32 {
        self.word(0)
    }

    /// A word of the header, in the host's byte order.
    fn word(&self, index: usize) -> u32 {
        let bytes = self.bytes.get(index * 4..index * 4 + 4);
        bytes.map_or(0, |bytes| bytes.try_into().map_or(0, u32::from_ne_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request: u32, body: &[u8], descriptors: Vec<OwnedFd>) -> Message {
        let mut bytes = [request, 1, body.len() as u32]
            .map(u32::to_ne_bytes)
            .concat();
        bytes.extend_from_slice(body);
        Message { bytes, descriptors }
    }

    #[test]
    fn messages_pass_with_their_descriptors_and_the_channel_is_found() {
        let (front_end, front_relay) = UnixStream::pair().unwrap();
        let (back_relay, back_end) = UnixStream::pair().unwrap();
        let change = ConfigChange::default();
        // Nobody to tell yet.
        change.notify().unwrap();
        change.relay(front_relay, back_relay).unwrap();

        // Two at once, as QEMU sends what it needs no answer to.
        let (channel, mut our_channel) = UnixStream::pair().unwrap();
        message(8, &[7; 264], Vec::new()).send(&front_end).unwrap();
        message(SET_BACKEND_REQ_FD, &[], vec![channel.into()])
            .send(&front_end)
            .unwrap();
        let first = Message::receive(&back_end).unwrap();
        assert_eq!((first.request(), first.bytes.len()), (8, HEADER + 264));
        assert!(first.descriptors.is_empty());
        let second = Message::receive(&back_end).unwrap();
        assert_eq!(second.request(), SET_BACKEND_REQ_FD);
        assert_eq!(second.descriptors.len(), 1);
        message(1, b"answer", Vec::new()).send(&back_end).unwrap();
        assert_eq!(Message::receive(&front_end).unwrap().request(), 1);

        change.notify().unwrap();
        let mut told = [0; HEADER];
        our_channel.read_exact(&mut told).unwrap();
        assert_eq!(
            told.as_slice(),
            CONFIG_CHANGE.map(u32::to_ne_bytes).concat()
        );

        drop(front_end);
        assert!(Message::receive(&back_end).is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        let header = [1, 1, u32::MAX].map(u32::to_ne_bytes).concat();
        sender.write_all(&header).unwrap();
        assert!(Message::receive(&receiver).is_err());
    }
}
