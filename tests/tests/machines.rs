//! Machines of given sizes: they boot on the driver that they should, have the
//! processors they were given, run a container, and give memory back.
//!
//! `DCTL_TEST_DRIVER` names the driver that has to be chosen, by the probe and not
//! by force: the lab has KVM and no excuse. Without it any driver will do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{fs, time::Duration};

use tests::{Installation, installation::wait_until};

#[test]
fn one_processor() {
    boots_with(1);
}

#[test]
fn two_processors() {
    boots_with(2);
}

/// Boots through `dctl run`, and looks at what came of it.
fn boots_with(processors: u8) {
    let installation = of_size(processors, 512);
    let said = installation
        .dctl(&["run", "--rm", "hello"])
        .success()
        .text();
    assert!(said.contains("Hello"), "{said}");
    let script = "grep -c ^processor /proc/cpuinfo";
    let counted = installation
        .dctl(&["machine", "shell", "sh", "-c", script])
        .success()
        .text();
    assert_eq!(counted.trim(), processors.to_string());
    let status = installation
        .dctl(&["machine", "status", "--format", "json"])
        .success()
        .text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let driver = status["driver"]["driver"].as_str();
    match std::env::var("DCTL_TEST_DRIVER") {
        Ok(expected) => assert_eq!(driver, Some(expected.as_str()), "{status}"),
        Err(_) => assert!(driver.is_some(), "{status}"),
    }
}

/// What the guest frees leaves the host's memory, without anybody asking for it.
#[test]
fn freed_memory_is_given_back() {
    const FILLED: u64 = 256 << 20;
    let installation = of_size(2, 1024);
    let shell = |script: &str| {
        installation
            .dctl(&["machine", "shell", "sh", "-c", script])
            .success();
    };
    shell("mkdir -p /run/fill && mount -t tmpfs -o size=50% fill /run/fill");
    let before = installation.resident_memory();
    shell(&format!(
        "dd if=/dev/zero of=/run/fill/file bs=1M count={}",
        FILLED >> 20
    ));
    let filled = installation.resident_memory();
    assert!(
        filled >= before + FILLED * 3 / 4,
        "{before} bytes, {filled} when filled"
    );
    shell("rm /run/fill/file && umount /run/fill");
    wait_until(
        "the memory is the host's again",
        Duration::from_mins(1),
        || installation.resident_memory() <= filled - FILLED * 3 / 4,
    );
}

/// An installation whose machine has these processors and this memory (MiB).
fn of_size(processors: u8, memory: u32) -> Installation {
    let installation = Installation::new();
    let machine = installation.home().join("data/machines/default");
    fs::create_dir_all(&machine).unwrap();
    fs::write(
        machine.join("machine.toml"),
        format!("cpus = {processors}\nmemory-mib = {memory}\n"),
    )
    .unwrap();
    installation
}
