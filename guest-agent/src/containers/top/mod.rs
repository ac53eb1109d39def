//! The processes of a container, as `ps` would show them in the machine: images
//! need not have one.

mod columns;
mod options;
mod process;

use std::{fs, path::Path};

use guest_protocol::{AgentError, ErrorKind, methods::ProcessList};

use self::{options::Options, process::Process};
use super::Containers;
use crate::error::Result;

impl Containers {
    /// Its processes, in the columns that `ps` would show with `options`; those of
    /// `-ef` when there are none.
    ///
    /// # Errors
    /// When it does not run, or an option is not known.
    pub(crate) fn top(&self, reference: &str, options: &str) -> Result<ProcessList> {
        let options = Options::parse(options).map_err(AgentError::invalid)?;
        let entry = self.find(reference)?;
        if entry.live().process.is_none() {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("container {} is not running", entry.id),
            ));
        }
        self.tell(&entry, "top", &[]);
        let mut ids = Vec::new();
        collect(&entry.cgroup(), &mut ids);
        ids.sort_unstable();
        Ok(ProcessList {
            titles: options
                .columns
                .iter()
                .map(|column| column.title.clone())
                .collect(),
            // One that ended meanwhile is left out.
            processes: ids
                .into_iter()
                .filter_map(Process::read)
                .map(|process| {
                    let cells = options.columns.iter();
                    cells.map(|column| (column.show)(&process)).collect()
                })
                .collect(),
        })
    }
}

fn collect(cgroup: &Path, ids: &mut Vec<u32>) {
    if let Ok(list) = fs::read_to_string(cgroup.join("cgroup.procs")) {
        ids.extend(list.lines().filter_map(|id| id.parse::<u32>().ok()));
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for item in below.filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&item.path(), ids);
    }
}
