//! Networks on the data disk: one row each.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use guest_protocol::{
    docker::{Ipam, IpamConfig},
    network::Network,
};
use ipnet::IpNet;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::configuration::Template;
use crate::error::{Context, Result};

/// Id to [`Record`] as JSON.
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");

/// What carries a network's packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Driver {
    /// A bridge in the machine.
    #[default]
    Bridge,
    /// The machine's own network.
    Host,
    /// Nothing.
    Null,
}

impl Driver {
    /// Docker's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    /// All of it.
    pub(crate) net: IpNet,
    /// Where addresses are taken from when nobody asks for a certain one.
    pub(crate) range: Option<IpNet>,
    /// The bridge's own address.
    pub(crate) gateway: IpAddr,
    /// Addresses that somebody else has, by name.
    pub(crate) auxiliary: BTreeMap<String, IpAddr>,
    /// Whether a user chose it, so that containers may ask for certain addresses.
    pub(crate) chosen: bool,
}

/// A network as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Unix nanoseconds.
    pub(crate) created: i64,
    pub(crate) driver: Driver,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Options of the address management, kept for clients.
    pub(crate) ipam_options: HashMap<String, String>,
    /// What it is if it is only configuration.
    pub(crate) template: Option<Template>,
    /// Name of the network whose configuration it was made of; may be empty.
    pub(crate) config_from: String,
}

impl Record {
    /// Whether its containers have addresses of this family.
    pub(crate) fn has_family(&self, ipv6: bool) -> bool {
        self.subnets
            .iter()
            .any(|subnet| subnet.gateway.is_ipv6() == ipv6)
    }

    /// As a host is told, without its containers.
    pub(crate) fn network(&self) -> Network {
        let config = |subnet: &Subnet| IpamConfig {
            subnet: Some(subnet.net.to_string()),
            ip_range: subnet.range.map(|range| range.to_string()),
            gateway: Some(subnet.gateway.to_string()),
            auxiliary_addresses: (!subnet.auxiliary.is_empty()).then(|| {
                let text =
                    |(name, address): (&String, &IpAddr)| (name.clone(), address.to_string());
                subnet.auxiliary.iter().map(text).collect()
            }),
        };
        let subnets = match &self.template {
            Some(template) => template.subnets.clone(),
            None => self.subnets.iter().map(config).collect(),
        };
        // A network without subnets is none of IPv4 either; clients expect it to be.
        let ipv4 = self.has_family(false) || self.driver != Driver::Bridge;
        let template = self.template.as_ref();
        Network {
            id: self.id.clone(),
            name: self.name.clone(),
            created: self.created,
            driver: self.driver.as_str().to_owned(),
            ipv4: template.map_or(ipv4, |template| template.ipv4),
            ipv6: template.map_or(self.has_family(true), |template| template.ipv6),
            ipam: Ipam {
                driver: Some("default".to_owned()),
                config: Some(subnets),
                options: Some(self.ipam_options.clone()),
            },
            internal: self.internal,
            attachable: self.attachable,
            options: self.options.clone(),
            labels: self.labels.clone(),
            containers: BTreeMap::new(),
            config_only: self.template.is_some(),
            config_from: self.config_from.clone(),
        }
    }
}

/// The table of networks.
#[derive(Debug)]
pub(super) struct Records {
    database: Arc<Database>,
}

impl Records {
    /// Opens the table, making it when it is missing.
    pub(super) fn open(database: Arc<Database>) -> Result<Self> {
        let records = Self { database };
        records.change(|transaction| {
            transaction.open_table(NETWORKS)?;
            Ok(())
        })?;
        Ok(records)
    }

    /// All records. One that cannot be read is reported and left out.
    pub(super) fn load(&self) -> Result<Vec<Record>> {
        let read = || -> std::result::Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(NETWORKS)?;
            let mut records = Vec::new();
            for row in table.iter()? {
                let (id, json) = row?;
                match serde_json::from_slice::<Record>(json.value()) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        tracing::error!("the record of network {} is damaged: {error}", id.value());
                    }
                }
            }
            Ok(records)
        };
        read().context("cannot read the networks' records")
    }

    /// Keeps a record: it is on disk when this returns.
    pub(super) fn put(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record).context("cannot encode a network's record")?;
        self.change(|transaction| {
            transaction
                .open_table(NETWORKS)?
                .insert(record.id.as_str(), json.as_slice())?;
            Ok(())
        })
    }

    /// Forgets a network.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        self.change(|transaction| {
            transaction.open_table(NETWORKS)?.remove(id)?;
            Ok(())
        })
    }

    fn change(
        &self,
        act: impl FnOnce(&WriteTransaction) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        let write = || -> std::result::Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            act(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        // The commit waits for the disk.
        tokio::task::block_in_place(write).context("cannot keep a network's record")
    }
}
