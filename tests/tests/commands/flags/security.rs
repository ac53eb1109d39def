//! Capabilities, system calls, devices, and what of `/proc` and `/sys` is hidden.

use std::io::Write as _;

use super::{has_lines, inside, run};

/// The kernel's own account of a process.
const STATUS: &str = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";

#[test]
fn capabilities_are_added_and_dropped() {
    has_lines(
        &inside(&[], STATUS),
        &[
            "CapEff:\t00000000a80425fb",
            "CapBnd:\t00000000a80425fb",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
        ],
    );
    has_lines(
        &inside(
            &[
                "--cap-drop=ALL",
                "--cap-add=chown",
                "--cap-add=CAP_NET_ADMIN",
                "--security-opt=no-new-privileges",
            ],
            STATUS,
        ),
        &[
            "CapEff:\t0000000000001001",
            "CapBnd:\t0000000000001001",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ],
    );
    has_lines(
        &inside(
            &[
                "--cap-add=ALL",
                "--cap-drop=MKNOD",
                "--security-opt=seccomp=unconfined",
                "--security-opt=apparmor=unconfined",
                "--security-opt=label=disable",
            ],
            STATUS,
        ),
        &["CapEff:\t000001fff7ffffff", "Seccomp:\t0"],
    );
    // Those of an ordinary user take effect only through programs.
    has_lines(
        &inside(&["-u=user"], STATUS),
        &["CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb"],
    );
}

#[test]
fn a_privileged_container_has_everything() {
    let said = inside(
        &["--privileged"],
        &format!(
            "{STATUS}; grep ' /sys ' /proc/mounts; grep -c ' /proc/' /proc/mounts; \
             mount -t tmpfs x /mnt 2>/dev/null || mount -t tmpfs x /tmp && echo mounted; \
             test -b /dev/vda && dd if=/dev/vda of=/dev/null bs=4k count=1 2>/dev/null && echo disk; \
             echo 7 > /proc/sys/kernel/printk_ratelimit && echo writable"
        ),
    );
    has_lines(
        &said,
        &[
            "CapEff:\t000001ffffffffff",
            "Seccomp:\t0",
            "0",
            "mounted",
            "disk",
            "writable",
        ],
    );
    assert!(said.contains("sysfs rw,"), "{said}");
}

#[test]
fn the_machine_is_hidden_unless_told_otherwise() {
    let look = "wc -c < /proc/kcore; ls /sys/firmware | wc -l; wc -c < /proc/keys; \
        (echo 7 > /proc/sys/kernel/printk_ratelimit) 2>/dev/null || echo 'not writable'; \
        (echo h > /proc/sysrq-trigger) 2>/dev/null || echo 'no keys'; \
        for p in bus fs irq sys sysrq-trigger; do grep -q \" /proc/$p proc ro,\" /proc/mounts && echo $p; done; \
        grep ' /sys ' /proc/mounts";
    let said = inside(&[], look);
    has_lines(
        &said,
        &[
            "0",
            "not writable",
            "no keys",
            "bus",
            "fs",
            "irq",
            "sys",
            "sysrq-trigger",
        ],
    );
    assert!(said.contains("sysfs ro,"), "{said}");
    let said = inside(
        &["--security-opt=systempaths=unconfined"],
        "grep -c ' /proc/' /proc/mounts; echo 5 > /proc/sys/kernel/printk_ratelimit && echo writable",
    );
    has_lines(&said, &["0", "writable"]);
}

#[test]
fn a_seccomp_profile_of_ones_own() {
    let mut profile = tempfile::NamedTempFile::new().unwrap();
    profile
        .write_all(
            br#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30, "comment": "no folders"},
        {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
         "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]}
    ]
}"#,
        )
        .unwrap();
    let option = format!("--security-opt=seccomp={}", profile.path().display());
    let said = inside(
        &[&option],
        "grep Seccomp: /proc/self/status; mkdir /x 2>&1; touch /y && echo touched; \
         kill -12 $$ 2>&1; kill -0 $$ && echo alive",
    );
    has_lines(&said, &["Seccomp:\t2", "touched", "alive"]);
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains("Function not implemented"), "{said}");

    // The default one refuses what Docker's does.
    let said = inside(
        &["--cap-add=SYS_TIME"],
        "unshare -U true 2>&1; date -s @0 > /dev/null 2>&1; echo $?",
    );
    assert!(said.contains("Operation not permitted"), "{said}");
    assert!(said.ends_with('0'), "CAP_SYS_TIME opens its calls: {said}");

    profile.write_all(b"}").unwrap();
    run(&[&option], "true").fails_with(125, "compacting json for seccomp profile");
    let mut none = tempfile::NamedTempFile::new().unwrap();
    none.write_all(br#"{"defaultAction": "ALLOW"}"#).unwrap();
    let option = format!("--security-opt=seccomp={}", none.path().display());
    run(&[&option], "true").fails_with(125, "ALLOW is not a valid action for seccomp");
}

#[test]
fn devices_are_given_with_permissions() {
    let said = inside(
        &["--device=/dev/vda:/dev/disk:r"],
        "dd if=/dev/disk of=/dev/null bs=4k count=1 2>/dev/null && echo read; \
         dd if=/dev/zero of=/dev/disk bs=4k count=0 conv=notrunc 2>&1; true",
    );
    has_lines(&said, &["read"]);
    assert!(said.contains("Operation not permitted"), "{said}");
    // A node that the container makes itself opens by a rule.
    let number = inside(&[], "cat /sys/block/vda/dev");
    let (major, minor) = number.split_once(':').unwrap();
    let make = format!(
        "mknod /disk b {major} {minor} && dd if=/disk of=/dev/null bs=4k count=1 2>/dev/null \
         && echo read || echo refused"
    );
    assert_eq!(inside(&[], &make), "refused");
    let rule = format!("--device-cgroup-rule=b {major}:* r");
    assert_eq!(inside(&[&rule], &make), "read");
    run(&["--device=/dev/no-such"], "true").fails_with(
        125,
        "error gathering device information while adding custom device",
    );
}

#[test]
fn a_read_only_root_and_tmpfs() {
    let said = inside(
        &[
            "--read-only",
            "--tmpfs=/one:size=1m,mode=700,exec",
            "--tmpfs=/two",
        ],
        "touch /x 2>&1; touch /one/x /two/x /dev/shm/x && echo written; \
         grep -E ' /(one|two) ' /proc/mounts; stat -c %a /one",
    );
    assert!(said.contains("Read-only file system"), "{said}");
    has_lines(&said, &["written", "700"]);
    let line = |path: &str| {
        let found = said.lines().find(|line| line.contains(path));
        found.unwrap().to_owned()
    };
    assert!(line(" /one ").contains("size=1024k"), "{said}");
    assert!(!line(" /one ").contains("noexec"), "{said}");
    assert!(line(" /two ").contains("nosuid,nodev,noexec"), "{said}");
}

#[test]
fn groups_and_kernel_parameters() {
    let said = inside(
        &[
            "-u=user",
            "--group-add=nogroup",
            "--group-add=777",
            "--sysctl=net.core.somaxconn=99",
            "--sysctl=kernel.msgmax=4096",
        ],
        "id -G; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax",
    );
    let mut lines = said.lines();
    let groups: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert!(
        groups.contains(&"777") && groups.contains(&"65534") && groups.contains(&"10"),
        "{said}"
    );
    assert_eq!(lines.collect::<Vec<_>>(), ["99", "4096"]);
}
