//! What keeps a machine from running is said at once and clearly.

use std::{fs, process::Stdio, time::Duration};

use dctl_machine::{DriverKind, Error, Paths, RunState, Settings, doctor};
use dctl_vmm::control::Client;
use libtest_mimic::Trial;
use rustix::fs::{FlockOperation, flock};

use crate::{
    home::{Home, SOON},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("failures::a_lock_held_by_a_stranger", lock_held),
        trial("failures::settings_that_cannot_be", bad_settings),
        trial("failures::a_machine_that_is_off", off),
        trial("failures::without_kvm_and_qemu", nothing_to_run_on),
        trial("failures::doctor_agrees_with_the_choice", doctor_agrees),
    ]
}

/// A lock without a control socket: a monitor that hangs. Nothing is started.
async fn lock_held(home: Home) {
    let machine = home.machine(DriverKind::Qemu);
    fs::create_dir_all(machine.files().runtime()).unwrap();
    fs::set_permissions(
        home.paths.runtime(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let lock = fs::File::create(machine.files().lock()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = machine.ensure_running().await.unwrap_err();
    assert!(matches!(error, Error::Unresponsive { .. }), "{error}");
    assert!(!machine.files().config().exists());
    let error = machine.remove().await.unwrap_err();
    assert!(matches!(error, Error::Running(_)), "{error}");
}

async fn bad_settings(home: Home) {
    let machine = home.machine(DriverKind::Qemu);
    fs::write(machine.files().settings(), "cpus = 1000").unwrap();
    let error = machine.ensure_running().await.unwrap_err();
    assert!(error.to_string().contains("machine.toml"), "{error}");
    let error = machine.status().await.unwrap_err();
    assert!(matches!(error, Error::Settings { .. }), "{error}");
}

async fn off(home: Home) {
    let machine = home.open();
    let status = machine.status().await.unwrap();
    assert_eq!(status.state, RunState::Off);
    assert_eq!(status.disk_size, 0);
    machine.stop(Duration::ZERO).await.unwrap();
    let error = machine.connect(1024).await.unwrap_err();
    assert!(matches!(error, Error::NotRunning(_)), "{error}");
    assert!(machine.console_log().await.unwrap().is_empty());
    // Nothing was made by asking.
    assert!(!machine.files().directory().exists());
}

/// A process with an empty PATH, where KVM is forced: whichever of the two is
/// missing here, the error names the way out.
async fn nothing_to_run_on(home: Home) {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failures::doctor_agrees_with_the_choice"])
        .env("PATH", "")
        .env("DCTL_DRIVER", "qemu")
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(SOON, output).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("apt install qemu-system-x86"), "{text}");
}

/// The report says what a boot would do.
async fn doctor_agrees(home: Home) {
    let report = doctor::report(&home.paths).await;
    println!("{report}");
    let driver = report
        .checks
        .iter()
        .find(|check| check.name == "driver")
        .unwrap();
    assert!(
        driver.detail.starts_with("kvm, ") || driver.detail.starts_with("qemu, "),
        "{report}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][0]["health"], "ok", "{json}");
    // The second time the probe's verdict comes from the cache.
    let again = doctor::report(&home.paths).await;
    assert_eq!(again.checks, report.checks);
    let _ = (Settings::default(), Paths::under(home.path()));
    let _ = Client::connect(&home.path().join("none"), SOON).unwrap_err();
}
