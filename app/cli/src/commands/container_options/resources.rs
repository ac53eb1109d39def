//! How much of the machine a container may use.

use bollard_stubs::models::{
    HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice,
};
use clap::Args;

use super::list;
use crate::options::{devices, resources};

/// Limits of a new container.
#[derive(Debug, Args)]
pub(super) struct ResourceOptions {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Block IO weight for one device
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = devices::weight)]
    blkio_weight_device: Vec<ResourcesBlkioWeightDevice>,
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
    /// Limit the bytes a second read from a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = devices::bytes_rate)]
    device_read_bps: Vec<ThrottleDevice>,
    /// Limit the reads a second from a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = devices::operations_rate)]
    device_read_iops: Vec<ThrottleDevice>,
    /// Limit the bytes a second written to a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = devices::bytes_rate)]
    device_write_bps: Vec<ThrottleDevice>,
    /// Limit the writes a second to a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = devices::operations_rate)]
    device_write_iops: Vec<ThrottleDevice>,
    /// Kernel memory limit: taken and ignored
    #[arg(long = "kernel-memory", value_name = "BYTES", value_parser = resources::bytes, hide = true)]
    _kernel_memory: Option<i64>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = resources::bytes)]
    memory: Option<i64>,
    /// Memory that the container keeps when others want it
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes)]
    memory_reservation: Option<i64>,
    /// Limit for memory and swap together, -1 for no limit on swap
    #[arg(long, value_name = "BYTES", value_parser = resources::bytes_or_unlimited, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// How readily memory is swapped, 0 to 100
    #[arg(long, value_name = "NUMBER", value_parser = resources::swappiness, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Disable the kernel's killing for want of memory
    #[arg(long)]
    oom_kill_disable: bool,
    /// Preference of the kernel's killing for want of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i64>,
    /// Limit on processes, -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = resources::ulimit)]
    ulimit: Vec<ResourcesUlimits>,
}

impl ResourceOptions {
    /// Puts them into what is asked of the host.
    pub(super) fn put(&self, host: &mut HostConfig) {
        host.blkio_weight = self.blkio_weight;
        host.blkio_weight_device = list(&self.blkio_weight_device);
        host.cpu_period = self.cpu_period;
        host.cpu_quota = self.cpu_quota;
        host.cpu_realtime_period = self.cpu_rt_period;
        host.cpu_realtime_runtime = self.cpu_rt_runtime;
        host.cpu_shares = self.cpu_shares;
        host.nano_cpus = self.cpus;
        host.cpuset_cpus.clone_from(&self.cpuset_cpus);
        host.cpuset_mems.clone_from(&self.cpuset_mems);
        host.blkio_device_read_bps = list(&self.device_read_bps);
        host.blkio_device_read_iops = list(&self.device_read_iops);
        host.blkio_device_write_bps = list(&self.device_write_bps);
        host.blkio_device_write_iops = list(&self.device_write_iops);
        host.memory = self.memory;
        host.memory_reservation = self.memory_reservation;
        host.memory_swap = self.memory_swap;
        host.memory_swappiness = self.memory_swappiness;
        host.oom_kill_disable = self.oom_kill_disable.then_some(true);
        host.oom_score_adj = self.oom_score_adj;
        host.pids_limit = self.pids_limit;
        host.ulimits = list(&self.ulimit);
    }
}
