//! Any requests of a guest to the file-share server, in any order, on real files: it may
//! not panic, answers are of the right form, and nothing beside the share changes.
#![no_main]

use std::{fs, os::unix::fs::symlink, path::Path};

use dctl_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use shares::{ExportOptions, Limits, Outcome, Server, open_root};

/// Requests of one input.
const MOST: usize = 64;

/// Names that lead somewhere, or must not.
const NAMES: [&[u8]; 8] = [b"f", b"d", b"l", b"new", b"..", b"../secret", b"fifo", b""];

thread_local! {
    static FOLDER: tempfile::TempDir = {
        let folder = tempfile::tempdir().expect("there is room");
        fs::write(folder.path().join("secret"), "secret").expect("there is room");
        folder
    };
}

/// What every input begins with.
fn fill(share: &Path) {
    let _ = fs::remove_dir_all(share);
    fs::create_dir_all(share.join("d")).expect("there is room");
    fs::write(share.join("f"), "text").expect("there is room");
    symlink("../secret", share.join("l")).expect("there is room");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        share.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("there is room");
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    FOLDER.with(|folder| {
        let limits = Limits {
            handles: 100,
            inodes: 1000,
            descriptors: 50,
            ..Limits::default()
        };
        let server = Server::new(limits).expect("there is /proc");
        let share = folder.path().join("share");
        fill(&share);
        let root = open_root(&share).expect("it is there");
        let options = ExportOptions {
            read_only: input.number(1) & 1 == 1,
            ..ExportOptions::default()
        };
        let read_only = options.read_only;
        server
            .add_export("share", root, options)
            .expect("it is a directory");
        send(&server, 1, 1, 0, b"share\0");
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            request(&mut input, &server);
        }
        server.remove_export("share").expect("it was added");
        server.reset();
        let counts = server.counts();
        assert_eq!((counts.inodes, counts.handles), (0, 0));
        let secret = fs::read(folder.path().join("secret"));
        assert_eq!(secret.expect("it is there"), b"secret");
        if read_only {
            assert_eq!(fs::read(share.join("f")).expect("it is there"), b"text");
        }
    });
});

/// A request: fields as they come, with small numbers and names that mean something.
fn request(input: &mut Input<'_>, server: &Server) {
    let opcode = input.number(1) as u32 % 64;
    let node = input.number(1) % 16;
    let user = match input.number(1) as u32 {
        user @ 0..6 => 0xffff_fe00 + user,
        user => user % 2 * 1000,
    };
    let mut body = Vec::new();
    let parts = input.number(1) % 8;
    for _ in 0..parts {
        match input.number(1) {
            0..64 => body.extend((input.number(1) as u32 % 8).to_ne_bytes()),
            64..112 => body.extend((input.number(1) % 16).to_ne_bytes()),
            112..144 => body.extend(input.number(8).to_ne_bytes()),
            144..160 => body.extend((input.number(4) as u32).to_ne_bytes()),
            160..176 => body.extend(0o100_644_u32.to_ne_bytes()),
            176..240 => {
                body.extend(NAMES[input.number(1) as usize % NAMES.len()]);
                body.push(0);
            }
            _ => body.extend([0; 24]),
        }
    }
    send(server, opcode, node, user, &body);
}

fn send(server: &Server, opcode: u32, node: u64, user: u32, body: &[u8]) {
    let mut bytes = Vec::with_capacity(40 + body.len());
    bytes.extend((40 + body.len() as u32).to_ne_bytes());
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(7_u64.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.extend(user.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(body);
    let mut reply = vec![0; 1 << 16];
    match server.handle(&bytes.as_slice(), &mut reply.as_mut_slice()) {
        Outcome::Reply(length) => {
            assert!((16..=reply.len()).contains(&length));
            assert_eq!(reply[..4], (length as u32).to_ne_bytes());
            assert_eq!(reply[8..16], 7_u64.to_ne_bytes());
        }
        Outcome::None => {}
        Outcome::Pending(mut pending) => {
            let _ = pending.attempt();
        }
    }
}
