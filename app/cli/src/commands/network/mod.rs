//! `network`: create, list, inspect, connect, disconnect, remove, prune.

mod create;
mod list;
mod subnets;

use std::collections::HashMap;

use bollard_stubs::models::{EndpointIpamConfig, EndpointSettings, NetworkConnectRequest};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Environment,
    container::for_each,
    inspect::{InspectArguments, Kind},
};
use crate::{
    client::Call,
    failure::{self, Failure},
    options::{filter, network, resources},
    session::confirm,
};

/// `network`'s commands.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Connect a container to a network
    Connect(Box<ConnectArguments>),
    /// Create a network
    Create(Box<create::CreateArguments>),
    /// Disconnect a container from a network
    Disconnect(DisconnectArguments),
    /// Display detailed information on one or more networks
    Inspect(NetworkInspectArguments),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::ListArguments),
    /// Remove all unused networks
    Prune(PruneArguments),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
}

/// Arguments of `network connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArguments {
    /// Add a name of the container in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Options of the network's driver
    #[arg(long, value_name = "NAME=VALUE", value_parser = resources::pair)]
    driver_opt: Vec<(String, String)>,
    /// Which of several networks is the way out: the highest
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    gw_priority: Option<i64>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    ip6: Option<String>,
    /// Add a link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]", value_parser = network::link)]
    link: Vec<String>,
    /// IPv4 or IPv6 link-local addresses
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    link_local_ip: Vec<String>,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Arguments of `network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct DisconnectArguments {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Arguments of `network inspect`.
#[derive(Debug, Args)]
pub(crate) struct NetworkInspectArguments {
    #[command(flatten)]
    inspect: InspectArguments,
    /// Verbose output for diagnostics
    #[arg(short, long)]
    verbose: bool,
}

/// Arguments of `network prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Filter what is removed: until=24h, label=key=value, label!=key
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `network rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pruned {
    networks_deleted: Option<Vec<String>>,
}

/// A network's path.
pub(super) fn path(name: &str) -> String {
    format!("/networks/{}", Call::segment(name))
}

/// `dctl network`.
pub(crate) async fn run(environment: &Environment, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Connect(arguments) => connect(environment, *arguments).await,
        NetworkCommand::Create(arguments) => create::run(environment, *arguments).await,
        NetworkCommand::Disconnect(arguments) => disconnect(environment, arguments).await,
        NetworkCommand::Inspect(arguments) => {
            // All there is to tell is told.
            let _ = arguments.verbose;
            super::inspect::run(environment, arguments.inspect.only(Kind::Network)).await
        }
        NetworkCommand::Ls(arguments) => list::run(environment, arguments).await,
        NetworkCommand::Prune(arguments) => prune(environment, arguments).await,
        NetworkCommand::Rm(arguments) => remove(environment, arguments).await,
    }
}

async fn connect(environment: &Environment, arguments: ConnectArguments) -> Result<(), Failure> {
    let list = |values: Vec<String>| (!values.is_empty()).then_some(values);
    let options: HashMap<String, String> = arguments.driver_opt.into_iter().collect();
    let addresses = EndpointIpamConfig {
        ipv4_address: arguments.ip,
        ipv6_address: arguments.ip6,
        link_local_ips: list(arguments.link_local_ip),
    };
    let settings = EndpointSettings {
        ipam_config: Some(addresses),
        links: list(arguments.link),
        aliases: list(arguments.alias),
        driver_opts: (!options.is_empty()).then_some(options),
        gw_priority: arguments.gw_priority,
        ..EndpointSettings::default()
    };
    let request = NetworkConnectRequest {
        container: Some(arguments.container),
        endpoint_config: Some(settings),
    };
    let call = Call::post(path(&arguments.network) + "/connect").with_json(&request)?;
    let client = environment.machine().await?;
    Ok(client.done(&call).await?)
}

async fn disconnect(
    environment: &Environment,
    arguments: DisconnectArguments,
) -> Result<(), Failure> {
    let call = Call::post(path(&arguments.network) + "/disconnect").with_json(&json!({
        "Container": arguments.container,
        "Force": arguments.force,
    }))?;
    let client = environment.machine().await?;
    Ok(client.done(&call).await?)
}

async fn remove(environment: &Environment, arguments: RemoveArguments) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let force = arguments.force;
    let remove = async |name: &str| match client.done(&Call::delete(path(name))).await {
        Err(error) if force && error.is_not_found() => Ok(()),
        result => result,
    };
    for_each(&arguments.names, remove, |_| false).await
}

async fn prune(environment: &Environment, arguments: PruneArguments) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    let what = "WARNING! This will remove all custom networks not used by at least one container.";
    if !arguments.force && !confirm::confirmed(what)? {
        return Err(Failure::new("network prune has been cancelled"));
    }
    let call = Call::post("/networks/prune").query_if("filters", filters);
    let client = environment.machine().await?;
    let pruned: Pruned = client.json(&call).await?;
    let deleted = pruned.networks_deleted.unwrap_or_default();
    if deleted.is_empty() {
        return Ok(());
    }
    failure::print(format!("Deleted Networks:\n{}\n\n", deleted.join("\n")))
}

/// What `network create` answers.
fn id_of(created: &Value) -> String {
    created["Id"].as_str().unwrap_or_default().to_owned()
}
