//! Boots of the embedded guest.

use std::{
    fs,
    time::{Duration, Instant},
};

use dctl_machine::{Error, RunState, Stage};
use guest_protocol::AGENT_PORT;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    home::{Home, SOON},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("boots::once_for_all_callers_and_powers_off", once_for_all),
        trial("boots::stop_before_ready", stop_before_ready),
        trial("boots::two_processes_start_one_machine", two_processes),
        trial(
            "boots::a_killed_monitor_is_noticed_and_replaced",
            killed_monitor,
        ),
        trial(
            "boots::a_monitor_that_hangs_is_stopped_by_force",
            hung_monitor,
        ),
    ]
}

/// Concurrent callers share a boot; the agent can be reached; status tells; a stop
/// is orderly; nothing is left; the machine can be removed, once it is off.
async fn once_for_all(home: Home) {
    let machine = home.machine();
    let mut stages = machine.stages();
    let clone = machine.clone();
    let (first, second, third) = tokio::join!(
        machine.ensure_running(),
        machine.ensure_running(),
        clone.ensure_running(),
    );
    first.unwrap();
    second.unwrap();
    third.unwrap();
    assert_eq!(*stages.borrow_and_update(), Stage::Running);

    drop(machine.connect(AGENT_PORT).await.unwrap());
    let refused = machine.connect(9).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { port: 9 }), "{refused}");

    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Running);
    assert!(status.driver.is_some());
    assert_eq!((status.cpus, status.memory_mib), (2, 512));
    assert_eq!(status.disk_size, 8 << 30);
    assert!(status.disk_used < 1 << 30, "{}", status.disk_used);
    assert!(status.uptime_ms.is_some() && status.process_id.is_some());
    assert!(status.balloon.is_some());
    let error = machine.remove().await.unwrap_err();
    assert!(matches!(error, Error::Running(_)), "{error}");

    machine.stop(SOON).await.unwrap();
    assert_eq!(*stages.borrow_and_update(), Stage::Off);
    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Off);
    assert_eq!(status.last_exit.as_deref(), Some("the machine powered off"));
    let error = machine.connect(AGENT_PORT).await.unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }), "{error}");
    let sockets: Vec<_> = fs::read_dir(machine.files().runtime())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("qemu") || name.contains("vhost"))
        .collect();
    assert!(sockets.is_empty(), "{sockets:?}");

    machine.remove().await.unwrap();
    assert!(!machine.files().directory().exists());
    assert!(!machine.files().runtime().exists());
}

/// A stop while it boots ends the boot, and those who wait for it are told.
async fn stop_before_ready(home: Home) {
    let machine = home.machine();
    let mut stages = machine.stages();
    let boot = tokio::spawn({
        let machine = machine.clone();
        async move { machine.ensure_running().await }
    });
    stages
        .wait_for(|stage| matches!(stage, Stage::Booting(_)))
        .await
        .unwrap();
    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Starting);
    assert!(status.driver.is_some());
    machine.stop(Duration::ZERO).await.unwrap();
    let error = boot.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert_eq!(machine.status().await.unwrap().state, RunState::Off);
    // A second stop has nothing to do.
    machine.stop(Duration::ZERO).await.unwrap();
}

/// Two handles that know nothing of each other, as two engines would: one starts
/// the machine, the other finds it.
async fn two_processes(home: Home) {
    let first = home.machine();
    let second = home.machine();
    let (one, other) = tokio::join!(first.ensure_running(), second.ensure_running());
    one.unwrap();
    other.unwrap();
    let process = |status: dctl_machine::Status| status.process_id.unwrap();
    assert_eq!(
        process(first.status().await.unwrap()),
        process(second.status().await.unwrap())
    );
    // A third that comes much later, too.
    let third = home.open();
    third.ensure_running().await.unwrap();
    drop(third.connect(AGENT_PORT).await.unwrap());

    // Whoever stops it, all learn of it.
    let mut stages = first.stages();
    second.stop(SOON).await.unwrap();
    let off = stages.wait_for(|stage| *stage == Stage::Off);
    tokio::time::timeout(SOON, off).await.unwrap().unwrap();
}

/// kill -9: what is left is cleaned up, QEMU does not outlive the monitor, and the
/// next boot works.
async fn killed_monitor(home: Home) {
    let machine = home.machine();
    machine.ensure_running().await.unwrap();
    let process = machine.status().await.unwrap().process_id.unwrap();
    let mut stages = machine.stages();
    kill_process(Pid::from_raw(process as i32).unwrap(), Signal::KILL).unwrap();
    let off = stages.wait_for(|stage| *stage == Stage::Off);
    drop(tokio::time::timeout(SOON, off).await.unwrap().unwrap());
    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Off);
    assert!(status.last_exit.unwrap().contains("signal 9"));
    wait_for_processes_to_end(&home);
    // What it left is in the next one's way.
    assert!(machine.files().control_socket().exists());

    machine.ensure_running().await.unwrap();
    drop(machine.connect(AGENT_PORT).await.unwrap());
    machine.stop(SOON).await.unwrap();
}

/// A monitor that answers nothing any more is told from one that runs, and ends.
async fn hung_monitor(home: Home) {
    let machine = home.machine();
    machine.ensure_running().await.unwrap();
    let process = machine.status().await.unwrap().process_id.unwrap();
    let pid = Pid::from_raw(process as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Unresponsive);
    assert_eq!(status.process_id, Some(process));
    machine.stop(SOON).await.unwrap();
    assert_eq!(machine.status().await.unwrap().state, RunState::Off);
    wait_for_processes_to_end(&home);
}

/// Waits until no process has this home in its command line: neither a monitor nor
/// QEMU, which has its kernel from there.
fn wait_for_processes_to_end(home: &Home) {
    let until = Instant::now() + SOON;
    let needle = home.path().to_str().unwrap().as_bytes();
    loop {
        let left: Vec<_> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
            .filter(|line| line.windows(needle.len()).any(|window| window == needle))
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
