//! A layer's archive, unpacked for real. Whatever it holds: no panic, no memory
//! without bound, nothing outside its directory touched; and what is accepted is
//! given back byte for byte.
//!
//! Meant to run as root, who alone could do harm; for anybody else most entries
//! end with the change of their owner.

#![no_main]

use std::{fs, os::fd::AsFd};

use libfuzzer_sys::fuzz_target;

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/images"]
#[allow(dead_code, unused_imports)]
mod images {
    pub mod overlay;
    mod space;
    pub mod unpack;
}

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("layer")).expect("a directory");
    fs::write(at("outside"), "precious").expect("a file");
    let layer = fs::File::open(at("layer")).expect("a directory");
    // Ends after the input: endless zeros are no archive either.
    let stream = dctl_fuzz::with_check_sums(bytes);
    let stream = &stream[..stream.len().min(1 << 20)];
    if images::unpack::unpack(stream, layer.as_fd()).is_ok() {
        let mut rebuilt = Vec::new();
        images::unpack::rebuild(layer.as_fd(), &mut rebuilt).expect("the archive again");
        assert!(rebuilt == stream, "another archive was given back");
    }
    assert_eq!(fs::read(at("outside")).expect("the file"), b"precious");
    let names = fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(names, 2, "something was made beside the layer");
});
