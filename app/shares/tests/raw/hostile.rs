//! Any bytes at all: no panic, answers of the right form, bounded use of the host.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use shares::{ExportOptions, Limits, Outcome, Server, open_root};

use crate::client::{FORGET, GETATTR, Guest, LOOKUP, fields};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_requests_are_answered_in_form(
        requests in prop::collection::vec(
            (0..60_u32, 0..12_u64, prop::collection::vec(any::<u8>(), 0..120), 0..6_u32),
            1..40,
        ),
    ) {
        let guest = Guest::new(ExportOptions::default());
        fs::create_dir(guest.inside().join("d")).unwrap();
        fs::write(guest.inside().join("f"), "text").unwrap();
        fs::write(guest.outside.path().join("secret"), "secret").unwrap();
        let share = guest.share();
        let file = guest.lookup(share, "f").unwrap();
        guest.lookup(share, "d").unwrap();
        let _ = guest.open(file, libc::O_RDWR);
        for (opcode, node, mut body, shape) in requests {
            // Numbers that mean something are more likely than chance has it.
            match shape {
                0 => body.iter_mut().for_each(|byte| *byte %= 3),
                1 => body.splice(..body.len().min(8), 1_u64.to_ne_bytes()).for_each(drop),
                2 => body.extend(b"\0d\0f\0"),
                3 => body.splice(.., fields().u32(2).u32(0o100_644).u64(0).text(b"f").0).for_each(drop),
                _ => {}
            }
            let uid = if shape == 5 { 0xffff_fe00 + u32::from(body.first().copied().unwrap_or(0) % 7) } else { 0 };
            // `send` asserts that the answer is well formed.
            let _ = guest.send_as(uid, opcode, node, &body);
        }
        prop_assert_eq!(fs::read(guest.outside.path().join("secret")).unwrap(), b"secret");
        let left = fs::read_dir(guest.outside.path()).unwrap().count();
        prop_assert_eq!(left, 2);
    }

    #[test]
    fn headers_that_lie_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), room in 0..200_usize) {
        let server = Server::new(Limits::default()).unwrap();
        let mut reply = vec![0; room];
        if let Outcome::Reply(length) = server.handle(&bytes.as_slice(), &mut reply.as_mut_slice()) {
            prop_assert!(length <= room);
        }
    }
}

#[test]
fn lengths_beyond_the_request_are_refused() {
    let server = Server::new(Limits::default()).unwrap();
    for length in [0_u32, 39, 41, 1 << 20, u32::MAX] {
        let mut request = fields().u32(length).u32(LOOKUP).u64(1).u64(1).0;
        request.resize(40, 0);
        let mut reply = [0; 4096];
        let outcome = server.handle(&request.as_slice(), &mut &mut reply[..]);
        assert!(matches!(outcome, Outcome::Reply(16)), "{outcome:?}");
        assert_eq!(reply[4..8], (-libc::EINVAL).to_ne_bytes());
    }
}

#[test]
fn files_and_handles_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        inodes: 10,
        handles: 5,
        ..Limits::default()
    };
    let server = Arc::new(Server::new(limits).unwrap());
    let guest = Guest {
        server,
        outside: folder,
    };
    fs::create_dir(guest.inside()).unwrap();
    for number in 0..20 {
        fs::write(guest.inside().join(number.to_string()), "").unwrap();
    }
    let root = open_root(&guest.inside()).unwrap();
    guest
        .server
        .add_export("x", root, ExportOptions::default())
        .unwrap();
    let share = guest.share();
    let nodes: Vec<_> = (0..20)
        .map(|number: i32| guest.lookup(share, &number.to_string()))
        .collect();
    assert!(nodes[..9].iter().all(Result::is_ok));
    assert!(nodes[9..].iter().all(|node| *node == Err(libc::ENFILE)));
    let node = *nodes[0].as_ref().unwrap();
    let handles: Vec<_> = (0..7).map(|_| guest.open(node, libc::O_RDONLY)).collect();
    assert!(handles[..5].iter().all(Result::is_ok));
    assert_eq!(handles[5..], [Err(libc::ENFILE); 2]);
    // Forgotten, there is room again.
    guest.send(FORGET, node, &fields().u64(u64::MAX).0).unwrap();
    guest.lookup(share, "15").unwrap();
    let mut init = fields().u32(7).u32(41).u64(0).0;
    init.resize(64, 0);
    guest.send(26, 0, &init).unwrap();
    assert_eq!(guest.server.counts().inodes, 0);
    assert_eq!(guest.server.counts().handles, 0);
}

#[test]
fn a_fifo_on_the_host_makes_nobody_wait() {
    let guest = Guest::new(ExportOptions::default());
    let path = guest.inside().join("f");
    fs::write(&path, "").unwrap();
    let share = guest.share();
    let node = guest.lookup(share, "f").unwrap();
    // The node stays the file that it was.
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    guest.open(node, libc::O_RDONLY).unwrap();
    let _ = guest.send(GETATTR, node, &fields().u64(0).u64(0).0);
}
