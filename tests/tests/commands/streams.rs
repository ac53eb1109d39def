//! Bytes in and out: all of them, in order, with their ends.

use sha2::{Digest, Sha256};

use crate::shared::{dctl, shared};

/// How much goes through: more than any buffer on the way holds.
const LENGTH: usize = 24 << 20;

/// Bytes in which a lost or doubled piece shows.
fn numbered(length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|number: u32| format!("{number:07}\n").into_bytes());
    lines.take(length).collect()
}

#[test]
fn megabytes_come_out_whole() {
    let script = format!(
        "yes 0123456789 | head -c {LENGTH} | tee /dev/stderr | sha256sum > /sum; cat /sum >&2"
    );
    let said = dctl(&["run", "--rm", &shared().busybox, "sh", "-c", &script]).success();
    assert_eq!(said.stdout.len(), 0, "the pipe ate stdout");
    let (bytes, sum) = said.stderr.split_at(LENGTH);
    let sum = String::from_utf8_lossy(sum);
    assert_eq!(
        sum.split_whitespace().next().unwrap(),
        hex::encode(Sha256::digest(bytes))
    );
}

#[test]
fn megabytes_go_in_and_come_out_again() {
    let input = numbered(LENGTH);
    let said = shared()
        .installation
        .dctl_with_input(&["run", "--rm", "-i", &shared().busybox, "cat"], &input)
        .success();
    assert_eq!(said.stdout.len(), input.len());
    assert!(said.stdout == input, "bytes were changed on the way");
}

#[test]
fn without_i_nothing_is_read() {
    let said = shared()
        .installation
        .dctl_with_input(&["run", "--rm", &shared().busybox, "cat"], b"not for you")
        .success();
    assert_eq!(said.stdout, b"");
}

#[test]
fn the_end_of_input_is_an_end() {
    let said = shared().installation.dctl_with_input(
        &[
            "run",
            "--rm",
            "-i",
            &shared().busybox,
            "sh",
            "-c",
            "cat > /dev/null; echo after",
        ],
        b"",
    );
    assert_eq!(said.success().text(), "after");
}

#[test]
fn a_command_that_does_not_read_ends_all_the_same() {
    let said = shared().installation.dctl_with_input(
        &["run", "--rm", "-i", &shared().busybox, "true"],
        &numbered(8 << 20),
    );
    assert_eq!(said.code(), 0, "{said}");
}

#[test]
fn both_streams_stay_apart() {
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done";
    let said = dctl(&["run", "--rm", &shared().busybox, "sh", "-c", script]).success();
    assert_eq!(said.text(), "out 1\nout 2\nout 3\nout 4\nout 5");
    assert_eq!(said.error(), "err 1\nerr 2\nerr 3\nerr 4\nerr 5");
}
