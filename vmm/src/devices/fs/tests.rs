use rustix::event::{PollFd, PollFlags, poll};
use shares::Limits;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::{
    GuestMemory,
    test_driver::{Descriptor, RINGS, Ring, call, memory},
};

const REQUESTS: u64 = 0x10_0000;
const REPLIES: u64 = 0x20_0000;
/// `FUSE_INIT` and its error-free reply: 16 bytes of header, 64 of body.
const INIT: u32 = 26;
const INIT_REPLY: u32 = 80;

struct Driver {
    memory: GuestMemory,
    rings: [Ring; 2],
    queues: Vec<Queue>,
    device: Fs,
}

impl Driver {
    fn new() -> Self {
        let memory = memory();
        let rings = [0, 1].map(|index| Ring::new(&memory, index * RINGS));
        let queues = rings.iter().map(Ring::queue).collect();
        let server = Arc::new(Server::new(Limits::default()).unwrap());
        let pool = Pool::start("test", 2, || Ok(())).unwrap();
        Self {
            memory,
            rings,
            queues,
            device: Fs::new("files", server, Arc::new(pool)).unwrap(),
        }
    }

    /// Puts a `FUSE_INIT` at `at`; returns its length.
    fn init_at(&self, at: u64, unique: u64) -> u32 {
        let mut request = Vec::new();
        for word in [104_u32, INIT] {
            request.extend(word.to_ne_bytes());
        }
        request.extend(unique.to_ne_bytes());
        request.extend(1_u64.to_ne_bytes());
        request.resize(40, 0);
        for word in [7_u32, 36, 65536, 0] {
            request.extend(word.to_ne_bytes());
        }
        request.resize(104, 0);
        self.memory.write_slice(&request, GuestAddress(at)).unwrap();
        request.len() as u32
    }

    fn offer(&mut self, queue: usize, chain: &[Descriptor]) -> u16 {
        self.rings[queue].offer(chain)
    }

    fn notify(&mut self, queue: usize) {
        let outcome = call(
            &mut self.device,
            &mut self.queues,
            &self.memory,
            |device, queues| device.process_queue(queue, queues),
        );
        assert_eq!(outcome.failure, None);
    }

    /// Waits for what the pool works on.
    fn wait(&mut self) {
        let event = self.device.event_source().unwrap();
        poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
        call(
            &mut self.device,
            &mut self.queues,
            &self.memory,
            |device, queues| device.process_event(queues),
        );
    }

    /// Length, error and unique number of the reply at `at`.
    fn reply(&self, at: u64) -> (u32, i32, u64) {
        let read = |at| self.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        let unique = self.memory.read_obj(GuestAddress(at + 8)).unwrap();
        (read(at), read(at + 4) as i32, unique)
    }
}

#[test]
fn the_driver_learns_the_tag_and_how_many_queues_there_are() {
    let driver = Driver::new();
    let mut config = [1; 44];
    driver.device.read_config(0, &mut config);
    assert_eq!(&config[..6], b"files\0");
    assert_eq!(&config[36..], [1, 0, 0, 0, 0, 0, 0, 0]);
    let server = Arc::new(Server::new(Limits::default()).unwrap());
    let pool = Arc::new(Pool::start("test", 1, || Ok(())).unwrap());
    assert!(Fs::new(&"x".repeat(37), server, pool).is_err());
}

#[test]
fn a_request_is_answered_however_it_is_cut() {
    let mut driver = Driver::new();
    let length = driver.init_at(REQUESTS, 7);
    let head = driver.offer(
        1,
        &[
            (REQUESTS, 3, false),
            (REQUESTS + 3, length - 3, false),
            (REPLIES, 1, true),
            (REPLIES + 1, 99, true),
        ],
    );
    driver.notify(1);
    assert_eq!(driver.rings[1].take_used(), Some((head, INIT_REPLY)));
    assert_eq!(driver.reply(REPLIES), (INIT_REPLY, 0, 7));
}

#[test]
fn many_at_once_and_large_ones_all_come_back() {
    let mut driver = Driver::new();
    let mut expected = Vec::new();
    for index in 0..10_u64 {
        let (request, reply) = (REQUESTS + index * 0x1000, REPLIES + index * 0x2_0000);
        let length = driver.init_at(request, index);
        // More room than a request that is answered on the device's thread has.
        let chain = [(request, length, false), (reply, 0x1_8000, true)];
        expected.push((driver.offer(1, &chain), reply, index));
    }
    driver.notify(1);
    let mut heads = Vec::new();
    while heads.len() < expected.len() {
        driver.wait();
        while let Some((head, written)) = driver.rings[1].take_used() {
            assert_eq!(written, INIT_REPLY);
            heads.push(head);
        }
    }
    for (head, reply, unique) in expected {
        assert!(heads.contains(&head));
        assert_eq!(driver.reply(reply), (INIT_REPLY, 0, unique));
    }
}

#[test]
fn hostile_chains_come_back_empty() {
    let mut driver = Driver::new();
    let length = driver.init_at(REQUESTS, 1);
    let far = 1_u64 << 40;
    let chains: [&[Descriptor]; 7] = [
        // No request, half a header, no room, too little room, memory that is not there,
        // readable after writable.
        &[(REPLIES, 100, true)],
        &[(REQUESTS, 12, false), (REPLIES, 100, true)],
        &[(REQUESTS, length, false)],
        &[(REQUESTS, length, false), (REPLIES, 10, true)],
        &[(far, length, false), (REPLIES, 100, true)],
        &[(REQUESTS, length, false), (far, 100, true)],
        &[(REPLIES, 100, true), (REQUESTS, length, false)],
    ];
    for chain in chains {
        for queue in [0, 1] {
            let head = driver.offer(queue, chain);
            driver.notify(queue);
            assert_eq!(
                driver.rings[queue].take_used(),
                Some((head, 0)),
                "{chain:?}"
            );
        }
    }
    // It goes on.
    let head = driver.offer(1, &[(REQUESTS, length, false), (REPLIES, 100, true)]);
    driver.notify(1);
    assert_eq!(driver.rings[1].take_used(), Some((head, INIT_REPLY)));
}

#[test]
fn after_a_reset_nothing_comes_back() {
    let mut driver = Driver::new();
    let length = driver.init_at(REQUESTS, 1);
    for _ in 0..8 {
        driver.offer(1, &[(REQUESTS, length, false), (REPLIES, 0x1_8000, true)]);
    }
    driver.notify(1);
    while driver.rings[1].take_used().is_some() {}
    driver.device.reset();
    call(
        &mut driver.device,
        &mut driver.queues,
        &driver.memory,
        |device, queues| device.process_event(queues),
    );
    assert_eq!(driver.rings[1].take_used(), None);
}

#[test]
fn data_moves_between_files_and_guest_memory_in_pieces() {
    use std::{fs::File, io::Read, os::fd::AsFd};

    use shares::{ReplyBuffer, RequestBuffer, WriteAt};

    let memory = memory();
    let mut ring = Ring::new(&memory, 0);
    let mut queue = ring.queue();
    memory
        .write_slice(b"0123456789", GuestAddress(REQUESTS))
        .unwrap();
    ring.offer(&[
        (REQUESTS, 4, false),
        (REQUESTS + 4, 6, false),
        (REPLIES, 3, true),
        (REPLIES + 3, 9, true),
    ]);
    let mut queues = Virtqueues::new(std::iter::once(&mut queue), &memory);
    let detached = queues.pop_detached(0).unwrap();
    let chain = detached.chain();
    let request = memory::Request(chain.readable);
    let mut reply = memory::Reply(chain.writable);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let write = |at, count, place| request.write_file(at, count, file.as_fd(), place).unwrap();
    assert_eq!(request.size(), 10);
    assert_eq!(write(3, 5, WriteAt::Offset(2)), 5);
    assert_eq!(write(8, 100, WriteAt::End(0)), 2);
    let mut text = String::new();
    File::open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "\x00\x003456789");
    assert_eq!(reply.capacity(), 12);
    assert_eq!(reply.read_file(1, 8, file.as_fd(), 3).unwrap(), 6);
    let mut got = [0; 7];
    memory.read_slice(&mut got, GuestAddress(REPLIES)).unwrap();
    assert_eq!(&got, b"\x00456789");
    reply.put(10, b"ab").unwrap();
    assert!(reply.put(11, b"ab").is_err());
}
