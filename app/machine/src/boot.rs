//! One boot, from an open question (does it run already?) to a guest that is
//! ready.
//!
//! Ready is an event: the agent connects to a host port whose listener is bound
//! before the monitor starts. The monitor's end is the other event. Nothing polls.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use guest_protocol::AGENT_PORT;
use tokio::net::UnixListener;

use crate::{
    Choice, DriverKind, Error, Result, Settings, assets,
    blocking::blocking,
    disk,
    drivers::choice,
    ending::failed,
    file,
    lock::Lock,
    monitor::{control::Control, process::Monitor},
    paths::{MachineFiles, create_private},
    power::{attach, power_off},
    state::{Inner, Stage},
    vsock,
};

/// A monitor that lets go of its control socket first and of its lock last.
const LOCK_FREE_WITHIN: Duration = Duration::from_secs(10);

/// Brings the machine to [`Stage::Running`]. On an error nothing of it runs.
pub(crate) async fn boot(inner: &Arc<Inner>) -> Result<()> {
    inner.require()?;
    inner.stage.send_replace(Stage::Preparing);
    inner.paths.create()?;
    create_private(inner.files.directory())?;
    create_private(inner.files.runtime())?;
    let _starting = start_lock(&inner.files).await?;

    if let Some(control) = Control::connect(&inner.files.control_socket()).await?
        && let Some(monitor) = attach(inner, control).await?
    {
        return join(inner, monitor).await;
    }
    start(inner).await
}

/// Only one process at a time starts a machine.
pub(crate) async fn start_lock(files: &MachineFiles) -> Result<Lock> {
    let path = files.start_lock();
    blocking(move || Lock::acquire(&path)).await
}

/// A monitor runs already: another process, or an engine that is gone, started it.
async fn join(inner: &Arc<Inner>, monitor: Monitor) -> Result<()> {
    let choice = recorded_choice(&inner.files).unwrap_or_else(|| Choice {
        driver: DriverKind::Qemu,
        reason: "it was running already".into(),
        forced: false,
        fresh: false,
    });
    let within = choice.driver.ready_within();
    file::remove(&inner.files.ready_socket())?;
    let ready = vsock::listen(&inner.files.ready_socket())?;
    inner.stage.send_replace(Stage::Booting(choice));
    let answers = async {
        // In this order: an agent that was ready before the listener was there
        // answers. A guest that boots still does not, or refuses.
        let socket = inner.files.vsock_socket();
        match vsock::connect(&socket, AGENT_PORT).await {
            Ok(Some(_)) => {}
            _ => std::future::pending().await,
        }
    };
    wait(inner, monitor, &ready, answers, within).await
}

/// No monitor runs: starts one.
async fn start(inner: &Arc<Inner>) -> Result<()> {
    clean_up(inner).await?;
    let settings = Settings::load(&inner.files)?;
    let choice = choice::choose(&inner.paths, &settings, inner.flag()).await?;
    let guest = {
        let inner = Arc::clone(inner);
        let disk_bytes = settings.disk_bytes();
        blocking(move || {
            disk::prepare(&inner.files.disk(), disk_bytes)?;
            rotate(&inner.files.console_log())?;
            rotate(&inner.files.monitor_log())?;
            assets::guest(&inner.paths)
        })
        .await?
    };
    if inner.stop.borrow().is_some() {
        return Err(Error::Stopped);
    }

    let ready = vsock::listen(&inner.files.ready_socket())?;
    let driver = choice.driver;
    record_choice(&inner.files, &choice)?;
    tracing::info!(machine = inner.name, "{choice}");
    inner.stage.send_replace(Stage::Booting(choice));
    let monitor = driver.start(&inner.files, &settings, &guest)?;
    let within = driver.ready_within();
    wait(inner, monitor, &ready, std::future::pending(), within).await
}

/// Waits for the agent (it connects, or it `answers`), the monitor's end, a stop, or
/// too long.
async fn wait(
    inner: &Arc<Inner>,
    monitor: Monitor,
    ready: &UnixListener,
    answers: impl Future<Output = ()>,
    within: Duration,
) -> Result<()> {
    let mut stop = inner.stop.subscribe();
    let stopped = async {
        // No error: the sender is in `inner`, which is borrowed here.
        let timeout = stop.wait_for(Option::is_some).await;
        timeout.map_or(None, |timeout| *timeout).unwrap_or_default()
    };
    tokio::select! {
        accepted = ready.accept() => match accepted {
            Ok(_) => finish(inner, monitor),
            Err(error) => {
                power_off(inner, &monitor, Duration::ZERO).await?;
                Err(Error::io("listen on", &inner.files.ready_socket(), error))
            }
        },
        () = answers => finish(inner, monitor),
        exit = monitor.exited() => Err(failed(&inner.files, exit)),
        timeout = stopped => {
            power_off(inner, &monitor, timeout).await?;
            Err(Error::Stopped)
        }
        () = tokio::time::sleep(within) => {
            power_off(inner, &monitor, Duration::ZERO).await?;
            Err(Error::BootTimeout {
                after: within,
                console_log: inner.files.console_log(),
                monitor_log: inner.files.monitor_log(),
            })
        }
    }
}

fn finish(inner: &Arc<Inner>, monitor: Monitor) -> Result<()> {
    file::remove(&inner.files.ready_socket())?;
    inner.stage.send_replace(Stage::Running);
    inner.watch(monitor);
    Ok(())
}

/// Removes what a monitor left that was killed, or that ran when the host went
/// down. Its lock says that it is gone.
async fn clean_up(inner: &Arc<Inner>) -> Result<()> {
    let files = inner.files.clone();
    let cleaned = blocking(move || {
        let _lock = Lock::acquire(&files.lock())?;
        let directory = files.runtime();
        let failed = |error: io::Error| Error::io("clean up", directory, error);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stale = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.contains(".sock"));
            if stale {
                file::remove(&path)?;
            }
        }
        file::remove(&files.driver())?;
        file::remove(&files.config())
    });
    match tokio::time::timeout(LOCK_FREE_WITHIN, cleaned).await {
        Ok(result) => result,
        Err(_) => Err(Error::Unresponsive {
            name: inner.name.clone(),
            monitor_log: inner.files.monitor_log(),
        }),
    }
}

/// Keeps one older log: the next boot shall not wipe out why the last one ended.
fn rotate(log: &Path) -> Result<()> {
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    match fs::rename(log, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("rename", log, error))
        }
        _ => Ok(()),
    }
}

fn record_choice(files: &MachineFiles, choice: &Choice) -> Result<()> {
    let path = files.driver();
    let json = serde_json::to_vec(choice)
        .map_err(|error| Error::io("write", &path, io::Error::other(error)))?;
    file::replace(&path, &json)
}

/// The driver of the machine that runs, as whoever started it wrote it down.
pub(crate) fn recorded_choice(files: &MachineFiles) -> Option<Choice> {
    let json = fs::read(files.driver()).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_kept_once_when_the_next_boot_writes_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console.log");
        rotate(&log).unwrap();
        for text in ["first", "second"] {
            fs::write(&log, text).unwrap();
            rotate(&log).unwrap();
        }
        assert!(!log.exists());
        let old = directory.path().join("console.log.1");
        assert_eq!(fs::read_to_string(old).unwrap(), "second");
    }
}
