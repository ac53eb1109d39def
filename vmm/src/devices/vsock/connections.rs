//! All connections of a vsock device: who is there, who is in line to send to the
//! guest, who waits for an answer. Sockets, timers and the listener hang on one
//! epoll file descriptor, edge-triggered, which is all that a transport has to
//! watch.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{SocketFlags, accept_with},
};

use super::{
    connection::{Connection, Ports, SocketEvent, Verdict},
    deadlines::Deadlines,
    handshake::{Handshake, Progress},
    listener::Listener,
    packet::{HOST_CID, Header, Operation, TYPE_STREAM},
};
use crate::devices::Buffers;

/// The most connections. Each takes a file descriptor of the process.
pub(super) const MAX_CONNECTIONS: usize = 4096;

/// What the guest may have on its way to the host, in bytes, in each of so many
/// connections; the least in those beyond. Together they bound what all connections
/// may buffer: 124 MiB, and only when nobody reads.
const WINDOWS: [(usize, u32); 2] = [(64, 256 * 1024), (1024, 64 * 1024)];
const NARROWEST_WINDOW: u32 = 16 * 1024;

/// Resets that wait for room in the guest's receive queue. When there are so many, no
/// more packets of the guest are looked at (5.10.6.2.1).
const MAX_RESETS: usize = 128;

/// How long a host may take to say `CONNECT`, and the guest to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports of the host's ends of connections that it opens.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Events that are handled in one call; more wait for the next.
const EVENTS: usize = 128;

/// What is always heard of a socket: what comes, and ends.
const EVENTS_OF_SOCKET: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_ID: u64 = 2;

pub(super) struct Connections {
    cid: u64,
    /// The most connections, those that are being opened included.
    pub(super) limit: usize,
    epoll: OwnedFd,
    listener: Listener,
    /// The listener may have more.
    accepting: bool,
    /// The host was out of file descriptors: it may have some when one is closed.
    accept_after_close: bool,
    /// That has happened before: it was said.
    accept_failed: bool,
    deadlines: Deadlines,
    next_id: u64,
    next_port: u32,
    handshakes: HashMap<u64, Pending<Handshake>>,
    open: HashMap<u64, Pending<Connection>>,
    ids: HashMap<Ports, u64>,
    /// In line to send to the guest.
    line: VecDeque<u64>,
    resets: VecDeque<Header>,
}

struct Pending<T> {
    it: T,
    deadline: Option<Instant>,
}

impl Connections {
    pub(super) fn new(cid: u32, listener: Listener) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let deadlines = Deadlines::new()?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let token = epoll::EventData::new_u64;
        epoll::add(&epoll, listener.socket(), token(LISTENER), edge)?;
        epoll::add(&epoll, &deadlines, token(TIMER), edge)?;
        Ok(Self {
            cid: cid.into(),
            limit: MAX_CONNECTIONS,
            epoll,
            listener,
            accepting: true,
            accept_after_close: false,
            accept_failed: false,
            deadlines,
            next_id: FIRST_ID,
            next_port: FIRST_HOST_PORT,
            handshakes: HashMap::new(),
            open: HashMap::new(),
            ids: HashMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
        })
    }

    /// Readable when [`Self::handle_events`] has something to do.
    pub(super) fn event_source(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Forgets all connections; hosts see them close.
    pub(super) fn reset(&mut self) {
        self.handshakes.clear();
        self.open.clear();
        self.ids.clear();
        self.line.clear();
        self.resets.clear();
        self.deadlines.clear();
    }

    /// Whether a packet of the guest may be looked at: there is room for the answer.
    pub(super) fn can_receive(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Whether [`Self::next_packet`] may have something.
    pub(super) fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// The next packet for the guest: every connection in its turn. Payload is put
    /// into the front of `data`.
    pub(super) fn next_packet(&mut self, data: &mut Buffers<'_>) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(id) = self.line.pop_front() {
            // It may have closed while it was in line.
            let Some(Pending { it, .. }) = self.open.get_mut(&id) else {
                continue;
            };
            it.queued = false;
            let packet = it.next_packet(data);
            self.line_up(id);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Handles a packet of the guest.
    pub(super) fn receive(&mut self, header: &Header, mut payload: Buffers<'_>) {
        if header.source_cid != self.cid {
            // It lies about who it is: there is nobody to answer.
            return;
        }
        let ports = Ports {
            host: header.destination_port,
            guest: header.source_port,
        };
        if header.destination_cid != HOST_CID || header.socket_type != TYPE_STREAM {
            self.refuse(header);
            return;
        }
        let Some(&id) = self.ids.get(&ports) else {
            match header.operation {
                Operation::Request => self.open_from_guest(ports, header),
                Operation::Reset => {}
                _ => self.refuse(header),
            }
            return;
        };
        let verdict = match self.open.get_mut(&id) {
            Some(connection) => connection.it.receive(header, &mut payload),
            None => Verdict::Close,
        };
        if header.operation == Operation::Reset {
            // The guest may use the ports again, whatever is left to drain.
            self.ids.remove(&ports);
        }
        self.after(id, verdict);
    }

    /// Answers a packet with a reset (5.10.6.4), to where it came from.
    fn refuse(&mut self, header: &Header) {
        if header.operation != Operation::Reset {
            self.resets.push_back(header.reset_in_answer());
        }
    }

    fn open_from_guest(&mut self, ports: Ports, request: &Header) {
        if self.count() >= self.limit {
            self.refuse(request);
            return;
        }
        let window = self.window();
        let opened = self
            .listener
            .connect_host_port(ports.host)
            .and_then(|socket| {
                let id = self.watch(&socket)?;
                let connection = Connection::from_guest(ports, socket, window, request);
                self.insert(id, connection, None);
                Ok(())
            });
        if let Err(error) = opened {
            tracing::debug!(port = ports.host, %error, "a connection of the guest is refused");
            self.refuse(request);
        }
    }

    /// Sees what happened to sockets and timers.
    pub(super) fn handle_events(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                LISTENER => self.accepting = true,
                TIMER => {
                    for id in self.deadlines.expired()? {
                        self.handshakes.remove(&id);
                        self.close_with_reset(id);
                    }
                }
                id => {
                    let event = SocketEvent {
                        readable: flags.intersects(
                            epoll::EventFlags::IN
                                | epoll::EventFlags::RDHUP
                                | epoll::EventFlags::HUP
                                | epoll::EventFlags::ERR,
                        ),
                        writable: flags.contains(epoll::EventFlags::OUT),
                        closed: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
                    };
                    self.socket_event(id, event);
                }
            }
        }
        Ok(())
    }

    /// Takes in who waits at the listener, now that there may be room, and sees to the
    /// timer. Called after anything else was.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.accept();
        self.deadlines.arm()
    }

    fn socket_event(&mut self, id: u64, event: SocketEvent) {
        if let Some(connection) = self.open.get_mut(&id) {
            let verdict = connection.it.socket_event(event);
            self.after(id, verdict);
        } else if self.handshakes.contains_key(&id) {
            self.advance_handshake(id);
        }
    }

    fn accept(&mut self) {
        while self.accepting && self.count() < self.limit {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(self.listener.socket(), flags) {
                Ok(socket) => {
                    if let Err(error) = self.begin_handshake(UnixStream::from(socket)) {
                        tracing::debug!(%error, "a vsock connection cannot be watched");
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => self.accepting = false,
                Err(error) => {
                    // Out of file descriptors or memory: again when a connection has
                    // closed, or the next one comes.
                    if !std::mem::replace(&mut self.accept_failed, true) {
                        tracing::error!(%error, "vsock connections cannot be accepted");
                    }
                    self.accepting = false;
                    self.accept_after_close = true;
                }
            }
        }
    }

    fn begin_handshake(&mut self, socket: UnixStream) -> io::Result<()> {
        let id = self.watch(&socket)?;
        let deadline = self.deadlines.add(id, PATIENCE);
        self.handshakes.insert(
            id,
            Pending {
                it: Handshake::new(socket),
                deadline: Some(deadline),
            },
        );
        self.advance_handshake(id);
        Ok(())
    }

    fn advance_handshake(&mut self, id: u64) {
        let Some(handshake) = self.handshakes.get(&id) else {
            return;
        };
        let guest = match handshake.it.advance() {
            Progress::Waiting => return,
            Progress::Failed => None,
            Progress::Connect(port) => Some(port),
        };
        let Some(Pending { it, deadline }) = self.handshakes.remove(&id) else {
            return;
        };
        self.forget_deadline(id, deadline);
        if let Some(guest) = guest {
            let ports = Ports {
                host: self.free_host_port(guest),
                guest,
            };
            let socket = it.into_socket();
            let connection = Connection::from_host(ports, self.cid, socket, self.window());
            let deadline = self.deadlines.add(id, PATIENCE);
            self.insert(id, connection, Some(deadline));
        }
    }

    /// A port of the host that no connection to the guest's port `guest` has.
    fn free_host_port(&mut self, guest: u32) -> u32 {
        // There are far more ports than connections.
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.ids.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    fn count(&self) -> usize {
        self.open.len() + self.handshakes.len()
    }

    fn window(&self) -> u32 {
        let open = self.open.len();
        let wider = WINDOWS.iter().find(|(most, _)| open < *most);
        wider.map_or(NARROWEST_WINDOW, |(_, window)| *window)
    }

    fn watch(&mut self, socket: &UnixStream) -> io::Result<u64> {
        let id = self.next_id;
        // Not to be used up: 2^64 connections.
        self.next_id = self.next_id.wrapping_add(1);
        // Closing the socket ends it.
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(id),
            EVENTS_OF_SOCKET,
        )?;
        Ok(id)
    }

    /// Sees to it that a connection hears when its socket takes more, or no more.
    fn watch_room(&mut self, id: u64) -> io::Result<()> {
        let Some(Pending { it, .. }) = self.open.get_mut(&id) else {
            return Ok(());
        };
        let wanted = it.wants_room();
        if wanted != it.hears_of_room {
            let mut flags = EVENTS_OF_SOCKET;
            // What is so by now is an event, too.
            flags.set(epoll::EventFlags::OUT, wanted);
            epoll::modify(
                &self.epoll,
                it.socket(),
                epoll::EventData::new_u64(id),
                flags,
            )?;
            it.hears_of_room = wanted;
        }
        Ok(())
    }

    fn insert(&mut self, id: u64, connection: Connection, deadline: Option<Instant>) {
        self.ids.insert(connection.ports(), id);
        let it = connection;
        self.open.insert(id, Pending { it, deadline });
        self.line_up(id);
    }

    /// What follows from something that happened to a connection.
    fn after(&mut self, id: u64, verdict: Verdict) {
        match verdict {
            Verdict::Keep => {
                if let Some(connection) = self.open.get_mut(&id)
                    && !connection.it.is_opening()
                {
                    let deadline = connection.deadline.take();
                    self.forget_deadline(id, deadline);
                }
                if let Err(error) = self.watch_room(id) {
                    tracing::error!(%error, "a vsock connection cannot be watched");
                    self.close_with_reset(id);
                    return;
                }
                self.line_up(id);
            }
            Verdict::Close => self.close(id),
            Verdict::Reset => self.close_with_reset(id),
        }
    }

    /// Puts a connection into the line when it has something for the guest and is not
    /// in it yet.
    fn line_up(&mut self, id: u64) {
        if let Some(Pending { it, .. }) = self.open.get_mut(&id)
            && !it.queued
            && it.has_packets()
        {
            it.queued = true;
            self.line.push_back(id);
        }
    }

    fn close_with_reset(&mut self, id: u64) {
        if let Some(Pending { it, .. }) = self.open.get(&id)
            && it.known_to_guest()
        {
            self.resets.push_back(it.reset());
        }
        self.close(id);
    }

    fn close(&mut self, id: u64) {
        if let Some(Pending { it, deadline }) = self.open.remove(&id) {
            self.forget_deadline(id, deadline);
            if self.ids.get(&it.ports()) == Some(&id) {
                self.ids.remove(&it.ports());
            }
        }
        if std::mem::take(&mut self.accept_after_close) {
            self.accepting = true;
        }
    }

    fn forget_deadline(&mut self, id: u64, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            self.deadlines.forget(id, deadline);
        }
    }
}

#[cfg(test)]
impl Connections {
    /// Bytes of the guest that are kept for hosts, in all and in the fullest.
    pub(super) fn buffered(&self) -> (usize, usize) {
        let each = || self.open.values().map(|pending| pending.it.buffered());
        (each().sum(), each().max().unwrap_or(0))
    }

    pub(super) fn resets_waiting(&self) -> usize {
        self.resets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }
}
