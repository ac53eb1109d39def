//! What makes no sense, or cannot be had, in the words of Docker.

use super::run;

#[test]
fn bad_options_are_explained() {
    for (options, message) in [
        (&["-m=1m"][..], "Minimum memory limit allowed is 6MB"),
        (
            &["--memory-swap=64m"],
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            &["-m=64m", "--memory-swap=32m"],
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            &["-m=64m", "--memory-reservation=65m"],
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (&["--cpus=4000"], "range of CPUs is from 0.01 to "),
        (
            &["--cpus=1", "--cpu-quota=20000"],
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            &["--cpu-rt-runtime=1000"],
            "kernel does not support CPU real-time scheduler",
        ),
        (
            &["--cpuset-cpus=4000"],
            "Requested CPUs are not available - requested 4000, available: 0",
        ),
        (
            &["--blkio-weight=5"],
            "Range of blkio weight is from 10 to 1000",
        ),
        (
            &["--device-read-bps=/dev/no-such:1mb"],
            "/dev/no-such: No such file or directory",
        ),
        (
            &["--cap-add=NO_SUCH"],
            "invalid CapAdd: unknown capability: \"CAP_NO_SUCH\"",
        ),
        (&["--ipc=foo"], "invalid IPC mode: foo"),
        (
            &["--uts=host", "-h=x"],
            "conflicting options: hostname and the UTS mode",
        ),
        (&["--runtime=foo"], "unknown or invalid runtime name: foo"),
        (
            &["--storage-opt=size=1g"],
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ),
        (
            &["--log-driver=foo"],
            "error looking up logging plugin foo: plugin \"foo\" not found",
        ),
        (
            &["--log-opt=foo=bar"],
            "unknown log opt 'foo' for json-file log driver",
        ),
        (
            &["--sysctl=vm.swappiness=1"],
            "sysctl 'vm.swappiness=1' is not allowed",
        ),
        (
            &["--network=host", "--sysctl=net.core.somaxconn=1"],
            "not allowed in host network namespace",
        ),
        (&["--security-opt=foo"], "invalid --security-opt: \"foo\""),
        (&["--pid=foo"], "--pid: invalid PID mode"),
        (&["--isolation=hyperv"], "linux only supports 'default'"),
        (&["--ulimit=foo=1"], "invalid ulimit type: foo"),
        (&["-p=x:80"], "invalid hostPort: x"),
    ] {
        run(options, "true").fails_with(125, message);
    }
}
