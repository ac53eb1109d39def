//! Containers on the data disk: one row each, one transaction a change.

use std::{collections::BTreeMap, sync::Arc};

use guest_protocol::{container::Container, docker::EndpointSettings};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::spec::volumes::Details;
use crate::error::{Context, Result};

/// Id to [`Record`] as JSON.
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");

/// A container as it is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) container: Container,
    /// Whether its user stopped it, so that no restart policy starts it again.
    pub(super) stopped_by_user: bool,
    /// What it asks of its networks, by name.
    pub(super) networks: BTreeMap<String, EndpointSettings>,
    /// What its volumes' mounts do not say, by destination.
    pub(super) mount_details: BTreeMap<String, Details>,
}

/// The table of containers.
#[derive(Debug)]
pub(super) struct Records {
    database: Arc<Database>,
}

impl Records {
    /// Opens the table, making it when it is missing.
    pub(super) fn open(database: Arc<Database>) -> Result<Self> {
        let records = Self { database };
        records.change(|_| Ok(()))?;
        Ok(records)
    }

    /// All records. One that cannot be read is reported and left out.
    pub(super) fn load(&self) -> Result<Vec<Record>> {
        let read = || -> std::result::Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(CONTAINERS)?;
            let mut records = Vec::new();
            for row in table.iter()? {
                let (id, json) = row?;
                match serde_json::from_slice::<Record>(json.value()) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        tracing::error!(
                            "the record of container {} is damaged: {error}",
                            id.value()
                        );
                    }
                }
            }
            Ok(records)
        };
        read().context("cannot read the containers' records")
    }

    /// Keeps a record: it is on disk when this returns.
    pub(super) fn put(&self, record: &Record) -> Result<()> {
        self.put_and(record, |_| Ok(()))
    }

    /// Keeps a record, and does what `also` does in the same transaction.
    pub(super) fn put_and(
        &self,
        record: &Record,
        also: impl FnOnce(&WriteTransaction) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        let json = serde_json::to_vec(record).context("cannot encode a container's record")?;
        self.transact(|transaction| {
            transaction
                .open_table(CONTAINERS)?
                .insert(record.container.id.as_str(), json.as_slice())?;
            also(transaction)
        })
    }

    /// Forgets a container.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        self.remove_and(id, |_| Ok(()))
    }

    /// Forgets a container, and does what `also` does in the same transaction.
    pub(super) fn remove_and(
        &self,
        id: &str,
        also: impl FnOnce(&WriteTransaction) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        self.transact(|transaction| {
            transaction.open_table(CONTAINERS)?.remove(id)?;
            also(transaction)
        })
    }

    fn change(
        &self,
        act: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        self.transact(|transaction| act(&mut transaction.open_table(CONTAINERS)?))
    }

    fn transact(
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
        tokio::task::block_in_place(write).context("cannot keep a container's record")
    }
}
