//! A disk driven through hand-made queues, against a model of what it should do.

use std::{fs::File, os::unix::fs::MetadataExt};

use proptest::prelude::*;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::{
    GuestMemory,
    test_driver::{Descriptor, Ring, call, memory},
};

const RING: u64 = 0;
const HEADER: u64 = 0x2000;
const STATUS: u64 = 0x3000;
/// Data ends up across the border of two memory regions.
const DATA: u64 = (8 << 20) - 0x800;
const DISK: usize = 1 << 20;
const UNTOUCHED: u8 = 0xee;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPPORTED: u8 = 2;

struct Rig {
    memory: GuestMemory,
    ring: Ring,
    queues: [Queue; 1],
    disk: Block,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new(read_only: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.raw");
        File::create(&path).unwrap().set_len(DISK as u64).unwrap();
        let memory = memory();
        let ring = Ring::new(&memory, RING);
        let queues = [ring.queue()];
        let mut disk = Block::open(&DiskConfig {
            path,
            read_only,
            journal: Some(directory.path().join("journal")),
        })
        .unwrap();
        disk.acknowledge_features(disk.features());
        Self {
            memory,
            ring,
            queues,
            disk,
            directory,
        }
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("data.raw")).unwrap()
    }

    fn kilobytes_in_use(&self) -> u64 {
        let path = self.directory.path().join("data.raw");
        std::fs::metadata(path).unwrap().blocks() / 2
    }

    /// Puts a request, cut into pieces of `cut` bytes, and returns its status and the
    /// number of bytes said to be written.
    fn request(&mut self, kind: u32, sector: u64, out: &[u8], room: u32, cut: u32) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        let at = GuestAddress;
        self.memory.write_slice(&header, at(HEADER)).unwrap();
        self.memory.write_obj(UNTOUCHED, at(STATUS)).unwrap();
        self.memory.write_slice(out, at(DATA)).unwrap();
        let mut chain: Vec<Descriptor> = vec![(HEADER, 7, false), (HEADER + 7, 9, false)];
        let length = out.len() as u32 + room;
        let mut from = 0;
        while from < length {
            let to = (from + cut).min(length);
            chain.push((DATA + u64::from(from), to - from, room > 0));
            from = to;
        }
        chain.push((STATUS, 1, true));
        let head = self.ring.offer(&chain);
        let outcome = call(
            &mut self.disk,
            &mut self.queues,
            &self.memory,
            |disk, queues| {
                disk.process_queue(0, queues);
            },
        );
        assert_eq!((outcome.notify, outcome.failure), (1, None));
        let (used, written) = self.ring.take_used().unwrap();
        assert_eq!(used, head);
        (self.memory.read_obj(at(STATUS)).unwrap(), written)
    }

    fn data(&self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory
            .read_slice(&mut data, GuestAddress(DATA))
            .unwrap();
        data
    }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[derive(Debug, Clone)]
enum Step {
    Read(u64, u32),
    Write(u64, u32, u8),
    Discard(u64, u32),
    Zero(u64, u32, bool),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    // Some of it beyond the disk's 2048 sectors.
    let sector = prop_oneof![8 => 0..2100_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 512)];
    prop_oneof![
        (sector.clone(), 0..40_u32).prop_map(|(s, n)| Step::Read(s, n)),
        (sector.clone(), 0..40_u32, any::<u8>()).prop_map(|(s, n, b)| Step::Write(s, n, b)),
        (sector.clone(), 0..200_u32).prop_map(|(s, n)| Step::Discard(s, n)),
        (sector, 0..200_u32, any::<bool>()).prop_map(|(s, n, u)| Step::Zero(s, n, u)),
        Just(Step::Flush),
    ]
}

/// The bytes of the disk that a request is for, unless it goes beyond it.
fn bytes(sector: u64, sectors: u32) -> Option<std::ops::Range<usize>> {
    let from = usize::try_from(sector).ok()?.checked_mul(512)?;
    let to = from.checked_add(sectors as usize * 512)?;
    (to <= DISK).then_some(from..to)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn behaves_like_an_array(steps in prop::collection::vec((step(), 400..9000_u32), 1..30)) {
        let mut rig = Rig::new(false);
        let mut model = vec![0; DISK];
        for (step, cut) in steps {
            match step {
                Step::Read(sector, sectors) => {
                    let length = sectors * 512;
                    let (status, written) = rig.request(IN, sector, &[], length, cut);
                    if let Some(bytes) = bytes(sector, sectors) {
                        prop_assert_eq!((status, written), (OK, length + 1));
                        prop_assert_eq!(&rig.data(length as usize), &model[bytes]);
                    } else {
                        prop_assert_eq!((status, written), (IOERR, 1));
                    }
                }
                Step::Write(sector, sectors, byte) => {
                    let data: Vec<u8> = (0..sectors * 512).map(|i| byte ^ i as u8).collect();
                    let (status, written) = rig.request(OUT, sector, &data, 0, cut);
                    prop_assert_eq!(written, 1);
                    if let Some(bytes) = bytes(sector, sectors) {
                            prop_assert_eq!(status, OK);
                            model[bytes].copy_from_slice(&data);
                    } else {
                        prop_assert_eq!(status, IOERR);
                    }
                }
                Step::Discard(sector, sectors) | Step::Zero(sector, sectors, _) => {
                    let (kind, flags) = match step {
                        Step::Zero(_, _, unmap) => (WRITE_ZEROES, u32::from(unmap)),
                        _ => (DISCARD, 0),
                    };
                    let data = range(sector, sectors, flags);
                    let (status, _) = rig.request(kind, sector, &data, 0, cut);
                    if let Some(bytes) = bytes(sector, sectors) {
                            prop_assert_eq!(status, OK);
                            model[bytes].fill(0);
                    } else {
                        prop_assert_eq!(status, IOERR);
                    }
                }
                Step::Flush => prop_assert_eq!(rig.request(FLUSH, 0, &[], 0, cut), (OK, 1)),
            }
        }
        prop_assert!(rig.image() == model);
    }

    /// Whatever is in the rings and descriptors, the device comes back, and the disk
    /// keeps its length.
    #[test]
    fn survives_any_ring(
        rings in prop::collection::vec(any::<u8>(), 0xe10),
        headers in prop::collection::vec(0..16_u8, 64),
        count in 0..80_u16,
    ) {
        let mut rig = Rig::new(false);
        let at = GuestAddress;
        rig.memory.write_slice(&rings, at(RING)).unwrap();
        // Half of the descriptors lead to somewhere.
        for slot in 0..32_u64 {
            rig.memory.write_obj(HEADER + slot * 8, at(RING + slot * 32)).unwrap();
            rig.memory.write_obj(512_u32, at(RING + slot * 32 + 8)).unwrap();
        }
        rig.memory.write_slice(&headers, at(HEADER)).unwrap();
        rig.memory.write_obj(count, at(rig.ring.available_ring() + 2)).unwrap();
        for _ in 0..3 {
            call(&mut rig.disk, &mut rig.queues, &rig.memory, |disk, queues| {
                disk.process_queue(0, queues);
            });
        }
        prop_assert_eq!(rig.image().len(), DISK);
    }
}

#[test]
fn discarding_gives_space_back() {
    let mut rig = Rig::new(false);
    let data = vec![7; 512 * 1024];
    assert_eq!(rig.request(OUT, 0, &data, 0, 1 << 19).0, OK);
    assert_eq!(rig.request(FLUSH, 0, &[], 0, 1).0, OK);
    let full = rig.kilobytes_in_use();
    assert!(full >= 512);
    assert_eq!(rig.request(DISCARD, 0, &range(0, 512, 0), 0, 16).0, OK);
    assert!(rig.kilobytes_in_use() <= full - 256);
    assert_eq!(
        rig.request(WRITE_ZEROES, 0, &range(512, 512, 1), 0, 16).0,
        OK
    );
    assert!(rig.kilobytes_in_use() <= full - 512);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let mut rig = Rig::new(true);
    let features = rig.disk.features();
    assert_ne!(features & (1 << VIRTIO_BLK_F_RO), 0);
    assert_eq!(features & (1 << VIRTIO_BLK_F_DISCARD), 0);
    assert_eq!(rig.request(OUT, 0, &[1; 512], 0, 512), (IOERR, 1));
    assert_eq!(rig.request(DISCARD, 0, &range(0, 8, 0), 0, 16), (IOERR, 1));
    assert_eq!(rig.request(IN, 0, &[], 512, 512), (OK, 513));
    assert_eq!(rig.request(FLUSH, 0, &[], 0, 1), (OK, 1));
}

#[test]
fn tells_its_id_and_refuses_what_it_does_not_know() {
    let mut rig = Rig::new(false);
    assert_eq!(rig.request(GET_ID, 0, &[], 20, 20), (OK, 21));
    assert_eq!(rig.data(20), b"data.raw\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(rig.request(GET_ID, 0, &[], 19, 19).0, IOERR);
    assert_eq!(rig.request(99, 0, &[], 512, 512), (UNSUPPORTED, 1));
    let unmap = range(0, 8, 1);
    assert_eq!(rig.request(DISCARD, 0, &unmap, 0, 16).0, UNSUPPORTED);
    let reserved = range(0, 8, 2);
    assert_eq!(
        rig.request(WRITE_ZEROES, 0, &reserved, 0, 16).0,
        UNSUPPORTED
    );
    assert_eq!(rig.request(DISCARD, 0, &[0; 15], 0, 15).0, IOERR);
    // A hundred bytes are no sector.
    assert_eq!(rig.request(IN, 0, &[], 100, 100).0, IOERR);
    // One bad range, and none is touched.
    assert_eq!(rig.request(OUT, 0, &[9; 512], 0, 512).0, OK);
    let mut ranges = range(0, 1, 0);
    ranges.extend(range(u64::MAX, 1, 0));
    assert_eq!(rig.request(WRITE_ZEROES, 0, &ranges, 0, 32).0, IOERR);
    assert_eq!(rig.image()[..512], [9; 512]);
}

#[test]
fn malformed_chains_are_dropped_or_refused() {
    let mut rig = Rig::new(false);
    let chains: [&[Descriptor]; 5] = [
        // No room for a status.
        &[(HEADER, 16, false)],
        // Readable after writable.
        &[(HEADER, 16, false), (STATUS, 1, true), (DATA, 512, false)],
        // Outside of guest memory.
        &[(HEADER, 16, false), (u64::MAX - 8, 512, true)],
        &[(1 << 40, 16, false), (STATUS, 1, true)],
        // A header cut short.
        &[(HEADER, 15, false), (STATUS, 1, true)],
    ];
    for chain in chains {
        let head = rig.ring.offer(chain);
        let outcome = call(
            &mut rig.disk,
            &mut rig.queues,
            &rig.memory,
            |disk, queues| {
                disk.process_queue(0, queues);
            },
        );
        assert_eq!(outcome.failure, None);
        assert_eq!(rig.ring.take_used().map(|used| used.0), Some(head));
    }
    let status: u8 = rig.memory.read_obj(GuestAddress(STATUS)).unwrap();
    assert_eq!(status, IOERR);
    // A chain that leads back to itself.
    let head = rig.ring.offer(&[(HEADER, 16, false)]);
    let slot = GuestAddress(rig.ring.descriptors() + u64::from(head) * 16 + 12);
    rig.memory.write_obj(1_u16, slot).unwrap();
    let next = GuestAddress(slot.0 + 2);
    rig.memory.write_obj(head, next).unwrap();
    call(
        &mut rig.disk,
        &mut rig.queues,
        &rig.memory,
        |disk, queues| {
            disk.process_queue(0, queues);
        },
    );
    assert_eq!(rig.ring.take_used(), Some((head, 0)));
}

#[test]
fn what_is_no_disk_image_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| {
        let path = path.to_owned();
        Block::open(&DiskConfig {
            path,
            read_only: true,
            journal: None,
        })
        .err()
    };
    assert!(matches!(
        open(directory.path()),
        Some(OpenError::NoFile { .. })
    ));
    let missing = directory.path().join("missing");
    let error = open(&missing).unwrap();
    assert!(error.to_string().contains("missing"));
    File::create(&missing).unwrap();
    assert!(matches!(open(&missing), Some(OpenError::Empty { .. })));
}

#[test]
fn configuration_space_is_the_specification_s() {
    let rig = Rig::new(false);
    let mut capacity = [0; 8];
    rig.disk.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 2048);
    let mut beyond = [1; 8];
    rig.disk.read_config(56, &mut beyond);
    assert_eq!(beyond, [1, 0, 0, 0, 0, 0, 0, 0]);
    rig.disk.read_config(usize::MAX, &mut beyond);
    assert_eq!(beyond, [0; 8]);
}

#[test]
fn a_disk_grows_when_it_is_asked_to_and_never_shrinks() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
    let mut rig = Rig::new(false);
    let file = File::options()
        .write(true)
        .open(rig.directory.path().join("data.raw"))
        .unwrap();
    let mut resize = |length: usize| {
        file.set_len(length as u64).unwrap();
        let handle = rig.disk.handle();
        let asking = std::thread::spawn(move || handle.resize(PATIENCE));
        let source = rig.disk.event_source().unwrap();
        let mut readable = [rustix::event::PollFd::from_borrowed_fd(
            source,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut readable, None).unwrap();
        let outcome = call(
            &mut rig.disk,
            &mut rig.queues,
            &rig.memory,
            |disk, queues| disk.process_event(queues),
        );
        let mut capacity = [0; 8];
        rig.disk.read_config(0, &mut capacity);
        (
            asking.join().unwrap(),
            outcome.config_changed,
            u64::from_le_bytes(capacity) << SECTOR_SHIFT,
        )
    };
    let grown = 2 * DISK as u64;
    let (answer, told, capacity) = resize(2 * DISK);
    assert_eq!((answer.unwrap(), told, capacity), (grown, true, grown));
    let (answer, told, _) = resize(2 * DISK);
    assert_eq!((answer.unwrap(), told), (grown, false));
    let (answer, told, capacity) = resize(DISK);
    assert!(answer.unwrap_err().to_string().contains("shrink"));
    assert_eq!((told, capacity), (false, grown));
    // The new part can be used.
    file.set_len(grown).unwrap();
    let last = (grown >> SECTOR_SHIFT) - 1;
    assert_eq!(rig.request(OUT, last, &[9; 512], 0, 512), (OK, 1));
}

#[test]
fn nobody_waits_for_ever_for_a_disk_that_does_not_answer() {
    let rig = Rig::new(false);
    let error = rig
        .disk
        .handle()
        .resize(std::time::Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn the_journal_has_what_was_done_in_its_order() {
    let mut rig = Rig::new(false);
    assert_eq!(rig.request(OUT, 3, &[7; 1024], 0, 500).0, OK);
    assert_eq!(rig.request(FLUSH, 0, &[], 0, 512).0, OK);
    let mut range = 8_u64.to_le_bytes().to_vec();
    range.extend([16, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.request(DISCARD, 0, &range, 0, 512).0, OK);
    // What is refused did not happen.
    assert_eq!(rig.request(OUT, u64::MAX, &[7; 512], 0, 512).0, IOERR);
    let head =
        |kind: u64, offset: u64, length: u64| [kind, offset, length].map(u64::to_le_bytes).concat();
    let expected = [
        head(1, 3 * 512, 1024),
        vec![7; 1024],
        head(2, 0, 0),
        head(3, 8 * 512, 16 * 512),
    ];
    let journal = std::fs::read(rig.directory.path().join("journal")).unwrap();
    assert_eq!(journal, expected.concat());
}
