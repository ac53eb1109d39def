//! `update`: limits and restart policy of containers that exist.

use bollard_stubs::models::{ContainerUpdateBody, RestartPolicy};
use clap::Args;
use serde::Deserialize;

use super::{Environment, container};
use crate::{
    client::Call,
    failure::{self, Failure},
    options::resources,
};

/// Arguments of `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// Block IO (relative weight), between 10 and 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a CPU period in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    cpu_period: Option<i64>,
    /// CPU time in each period in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a real-time CPU period in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_rt_period: Option<i64>,
    /// Real-time CPU time in each period in microseconds
    #[arg(long, value_name = "USEC")]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "WEIGHT", allow_hyphen_values = true)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = resources::nano_cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution: 0-3, 0,1
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes in which to allow execution: 0-3, 0,1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = resources::bytes)]
    memory: Option<i64>,
    /// Memory that the container keeps when others want it
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes)]
    memory_reservation: Option<i64>,
    /// Limit for memory and swap together, -1 for no limit on swap
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes_or_unlimited, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Limit on processes, -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Restart policy: no, on-failure[:max-retries], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = resources::restart_policy)]
    restart: Option<RestartPolicy>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl UpdateArguments {
    fn change(&self) -> ContainerUpdateBody {
        ContainerUpdateBody {
            blkio_weight: self.blkio_weight,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpu_shares: self.cpu_shares,
            nano_cpus: self.cpus,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            pids_limit: self.pids_limit,
            restart_policy: self.restart.clone(),
            ..ContainerUpdateBody::default()
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Updated {
    warnings: Option<Vec<String>>,
}

/// `dctl update`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: UpdateArguments,
) -> Result<(), Failure> {
    let change = arguments.change();
    if change == ContainerUpdateBody::default() {
        return Err(Failure::new(
            "you must provide one or more flags when using this command",
        ));
    }
    let client = environment.machine().await?;
    container::for_each(
        &arguments.containers,
        async |name| {
            let call = Call::post(container::path(name, "update")).with_json(&change)?;
            let updated: Updated = client.json(&call).await?;
            for warning in updated.warnings.iter().flatten() {
                failure::note(warning);
            }
            Ok(())
        },
        |_| false,
    )
    .await
}
