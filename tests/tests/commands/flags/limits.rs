//! Memory, CPU, processes, disks: the limits are set, and they bite.

use tests::command::LONG;

use super::{has_lines, inside, run};
use crate::shared::{Name, dctl, shared};

#[test]
fn limits_are_those_of_the_cgroup() {
    let said = inside(
        &[
            "-m=64m",
            "--memory-swap=96m",
            "--memory-reservation=32m",
            "--cpu-shares=512",
            "--cpus=0.5",
            "--cpuset-cpus=0",
            "--cpuset-mems=0",
            "--pids-limit=20",
            "--blkio-weight=500",
            "--blkio-weight-device=/dev/vda:200",
            "--device-read-bps=/dev/vda:1mb",
            "--device-write-bps=/dev/vda:2mb",
            "--device-read-iops=/dev/vda:30",
            "--device-write-iops=/dev/vda:40",
            "--oom-score-adj=-300",
            "--kernel-memory=50m",
        ],
        "cd /sys/fs/cgroup; for f in memory.max memory.swap.max memory.low cpu.max cpuset.cpus \
         cpuset.mems pids.max; do echo $f $(cat $f); done; cat io.weight; cat io.max; \
         echo weight $(cat cpu.weight); echo score $(cat /proc/self/oom_score_adj); nproc; \
         echo disk $(cat /sys/block/vda/dev)",
    );
    let disk = said
        .lines()
        .find_map(|line| line.strip_prefix("disk "))
        .unwrap();
    has_lines(
        &said,
        &[
            "memory.max 67108864",
            "memory.swap.max 33554432",
            "memory.low 33554432",
            "cpu.max 50000 100000",
            "cpuset.cpus 0",
            "cpuset.mems 0",
            "pids.max 20",
            "default 4950",
            &format!("{disk} rbps=1048576 wbps=2097152 riops=30 wiops=40"),
            "weight 59",
            "score -300",
            "1",
        ],
    );
}

#[test]
fn a_quota_of_20_ms_in_each_100_is_a_fifth_of_a_cpu() {
    let said = inside(
        &["--cpu-period=100000", "--cpu-quota=20000"],
        "stat() { while read name value; do [ $name = $1 ] && echo $value; done \
         < /sys/fs/cgroup/cpu.stat; }; \
         now() { read up idle < /proc/uptime; echo ${up/./}; }; \
         cat /sys/fs/cgroup/cpu.max; u=$(stat usage_usec); t=$(now); \
         timeout 4 sh -c 'while :; do :; done'; \
         echo $(( $(stat usage_usec) - u )) $(( $(now) - t )) $(stat nr_throttled)",
    );
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("20000 100000"));
    let numbers: Vec<f64> = lines
        .next()
        .unwrap()
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    // Microseconds of CPU, hundredths of a second.
    let share = numbers[0] / (numbers[1] * 10_000.0);
    // A host that is busy gives less; nothing gives more.
    assert!((0.04..0.26).contains(&share), "{share}: {said}");
    assert!(numbers[2] > 2.0, "{said}");
}

#[test]
fn memory_beyond_the_limit_ends_in_oom() {
    let name = Name::new();
    let name = name.as_str();
    let mut events = shared().installation.start(&[
        "events",
        "--filter",
        &format!("container={name}"),
        "--filter",
        "event=oom",
        "--format",
        "{{.Action}}",
    ]);
    let busybox = &shared().busybox;
    let ended = dctl(&[
        "run",
        "--name",
        name,
        "-m=16m",
        "--memory-swap=16m",
        busybox,
        "tail",
        "/dev/zero",
    ]);
    assert_eq!(ended.code(), 137, "{ended}");
    let state = "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}";
    assert_eq!(
        shared().installation.inspect(name, state),
        "true 137 exited"
    );
    events.wait_for_output("oom", LONG);

    // One that had enough was not killed, after one that had not.
    let other = Name::new();
    dctl(&["run", "--name", other.as_str(), "-m=16m", busybox, "true"]).success();
    assert_eq!(
        shared()
            .installation
            .inspect(other.as_str(), "{{.State.OOMKilled}}"),
        "false"
    );
}

#[test]
fn a_fork_bomb_stops_at_the_limit() {
    // The shell's own commands only: there is no process left for others.
    let ended = run(
        &["--pids-limit=16"],
        "(for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 60 & done) \
         2>/dev/null; while read line; do echo $line; done < /sys/fs/cgroup/pids.peak; \
         while read line; do echo $line; done < /sys/fs/cgroup/pids.events",
    );
    let said = ended.success().text();
    let peak: u32 = said.lines().next().unwrap().parse().unwrap();
    assert_eq!(peak, 16, "{said}");
    let refused: u32 = said
        .lines()
        .find_map(|line| line.strip_prefix("max "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(refused > 0, "{said}");
}

#[test]
fn disks_are_as_slow_as_they_are_told() {
    let measure = "now() { read up idle < /proc/uptime; echo ${up/./}; }; t=$(now); \
        dd if=/dev/zero of=/file bs=64k count=48 oflag=direct 2>/dev/null || exit 1; \
        echo written $(( $(now) - t )); t=$(now); \
        dd if=/file of=/dev/null bs=64k iflag=direct 2>/dev/null || exit 1; \
        echo read $(( $(now) - t ))";
    let time = |said: &str, what: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(what));
        line.unwrap().trim().parse::<f64>().unwrap() / 100.0
    };
    // Hosts that are busy are slower: there is no upper bound.
    // 3 MiB at 1 MiB a second.
    let said = inside(
        &[
            "--device-write-bps=/dev/vda:1mb",
            "--device-read-bps=/dev/vda:1mb",
        ],
        measure,
    );
    assert!(time(&said, "written") > 2.0, "{said}");
    assert!(time(&said, "read") > 2.0, "{said}");
    let throttled = time(&said, "written") + time(&said, "read");
    // 48 operations, 20 a second.
    let said = inside(
        &[
            "--device-write-iops=/dev/vda:20",
            "--device-read-iops=/dev/vda:20",
        ],
        measure,
    );
    assert!(time(&said, "written") > 1.5, "{said}");
    assert!(time(&said, "read") > 1.5, "{said}");
    let said = inside(&[], measure);
    let free = time(&said, "written") + time(&said, "read");
    assert!(free < throttled / 2.0, "{free} of {throttled}: {said}");
}

#[test]
fn what_the_kernel_has_not_is_left_out_with_a_warning() {
    let ended = run(
        &["--memory-swappiness=10", "--oom-kill-disable"],
        "echo ran",
    )
    .success();
    assert_eq!(ended.text(), "ran");
    let warnings = ended.error();
    assert!(warnings.contains("Memory swappiness discarded"), "{ended}");
    assert!(warnings.contains("OomKillDisable discarded"), "{ended}");
}

#[test]
fn ulimits_and_shared_memory() {
    let said = inside(
        &[
            "--ulimit=nofile=100:200",
            "--ulimit=core=0",
            "--ulimit=nproc=-1",
            "--shm-size=1m",
        ],
        "ulimit -n; ulimit -Hn; ulimit -c; ulimit -u; df -k /dev/shm | tail -1",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..4], ["100", "200", "0", "unlimited"], "{said}");
    assert!(lines[4].contains(" 1024 "), "{said}");
}
