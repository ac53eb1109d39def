//! Volumes on the data disk: one row each.

use std::{collections::BTreeMap, sync::Arc};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// Name to [`Record`] as JSON.
const VOLUMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("volumes");

/// A volume as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) options: BTreeMap<String, String>,
    /// Unix nanoseconds.
    pub(super) created: i64,
    /// It is gone for its users; its files may still be there.
    pub(super) removed: bool,
    /// It was made for a container that is not kept yet. Found so at a boot, it is
    /// nobody's.
    pub(super) unclaimed: bool,
}

/// The table of volumes.
#[derive(Debug)]
pub(super) struct Records {
    database: Arc<Database>,
}

impl Records {
    /// Opens the table, making it when it is missing.
    pub(super) fn open(database: Arc<Database>) -> Result<Self> {
        let records = Self { database };
        records.change(|transaction| {
            transaction.open_table(VOLUMES)?;
            Ok(())
        })?;
        Ok(records)
    }

    /// All records. One that cannot be read is reported and left out.
    pub(super) fn load(&self) -> Result<BTreeMap<String, Record>> {
        let read = || -> std::result::Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(VOLUMES)?;
            let mut records = BTreeMap::new();
            for row in table.iter()? {
                let (name, json) = row?;
                match serde_json::from_slice::<Record>(json.value()) {
                    Ok(record) => {
                        records.insert(name.value().to_owned(), record);
                    }
                    Err(error) => {
                        tracing::error!(
                            "the record of volume {} is damaged: {error}",
                            name.value()
                        );
                    }
                }
            }
            Ok(records)
        };
        read().context("cannot read the volumes' records")
    }

    /// Keeps a record: it is on disk when this returns.
    pub(super) fn put(&self, name: &str, record: &Record) -> Result<()> {
        self.change(|transaction| put(transaction, name, record))
    }

    /// Forgets a volume.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.change(|transaction| {
            transaction.open_table(VOLUMES)?.remove(name)?;
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
        tokio::task::block_in_place(write).context("cannot keep a volume's record")
    }
}

/// Keeps a record with what else `transaction` changes.
pub(super) fn put(
    transaction: &WriteTransaction,
    name: &str,
    record: &Record,
) -> std::result::Result<(), redb::Error> {
    let json =
        serde_json::to_vec(record).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
    transaction
        .open_table(VOLUMES)?
        .insert(name, json.as_slice())?;
    Ok(())
}
