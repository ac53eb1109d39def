//! What keeps a machine from running is said at once and clearly.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{ExitCode, Stdio},
    time::Duration,
};

use dctl_machine::{Error, Paths, RunState, doctor};
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
        trial("failures::without_qemu", without_qemu),
        trial("failures::doctor_agrees_with_the_choice", doctor_agrees),
    ]
}

/// A lock without a control socket: a monitor that hangs. Nothing is started.
async fn lock_held(home: Home) {
    let machine = home.machine();
    fs::create_dir_all(machine.files().runtime()).unwrap();
    fs::set_permissions(home.paths.runtime(), fs::Permissions::from_mode(0o700)).unwrap();
    let lock = fs::File::create(machine.files().lock()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = machine.ensure_running().await.unwrap_err();
    assert!(matches!(error, Error::Unresponsive { .. }), "{error}");
    assert!(!machine.files().config().exists());
    let error = machine.remove().await.unwrap_err();
    assert!(matches!(error, Error::Running(_)), "{error}");
}

async fn bad_settings(home: Home) {
    let machine = home.machine();
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
    // As it will be made.
    assert_eq!(status.disk_size, 64 << 30);
    assert_eq!(status.disk_used, 0);
    machine.stop(Duration::ZERO).await.unwrap();
    let error = machine.connect(1024).await.unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }), "{error}");
    assert!(machine.console_log().await.unwrap().is_empty());
    // Nothing was made by asking.
    assert!(!machine.files().directory().exists());
}

/// Without QEMU in PATH, where it was asked for: the report is broken, says so with
/// its exit code, and names the way out.
async fn without_qemu(home: Home) {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("doctor")
        .env("PATH", home.path())
        .env("DCTL_HOME", home.path())
        .env("DCTL_DRIVER", "qemu")
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(SOON, output).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("[ERROR] driver:"), "{text}");
    assert!(text.contains("apt install qemu-system-x86"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

/// `doctor`, for [`without_qemu`].
pub(crate) fn print_report() -> ExitCode {
    let report = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(doctor::report(&Paths::from_environment().unwrap()));
    println!("{report}");
    ExitCode::from(u8::from(report.is_broken()))
}

/// The report says what a boot would do; the second time the probe's verdict comes
/// from the cache, and is the same.
async fn doctor_agrees(home: Home) {
    let report = doctor::report(&home.paths).await;
    let check = |report: &doctor::Report, name: &str| {
        let found = report.checks.iter().find(|check| check.name == name);
        found.unwrap().clone()
    };
    let kvm = check(&report, "KVM");
    let driver = check(&report, "driver");
    let expected = match kvm.health {
        doctor::Health::Ok => "kvm",
        _ => "qemu",
    };
    assert!(driver.detail.starts_with(expected), "{report}");
    assert_eq!(check(&report, "directories").health, doctor::Health::Ok);
    assert!(!report.is_broken(), "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][0]["health"], "ok", "{json}");

    let cache = home.paths.cache().join("kvm-probe.json");
    if cache.exists() {
        let cached = fs::read(&cache).unwrap();
        let again = doctor::report(&home.paths).await;
        assert_eq!(check(&again, "KVM"), kvm);
        assert_eq!(fs::read(&cache).unwrap(), cached);
        // A verdict of another boot, or half a file, counts for nothing.
        fs::write(&cache, &cached[..cached.len() / 2]).unwrap();
        doctor::report(&home.paths).await;
        assert!(serde_json::from_slice::<serde_json::Value>(&fs::read(&cache).unwrap()).is_ok());
    }
}
