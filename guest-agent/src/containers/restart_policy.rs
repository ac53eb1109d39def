//! What a container's restart policy wants when a run has ended, and after a boot.

use guest_protocol::{container::Status, docker::RestartPolicyNameEnum};

use super::{LOST, Record};

/// Whether its restart policy wants a container again that ended with `code`.
pub(super) fn wanted_after(record: &Record, code: i64) -> bool {
    let Some(policy) = &record.container.host_config.restart_policy else {
        return false;
    };
    if record.stopped_by_user {
        return false;
    }
    match policy.name {
        Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED) => true,
        Some(RestartPolicyNameEnum::ON_FAILURE) => {
            let most = policy.maximum_retry_count.unwrap_or(0);
            code != 0 && (most == 0 || record.container.restart_count < most)
        }
        _ => false,
    }
}

/// Whether its restart policy wants a container running after a boot.
pub(super) fn wanted_after_boot(record: &Record) -> bool {
    let state = &record.container.state;
    let name = record
        .container
        .host_config
        .restart_policy
        .as_ref()
        .and_then(|policy| policy.name);
    match name {
        Some(RestartPolicyNameEnum::ALWAYS) => state.status == Status::Exited,
        Some(RestartPolicyNameEnum::UNLESS_STOPPED) => {
            state.status == Status::Exited && !record.stopped_by_user
        }
        Some(RestartPolicyNameEnum::ON_FAILURE) => {
            state.exit_code == LOST && wanted_after(record, state.exit_code)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::{HostConfig, RestartPolicy};

    use super::*;

    fn record(name: RestartPolicyNameEnum, most: i64) -> Record {
        let mut record = Record::default();
        record.container.host_config = HostConfig {
            restart_policy: Some(RestartPolicy {
                name: Some(name),
                maximum_retry_count: Some(most),
            }),
            ..HostConfig::default()
        };
        record
    }

    #[test]
    fn policies_decide_as_docker_says() {
        use RestartPolicyNameEnum as Policy;
        assert!(!wanted_after(&record(Policy::NO, 0), 1));
        assert!(wanted_after(&record(Policy::ALWAYS, 0), 0));
        assert!(!wanted_after(&record(Policy::ON_FAILURE, 0), 0));
        assert!(wanted_after(&record(Policy::ON_FAILURE, 0), 1));
        let mut tired = record(Policy::ON_FAILURE, 3);
        tired.container.restart_count = 3;
        assert!(!wanted_after(&tired, 1));
        let mut stopped = record(Policy::ALWAYS, 0);
        stopped.stopped_by_user = true;
        assert!(!wanted_after(&stopped, 1));
        stopped.container.state.status = Status::Exited;
        assert!(wanted_after_boot(&stopped));
    }
}
