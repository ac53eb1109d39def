//! `network create`.

use std::collections::HashMap;

use bollard_stubs::models::{ConfigReference, Ipam, NetworkCreateRequest};
use clap::Args;
use serde_json::Value;

use super::{
    super::Environment,
    id_of,
    subnets::{self, Wishes},
};
use crate::{
    client::Call,
    failure::{self, Failure},
    options::{environment, resources},
};

/// Arguments of `network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by the network
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = resources::pair)]
    aux_address: Vec<(String, String)>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the network
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 gateway for a subnet
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container addresses from a part of a subnet
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Driver to manage addresses
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,
    /// Options of the driver that manages addresses
    #[arg(long, value_name = "NAME=VALUE", value_parser = resources::pair)]
    ipam_opt: Vec<(String, String)>,
    /// Enable or disable IPv4
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Enable or disable IPv6
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = resources::pair)]
    opt: Vec<(String, String)>,
    /// Control the network's scope
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// `dctl network create`.
pub(super) async fn run(
    environment: &Environment,
    arguments: CreateArguments,
) -> Result<(), Failure> {
    let map = |pairs: Vec<(String, String)>| -> Option<HashMap<String, String>> {
        (!pairs.is_empty()).then(|| pairs.into_iter().collect())
    };
    let config = subnets::configs(&Wishes {
        subnets: &arguments.subnet,
        ranges: &arguments.ip_range,
        gateways: &arguments.gateway,
        auxiliary: &arguments.aux_address,
    })?;
    let request = NetworkCreateRequest {
        name: arguments.name,
        driver: Some(arguments.driver),
        scope: arguments.scope,
        internal: Some(arguments.internal),
        attachable: Some(arguments.attachable),
        ingress: Some(arguments.ingress),
        config_only: Some(arguments.config_only),
        config_from: arguments.config_from.map(|network| ConfigReference {
            network: Some(network),
        }),
        ipam: Some(Ipam {
            driver: Some(arguments.ipam_driver),
            config: (!config.is_empty()).then_some(config),
            options: map(arguments.ipam_opt),
        }),
        enable_ipv4: arguments.ipv4,
        enable_ipv6: arguments.ipv6,
        options: map(arguments.opt),
        labels: Some(environment::labels(&arguments.label)?.into_iter().collect()),
    };
    let call = Call::post("/networks/create").with_json(&request)?;
    let client = environment.machine().await?;
    let created: Value = client.json(&call).await?;
    if let Some(warning) = created["Warning"].as_str().filter(|text| !text.is_empty()) {
        failure::note(format_args!("WARNING: {warning}"));
    }
    failure::print_line(id_of(&created))
}
