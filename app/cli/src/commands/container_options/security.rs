//! What a container may do, and what it shares with the machine and with others.

use bollard_stubs::models::{
    DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
};
use clap::Args;

use super::list;
use crate::{
    failure::Failure,
    options::{devices, security},
};

/// Privileges and namespaces of a new container.
#[derive(Debug, Args)]
pub(super) struct SecurityOptions {
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Parent of the container's cgroup
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Cgroup namespace: host, private
    #[arg(long, value_name = "MODE", value_parser = cgroup_namespace)]
    cgroupns: Option<HostConfigCgroupnsModeEnum>,
    /// Add a device of the machine to the container
    #[arg(long, value_name = "PATH[:PATH]", value_parser = devices::device)]
    device: Vec<DeviceMapping>,
    /// Add a rule to the list of devices that may be opened
    #[arg(long, value_name = "RULE", value_parser = devices::cgroup_rule)]
    device_cgroup_rule: Vec<String>,
    /// Add further groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// IPC namespace: none, private, shareable, host, container:<name|id>
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Container isolation technology
    #[arg(long, value_name = "TECHNOLOGY", value_parser = isolation)]
    isolation: Option<HostConfigIsolationEnum>,
    /// Process namespace: host, container:<name|id>
    #[arg(long, value_name = "MODE", value_parser = process_namespace)]
    pid: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Runtime to use for this container
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Security options
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Kernel parameters of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = security::sysctl)]
    sysctl: Vec<(String, String)>,
    /// User namespace: host, private
    #[arg(long, value_name = "MODE", value_parser = user_namespace)]
    userns: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "MODE", value_parser = uts_namespace)]
    uts: Option<String>,
}

impl SecurityOptions {
    /// Puts them into what is asked of the host.
    ///
    /// # Errors
    /// When a security option makes no sense, or its file cannot be read.
    pub(super) fn put(&self, host: &mut HostConfig) -> Result<(), Failure> {
        let security = security::security_options(&self.security_opt)?;
        host.cap_add = list(&self.cap_add);
        host.cap_drop = list(&self.cap_drop);
        host.cgroup_parent.clone_from(&self.cgroup_parent);
        host.cgroupns_mode = self.cgroupns;
        host.devices = list(&self.device);
        host.device_cgroup_rules = list(&self.device_cgroup_rule);
        host.group_add = list(&self.group_add);
        host.ipc_mode.clone_from(&self.ipc);
        host.isolation = self.isolation;
        host.pid_mode.clone_from(&self.pid);
        host.privileged = Some(self.privileged);
        host.runtime.clone_from(&self.runtime);
        host.security_opt = list(&security.options);
        if security.all_system_paths {
            host.masked_paths = Some(Vec::new());
            host.readonly_paths = Some(Vec::new());
        }
        host.sysctls = (!self.sysctl.is_empty()).then(|| self.sysctl.iter().cloned().collect());
        host.userns_mode.clone_from(&self.userns);
        host.uts_mode.clone_from(&self.uts);
        Ok(())
    }
}

fn cgroup_namespace(text: &str) -> Result<HostConfigCgroupnsModeEnum, &'static str> {
    match text {
        "" => Ok(HostConfigCgroupnsModeEnum::EMPTY),
        "private" => Ok(HostConfigCgroupnsModeEnum::PRIVATE),
        "host" => Ok(HostConfigCgroupnsModeEnum::HOST),
        _ => Err("--cgroupns: invalid CGROUP mode"),
    }
}

fn isolation(text: &str) -> Result<HostConfigIsolationEnum, String> {
    match text {
        "" => Ok(HostConfigIsolationEnum::EMPTY),
        "default" => Ok(HostConfigIsolationEnum::DEFAULT),
        _ => Err(format!(
            "invalid isolation \"{text}\": linux only supports 'default'"
        )),
    }
}

fn process_namespace(text: &str) -> Result<String, &'static str> {
    let of_container = text
        .strip_prefix("container:")
        .is_some_and(|name| !name.is_empty());
    if of_container || ["", "host"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err("--pid: invalid PID mode")
}

fn user_namespace(text: &str) -> Result<String, &'static str> {
    if ["", "host", "private"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err("--userns: invalid USER mode")
}

fn uts_namespace(text: &str) -> Result<String, &'static str> {
    if ["", "host"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err("--uts: invalid UTS mode")
}
