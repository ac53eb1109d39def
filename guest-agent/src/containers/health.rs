//! Health checks: a command run in the container now and then, and what it says
//! of the container. Docker's rules, statuses, events and limits.
//!
//! One task looks after each running container that has a check. It lives as long
//! as its place in [`Live`](super::Live) is held: pausing and ending take it away.

use std::{sync::Arc, time::Duration};

use guest_protocol::{
    AgentError,
    container::{Container, ExecConfig, Health, HealthStatus, Probe, Status},
    docker::HealthConfig,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Containers, Entry};
use crate::{
    clock,
    error::Result,
    exec::Command,
    stdio::{Streams, Subscription},
};

/// Docker's values for what is left open.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;

/// How many probes are remembered; Docker's number.
const LOG: usize = 5;

/// How much of a probe's output is kept, in bytes; Docker's number.
const OUTPUT: usize = 4096;

/// The shortest interval or timeout, in nanoseconds; Docker's value.
const SHORTEST: i64 = 1_000_000;

/// How long a probe that was killed may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Refuses a health check that makes no sense.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(config: Option<&HealthConfig>) -> Result<()> {
    let Some(config) = config else { return Ok(()) };
    for (name, value) in [
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
        ("StartInterval", config.start_interval),
    ] {
        if value.is_some_and(|value| value != 0 && value < SHORTEST) {
            return Err(AgentError::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if config.retries.is_some_and(|retries| retries < 0) {
        return Err(AgentError::invalid(
            "Retries in Healthcheck cannot be negative",
        ));
    }
    Ok(())
}

/// Lays the user's health check over the image's: each part that they left open is
/// the image's.
pub(super) fn merge(
    own: Option<HealthConfig>,
    image: Option<HealthConfig>,
) -> Option<HealthConfig> {
    let (own, image) = match (own, image) {
        (Some(own), Some(image)) => (own, image),
        (own, image) => return own.or(image),
    };
    let number = |own: Option<i64>, image| own.filter(|value| *value != 0).or(image);
    Some(HealthConfig {
        test: own.test.filter(|test| !test.is_empty()).or(image.test),
        interval: number(own.interval, image.interval),
        timeout: number(own.timeout, image.timeout),
        retries: number(own.retries, image.retries),
        start_period: number(own.start_period, image.start_period),
        start_interval: number(own.start_interval, image.start_interval),
    })
}

/// A container's health check, made ready.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    /// The container's check, if it has one.
    fn of(container: &Container) -> Option<Self> {
        let config = container.config.healthcheck.as_ref()?;
        let (kind, words) = config.test.as_ref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let shell = container.config.shell.clone();
                let shell = shell.filter(|shell| !shell.is_empty());
                let mut command =
                    shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.extend_from_slice(words);
                command
            }
            // `NONE` switches the image's off; anything else is no check in Docker
            // either.
            _ => return None,
        };
        let duration = |value: Option<i64>, default| {
            let value = value.and_then(|value| u64::try_from(value).ok());
            value
                .filter(|value| *value > 0)
                .map_or(default, Duration::from_nanos)
        };
        (!command.is_empty()).then(|| Self {
            command,
            interval: duration(config.interval, INTERVAL),
            timeout: duration(config.timeout, TIMEOUT),
            start_period: duration(config.start_period, Duration::ZERO),
            start_interval: duration(config.start_interval, START_INTERVAL),
            retries: config.retries.filter(|n| *n > 0).unwrap_or(RETRIES),
        })
    }

    /// How long to wait before the next probe.
    fn pause(&self, status: HealthStatus, began: Instant) -> Duration {
        if status == HealthStatus::Starting && began.elapsed() < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// Takes a probe's result into account; the new verdict, if it changed.
    fn judge(&self, health: &mut Health, probe: Probe, starting: bool) -> Option<HealthStatus> {
        let before = health.status;
        if probe.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if !(starting && before == HealthStatus::Starting) {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        let excess = (health.log.len() + 1).saturating_sub(LOG);
        health.log.drain(..excess);
        health.log.push(probe);
        (health.status != before).then_some(health.status)
    }
}

/// Stops to look after a container's health. Nobody knows it any more: that is
/// unhealthy, as in Docker.
pub(super) fn stop_probing(entry: &Entry) {
    if entry.live().health.take().is_none() {
        return;
    }
    if let Some(health) = &mut entry.record().container.state.health {
        health.status = HealthStatus::Unhealthy;
    }
}

/// The health of a container that is being started; `None` without a check.
pub(super) fn at_start(container: &Container) -> Option<Health> {
    Check::of(container).map(|_| Health::default())
}

impl Containers {
    /// Begins to look after a container's health if it runs and has a check.
    pub(super) fn tend_health(&self, entry: &Arc<Entry>) {
        let check = {
            let record = entry.record();
            if record.container.state.status != Status::Running {
                return;
            }
            let Some(check) = Check::of(&record.container) else {
                return;
            };
            check
        };
        let (held, dropped) = watch::channel(());
        // One that is there already ends.
        entry.live().health = Some(held);
        let (containers, entry) = (self.clone(), Arc::clone(entry));
        tokio::spawn(async move { containers.probe_on(&entry, &check, dropped).await });
    }

    async fn probe_on(&self, entry: &Arc<Entry>, check: &Check, mut held: watch::Receiver<()>) {
        let began = Instant::now();
        loop {
            let status = {
                let record = entry.record();
                let health = record.container.state.health.as_ref();
                health.map_or(HealthStatus::Starting, |health| health.status)
            };
            tokio::select! {
                // Fails when it is no longer held, which is all it can say.
                _ = held.changed() => return,
                () = tokio::time::sleep(check.pause(status, began)) => {}
            }
            let starting = began.elapsed() < check.start_period;
            let Some(probe) = self.probe(entry, check, &mut held).await else {
                return;
            };
            // Looked at and changed under one lock: a container that ended or was
            // paused meanwhile keeps the verdict that it got then.
            let changed = {
                let mut record = entry.record();
                if held.has_changed().is_err() {
                    return;
                }
                let health = record.container.state.health.get_or_insert_default();
                let changed = check.judge(health, probe, starting);
                // Probes that change nothing are not worth a write each.
                if changed.is_some()
                    && let Err(error) = self.shared.records.put(&record)
                {
                    tracing::error!("the health of container {} is not kept: {error}", entry.id);
                }
                changed
            };
            if let Some(status) = changed {
                self.tell(entry, &format!("health_status: {}", status.as_str()), &[]);
            }
        }
    }

    /// Runs the check's command once; `None` when the container ends or is paused
    /// meanwhile.
    async fn probe(
        &self,
        entry: &Arc<Entry>,
        check: &Check,
        held: &mut watch::Receiver<()>,
    ) -> Option<Probe> {
        let start = clock::now();
        let result = self.run_probe(entry, check, held).await;
        if held.has_changed().is_err() {
            return None;
        }
        let (exit_code, output) = match result {
            Ok((code, output)) => (code, output),
            Err(error) => (-1, error.message),
        };
        Some(Probe {
            start,
            end: clock::now(),
            exit_code,
            output,
        })
    }

    async fn run_probe(
        &self,
        entry: &Arc<Entry>,
        check: &Check,
        held: &mut watch::Receiver<()>,
    ) -> Result<(i64, String)> {
        let config = ExecConfig {
            attach_stdout: true,
            attach_stderr: true,
            cmd: check.command.clone(),
            ..ExecConfig::default()
        };
        let command = self.create_exec(&entry.id, config)?;
        let streams = Streams {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let mut output = command.stdio().subscribe(streams);
        let started = self.start_exec(&command).await;
        // It cannot be asked for any more, and would push others out.
        self.shared.execs.forget_one(&command);
        started?;
        let deadline = Instant::now() + check.timeout;
        let mut said = Output::default();
        let in_time = tokio::select! {
            () = said.collect(&mut output, &command) => true,
            () = sleep_until(deadline) => false,
            _ = held.changed() => false,
        };
        if in_time {
            return Ok((command.exec().exit_code.unwrap_or(-1), said.into_text()));
        }
        command.kill();
        drop(output);
        if timeout_at(Instant::now() + KILL_GRACE, command.ended())
            .await
            .is_err()
        {
            tracing::warn!("a health check of container {} hangs", entry.id);
        }
        let mut text = format!("Health check exceeded timeout ({:?})", check.timeout);
        let said = said.into_text();
        if !said.is_empty() {
            text = format!("{text}: {said}");
        }
        Ok((-1, text))
    }
}

/// The beginning of what a probe says.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    /// Takes what comes until the command's output and the command have ended.
    async fn collect(&mut self, output: &mut Subscription, command: &Command) {
        while let Some(piece) = output.next().await {
            let room = OUTPUT - self.bytes.len();
            self.cut |= piece.len() > room;
            self.bytes
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        command.ended().await;
    }

    fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut {
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::ContainerConfig;

    use super::*;

    fn container(test: &[&str]) -> Container {
        Container {
            config: ContainerConfig {
                healthcheck: Some(HealthConfig {
                    test: Some(test.iter().map(|&word| word.to_owned()).collect()),
                    retries: Some(2),
                    ..HealthConfig::default()
                }),
                ..ContainerConfig::default()
            },
            ..Container::default()
        }
    }

    #[test]
    fn checks_are_commands_or_text_for_a_shell() {
        let command = |test: &[&str]| Check::of(&container(test)).map(|check| check.command);
        assert_eq!(command(&["CMD", "true"]).unwrap(), ["true"]);
        assert_eq!(
            command(&["CMD-SHELL", "a | b"]).unwrap(),
            ["/bin/sh", "-c", "a | b"]
        );
        for none in [&["NONE"][..], &[], &["CMD"], &["curl", "x"]] {
            assert_eq!(command(none), None, "{none:?}");
        }
        assert!(at_start(&Container::default()).is_none());
    }

    #[test]
    fn verdicts_are_dockers() {
        let check = Check::of(&container(&["CMD", "x"])).unwrap();
        let mut health = Health::default();
        let probe = |exit_code| Probe {
            exit_code,
            ..Probe::default()
        };
        // Failures while it starts do not count.
        assert_eq!(check.judge(&mut health, probe(1), true), None);
        assert_eq!((health.failing_streak, health.log.len()), (0, 1));
        assert_eq!(check.judge(&mut health, probe(1), false), None);
        assert_eq!(
            check.judge(&mut health, probe(-1), false),
            Some(HealthStatus::Unhealthy)
        );
        assert_eq!(
            check.judge(&mut health, probe(0), false),
            Some(HealthStatus::Healthy)
        );
        assert_eq!(health.failing_streak, 0);
        // One that was healthy counts failures, however young it is.
        assert_eq!(check.judge(&mut health, probe(1), true), None);
        assert_eq!(health.failing_streak, 1);
        for _ in 0..10 {
            check.judge(&mut health, probe(0), false);
        }
        assert_eq!(health.log.len(), LOG);
    }

    #[test]
    fn what_the_user_left_open_is_the_images() {
        let image = HealthConfig {
            test: Some(vec!["CMD".into(), "image".into()]),
            interval: Some(1),
            retries: Some(7),
            ..HealthConfig::default()
        };
        let own = HealthConfig {
            interval: Some(2),
            retries: Some(0),
            ..HealthConfig::default()
        };
        let merged = merge(Some(own), Some(image.clone())).unwrap();
        assert_eq!(merged.interval, Some(2));
        assert_eq!((merged.retries, merged.test), (Some(7), image.test.clone()));
        assert_eq!(merge(None, Some(image.clone())), Some(image));
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        let config = |interval, retries| HealthConfig {
            interval: Some(interval),
            retries: Some(retries),
            ..HealthConfig::default()
        };
        assert!(check(Some(&config(0, 0))).is_ok());
        let error = check(Some(&config(999_999, 0))).unwrap_err();
        assert_eq!(
            error.message,
            "Interval in Healthcheck cannot be less than 1ms"
        );
        assert!(check(Some(&config(0, -1))).is_err());
    }

    #[test]
    fn output_is_cut() {
        let output = Output {
            bytes: vec![b'x'; OUTPUT],
            cut: true,
        };
        assert_eq!(output.into_text().len(), OUTPUT + 3);
    }
}
