//! `machine create` and `machine set`: what a machine is given, and how it keeps its
//! containers.

use clap::Args;
use dctl_machine::{
    Change, Changed, Destination, DriverKind, Machine, Paths, ShareTransport, UserNamespace,
};

use super::{Environment, Name};
use crate::{
    client::Call,
    failure::{self, Failure},
    options::resources,
};

/// What a machine is given.
#[derive(Debug, Args)]
pub(crate) struct Size {
    /// Number of virtual CPUs
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<u8>,
    /// Memory, such as 2g; in whole MiB
    #[arg(short, long, value_name = "SIZE", value_parser = whole::<MIB>)]
    memory: Option<u32>,
    /// Size of the disk, such as 100g; in whole GiB. It takes no more of this host
    /// than is used, and can grow, not shrink
    #[arg(long, value_name = "SIZE", value_parser = whole::<GIB>)]
    disk: Option<u32>,
    /// User namespace of containers made from now on, unless their --userns says
    /// otherwise: "private" (of their own) or "host" (the machine's)
    #[arg(long, value_name = "MODE")]
    userns: Option<UserNamespace>,
    /// Let containers reach only this, such as 10.0.0.0/8 or 192.168.1.5:443; may be
    /// given more than once, and "all" lets them reach everything
    #[arg(long, value_name = "NETWORK[:PORT]", value_parser = destinations)]
    egress_allow: Vec<Destinations>,
    /// Do not let containers reach this, even if it is allowed; may be given more than
    /// once, and "none" takes back what was denied
    #[arg(long, value_name = "NETWORK[:PORT]", value_parser = destinations)]
    egress_deny: Vec<Destinations>,
    /// How requests for shared files reach this host: "virtiofs" or "vsock"
    #[arg(long, value_name = "TRANSPORT")]
    share_transport: Option<ShareTransport>,
}

/// One destination, or the word for none in particular.
#[derive(Debug, Clone, Copy)]
struct Destinations(Option<Destination>);

fn destinations(text: &str) -> Result<Destinations, String> {
    match text {
        "all" | "none" => Ok(Destinations(None)),
        _ => text
            .parse()
            .map(|destination| Destinations(Some(destination))),
    }
}

/// What was given, if something was.
fn given(list: &[Destinations]) -> Option<Vec<Destination>> {
    (!list.is_empty()).then(|| list.iter().filter_map(|one| one.0).collect())
}

/// Arguments of `machine create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// The machine's name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    size: Size,
    /// What boots it, instead of what the probe finds: "kvm" or "qemu"
    #[arg(long, value_name = "DRIVER")]
    driver: Option<DriverKind>,
}

/// Arguments of `machine set`.
#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    #[command(flatten)]
    pub(super) name: Name,
    #[command(flatten)]
    size: Size,
}

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// A size as so many units.
fn whole<const UNIT: i64>(text: &str) -> Result<u32, String> {
    let bytes = resources::bytes(text)?;
    let unit = if UNIT == GIB { "GiB" } else { "MiB" };
    if bytes == 0 || bytes % UNIT != 0 {
        return Err(format!("'{text}' is not a whole number of {unit}"));
    }
    u32::try_from(bytes / UNIT).map_err(|_| format!("'{text}' is too large"))
}

impl Size {
    fn change(&self) -> Change {
        Change {
            cpus: self.cpus,
            memory_mib: self.memory,
            disk_gib: self.disk,
            userns: self.userns,
            egress_allow: given(&self.egress_allow),
            egress_deny: given(&self.egress_deny),
            share_transport: self.share_transport,
        }
    }
}

/// `dctl machine create`.
pub(super) async fn create(arguments: &CreateArguments) -> Result<(), Failure> {
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    Machine::create(
        &paths,
        &arguments.name,
        arguments.size.change(),
        arguments.driver,
    )
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    failure::print_line(&arguments.name)
}

/// `dctl machine set`.
pub(super) async fn set(
    environment: &Environment,
    arguments: &SetArguments,
) -> Result<(), Failure> {
    let change = arguments.size.change();
    if change == Change::default() {
        return Err(Failure::new(
            "nothing to change: give --cpus, --memory, --disk, --userns, --egress-allow, \
             --egress-deny or --share-transport",
        ));
    }
    let client = environment.engine().await?;
    let call = Call::patch("/dctl/machine").with_json(&change)?;
    let changed: Changed = client.json(&call).await?;
    for warning in &changed.warnings {
        failure::note(format_args!("WARNING: {warning}"));
    }
    if changed.restart_needed {
        failure::note(format_args!(
            "the machine runs: the rest counts from its next start on (dctl machine restart {})",
            environment.machine_name()?
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole() {
        assert_eq!(whole::<GIB>("100g"), Ok(100));
        assert_eq!(whole::<GIB>("1t"), Ok(1024));
        assert_eq!(whole::<MIB>("2g"), Ok(2048));
        assert_eq!(whole::<MIB>("1.5G"), Ok(1536));
        for text in ["512m", "0", "64", "-1g", "g"] {
            assert!(whole::<GIB>(text).is_err(), "{text}");
        }
        assert!(whole::<MIB>("8e").is_err());
    }
}
