//! Machines by name: made, changed while they run, emptied, moved, removed.

use std::os::unix::fs::MetadataExt;

use tests::Installation;

/// An installation with a machine `dev` that has little of everything.
fn installation() -> Installation {
    let installation = Installation::new();
    let sizes = ["--cpus", "1", "--memory", "512m", "--disk", "1g"];
    let create = [&["machine", "create", "dev"][..], &sizes].concat();
    installation.dctl(&create).success();
    installation
}

/// Blocks of 512 bytes that the disk of `dev` takes on the host.
fn blocks(installation: &Installation) -> u64 {
    let disk = installation.home().join("data/machines/dev/data.raw");
    std::fs::metadata(disk).unwrap().blocks()
}

#[test]
fn a_machine_lives_through_all_that_can_be_done_to_it() {
    let installation = installation();
    let dctl = |arguments: &[&str]| installation.dctl(arguments);
    let shell = |script: &str| {
        dctl(&["--machine", "dev", "machine", "shell", "sh", "-c", script])
            .success()
            .text()
    };
    let size = || {
        shell("cat /sys/block/vda/size")
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let capacity = || {
        let blocks = shell("stat -f -c %b /data");
        blocks.trim().parse::<u64>().unwrap() * 4096
    };
    dctl(&["--machine", "dev", "run", "--rm", "hello"]).success();
    // Each machine has an engine, and only this one was wanted.
    assert!(
        installation
            .home()
            .join("run/engines/dev/docker.sock")
            .exists()
    );
    assert!(!installation.socket().exists());
    let listed = dctl(&["machine", "ls", "--format", "{{.Name}} {{.State}}"]);
    assert_eq!(listed.success().text(), "default off\ndev running");

    // The disk grows at once, file system and all; memory waits for the next start.
    assert_eq!(size(), 1 << 21);
    let said = dctl(&["machine", "set", "dev", "--disk", "3g"]).success();
    assert!(said.error().is_empty(), "{said}");
    assert_eq!(size(), 3 << 21);
    assert!(capacity() > 5 << 29, "{} bytes", capacity());
    let said = dctl(&["machine", "set", "dev", "--memory", "600m"]).success();
    assert!(said.error().contains("next start"), "{said}");
    let refused = dctl(&["machine", "set", "dev", "--disk", "2g"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.error().contains("cannot shrink"), "{refused}");

    // What is freed inside leaves the host's file.
    shell("dd if=/dev/urandom of=/data/fill bs=1M count=48 2> /dev/null; sync");
    let filled = blocks(&installation);
    shell("rm /data/fill; sync");
    tests::installation::wait_until(
        "the space is the host's again",
        tests::command::LONG,
        || blocks(&installation) + (40 << 11) < filled,
    );

    let running = dctl(&["machine", "export", "dev", "-o", "/dev/null"]);
    assert!(running.error().contains("stop it first"), "{running}");
    dctl(&["machine", "stop", "dev"]).success();
    let file = installation.home().join("dev.machine");
    let file = file.to_str().unwrap();
    dctl(&["machine", "export", "dev", "-o", file]).success();

    let copy = dctl(&["machine", "import", file, "--name", "copy"]).success();
    assert_eq!(copy.text(), "copy");
    let taken = dctl(&["machine", "import", file]);
    assert!(taken.error().contains("exists already"), "{taken}");
    let images = ["--machine", "copy", "images", "--format", "{{.Repository}}"];
    assert_eq!(dctl(&images).success().text(), "hello");
    let memory = "grep MemTotal /proc/meminfo";
    let counted = dctl(&["--machine", "copy", "machine", "shell", "sh", "-c", memory]).success();
    let kib = counted.text().split_whitespace().nth(1).map(str::to_owned);
    assert!(
        kib.unwrap().parse::<u64>().unwrap() > 520 << 10,
        "{counted}"
    );

    assert_ne!(dctl(&["machine", "reset", "copy"]).code(), 0);
    dctl(&["machine", "reset", "--force", "copy"]).success();
    assert_eq!(dctl(&images).success().text(), "");
    for name in ["copy", "dev"] {
        dctl(&["machine", "rm", "--force", name]).success();
        let engine = installation.home().join("run/engines").join(name);
        assert!(!engine.exists(), "{} is left over", engine.display());
    }
    let listed = dctl(&["machine", "ls", "--quiet"]).success();
    assert_eq!(listed.text(), "default");
    let gone = dctl(&["--machine", "dev", "ps"]);
    assert!(gone.error().contains("no such machine: dev"), "{gone}");
}

#[test]
fn a_damaged_file_makes_no_machine() {
    let installation = installation();
    let file = installation.home().join("dev.machine");
    let path = file.to_str().unwrap();
    installation
        .dctl(&["machine", "export", "dev", "-o", path])
        .success();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = installation.dctl(&["machine", "import", path, "--name", "copy"]);
    assert_eq!(refused.code(), 1, "{refused}");
    assert!(refused.error().contains("damaged"), "{refused}");
    let stream = installation.dctl_with_input(&["machine", "import", "-", "--name", "b"], &whole);
    assert_eq!(stream.success().text(), "b");
    let listed = installation.dctl(&["machine", "ls", "-q"]).success();
    assert_eq!(listed.text(), "b\ndefault\ndev");
}

#[test]
fn what_no_machine_can_have_is_refused() {
    let installation = Installation::new();
    for (arguments, says) in [
        (&["machine", "create", "A"][..], "not a machine name"),
        (
            &["machine", "create", "a", "--cpus", "200"],
            "this host has",
        ),
        (&["machine", "create", "a", "--memory", "1m"], "memory-mib"),
        (&["machine", "create", "a", "--memory", "900000g"], "memory"),
        (
            &["machine", "create", "a", "--disk", "512m"],
            "whole number of GiB",
        ),
        (&["machine", "set"], "nothing to change"),
        (&["machine", "inspect", "a"], "no such machine"),
        (&["machine", "start", "a"], "no such machine"),
    ] {
        let refused = installation.dctl(arguments);
        assert_ne!(refused.code(), 0, "{refused}");
        assert!(refused.error().contains(says), "{refused}");
    }
    let listed = installation.dctl(&["machine", "ls", "-q"]).success();
    assert_eq!(listed.text(), "default");
}
