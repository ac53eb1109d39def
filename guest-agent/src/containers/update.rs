//! Changing the limits and the restart policy of a container.

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, Status},
    docker::{ContainerUpdateBody, HostConfig, RestartPolicyNameEnum},
};

use super::{Containers, create::check_restart_policy, limits, spec};
use crate::error::Result;

impl Containers {
    /// Changes what `change` names, on the disk and in the cgroup of one that runs.
    /// Returns what is to be told to the user.
    ///
    /// # Errors
    /// In Docker's words, when the limits make no sense together or the kernel
    /// refuses them; then nothing is changed.
    pub(crate) async fn update(
        &self,
        reference: &str,
        change: &ContainerUpdateBody,
    ) -> Result<Vec<String>> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let cannot = |error: AgentError| {
            AgentError::new(
                error.kind,
                format!("Cannot update container {}: {}", entry.id, error.message),
            )
        };
        let container = entry.container();
        let host = changed(&container, change).map_err(|error| match error.kind {
            // Of the container as it is, and not of what is asked for.
            ErrorKind::Conflict => cannot(error),
            _ => error,
        })?;
        let running = matches!(container.state.status, Status::Running | Status::Paused);
        let path = entry.cgroup();
        let mut warnings = Vec::new();
        if running {
            let old = spec::resources::of(&container.host_config);
            let new = spec::resources::of(&host);
            warnings = limits::set(&path, &old, &new).map_err(|error| {
                // What was set before it goes back to what it was; the error that is
                // told is the first.
                let _ = limits::set(&path, &new, &old);
                cannot(error)
            })?;
        }
        self.change(&entry, |record| {
            // Its other fields may have changed meanwhile, `AutoRemove` for one.
            let auto_remove = record.container.host_config.auto_remove;
            record.container.host_config = host;
            record.container.host_config.auto_remove = auto_remove;
        })?;
        self.tell(&entry, "update", &[]);
        Ok(warnings)
    }
}

/// The container's host configuration with `change` in it.
fn changed(container: &Container, change: &ContainerUpdateBody) -> Result<HostConfig> {
    if matches!(container.state.status, Status::Removing | Status::Dead) {
        return Err(AgentError::new(
            ErrorKind::Conflict,
            "container is marked for removal and cannot be \"update\"",
        ));
    }
    let old = &container.host_config;
    refuse_conflicts(old, change)?;
    let mut host = old.clone();
    for (slot, value) in [
        (&mut host.cpu_shares, change.cpu_shares),
        (&mut host.nano_cpus, change.nano_cpus),
        (&mut host.cpu_period, change.cpu_period),
        (&mut host.cpu_quota, change.cpu_quota),
        (&mut host.cpu_realtime_period, change.cpu_realtime_period),
        (&mut host.cpu_realtime_runtime, change.cpu_realtime_runtime),
        (&mut host.memory, change.memory),
        (&mut host.memory_swap, change.memory_swap),
        (&mut host.memory_reservation, change.memory_reservation),
        (&mut host.pids_limit, change.pids_limit),
    ] {
        if value.is_some_and(|value| value != 0) {
            *slot = value;
        }
    }
    if change.blkio_weight.is_some_and(|weight| weight != 0) {
        host.blkio_weight = change.blkio_weight;
    }
    for (slot, value) in [
        (&mut host.cpuset_cpus, &change.cpuset_cpus),
        (&mut host.cpuset_mems, &change.cpuset_mems),
    ] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            slot.clone_from(value);
        }
    }
    if let Some(policy) = &change.restart_policy
        && !matches!(policy.name, None | Some(RestartPolicyNameEnum::EMPTY))
    {
        if old.auto_remove == Some(true) && policy.name != Some(RestartPolicyNameEnum::NO) {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = Some(policy.clone());
        check_restart_policy(&host)?;
    }
    spec::check(&host)?;
    Ok(host)
}

/// Refuses changes that contradict what is set already.
fn refuse_conflicts(old: &HostConfig, change: &ContainerUpdateBody) -> Result<()> {
    let set = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let conflict = |message: &str| Err(AgentError::new(ErrorKind::Conflict, message));
    if set(change.nano_cpus) && set(old.cpu_period) {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if set(change.nano_cpus) && set(old.cpu_quota) {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if set(change.cpu_period) && set(old.nano_cpus) {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if set(change.cpu_quota) && set(old.nano_cpus) {
        return conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    // Without a limit on swap, twice the memory is what there is.
    let memory = change.memory.unwrap_or(0);
    let swap = old.memory_swap.unwrap_or(0);
    if memory > 0 && swap > 0 && memory > swap && change.memory_swap.unwrap_or(0) == 0 {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::RestartPolicy;

    use super::*;

    fn container(host_config: HostConfig) -> Container {
        Container {
            host_config,
            ..Container::default()
        }
    }

    #[test]
    fn only_what_is_named_is_changed() {
        let old = HostConfig {
            memory: Some(64 << 20),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0".into()),
            ..HostConfig::default()
        };
        let change = ContainerUpdateBody {
            memory: Some(0),
            cpu_shares: Some(1024),
            cpuset_cpus: Some(String::new()),
            pids_limit: Some(-1),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: Some(0),
            }),
            ..ContainerUpdateBody::default()
        };
        let host = changed(&container(old), &change).unwrap();
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.cpu_shares, Some(1024));
        assert_eq!(host.cpuset_cpus.as_deref(), Some("0"));
        assert_eq!(host.pids_limit, Some(-1));
        assert_eq!(
            host.restart_policy.unwrap().name,
            Some(RestartPolicyNameEnum::ALWAYS)
        );
    }

    #[test]
    fn contradictions_are_refused_in_dockers_words() {
        let refused = |old: HostConfig, change: ContainerUpdateBody| {
            changed(&container(old), &change).unwrap_err().message
        };
        let once = HostConfig {
            auto_remove: Some(true),
            ..HostConfig::default()
        };
        let always = ContainerUpdateBody {
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        };
        assert!(refused(once, always).contains("AutoRemove is enabled"));
        let quota = HostConfig {
            cpu_quota: Some(10_000),
            ..HostConfig::default()
        };
        let cpus = ContainerUpdateBody {
            nano_cpus: Some(1),
            ..ContainerUpdateBody::default()
        };
        assert!(refused(quota, cpus).contains("CPU Quota has already been set"));
        let swap = HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(100 << 20),
            ..HostConfig::default()
        };
        let memory = ContainerUpdateBody {
            memory: Some(200 << 20),
            ..ContainerUpdateBody::default()
        };
        assert!(refused(swap, memory).contains("update the memoryswap at the same time"));
        let little = ContainerUpdateBody {
            memory: Some(1 << 20),
            ..ContainerUpdateBody::default()
        };
        assert!(refused(HostConfig::default(), little).contains("6MB"));
    }
}
