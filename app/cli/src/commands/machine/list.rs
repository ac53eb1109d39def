//! `machine ls`.

use clap::Args;
use dctl_machine::{DEFAULT_MACHINE, Paths};
use serde_json::Value;

use super::status::describe_in_full;
use crate::{
    failure::{self, Failure},
    output::{
        human,
        table::{Column, Format, Row},
    },
};

/// Arguments of `machine ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only display names
    #[arg(short, long)]
    quiet: bool,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 7] = [
    column("Name", "NAME"),
    column("State", "STATE"),
    column("Driver", "DRIVER"),
    column("CPUs", "CPUS"),
    column("Memory", "MEMORY"),
    column("Disk", "DISK"),
    column("Used", "USED"),
];
const ALL_COLUMNS: [Column; 8] = [
    COLUMNS[0],
    COLUMNS[1],
    COLUMNS[2],
    COLUMNS[3],
    COLUMNS[4],
    COLUMNS[5],
    COLUMNS[6],
    column("Socket", "SOCKET"),
];

/// `dctl machine ls`. The default machine is there even before its first boot.
pub(super) async fn run(arguments: &ListArguments) -> Result<(), Failure> {
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.Name}}"),
        (_, format) => format,
    };
    let format = Format::parse(format, &COLUMNS, &ALL_COLUMNS)?;
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let mut names = paths.machines().map_err(Failure::engine)?;
    if !names.iter().any(|name| name == DEFAULT_MACHINE) {
        names.push(DEFAULT_MACHINE.to_owned());
        names.sort();
    }
    let mut rows = Vec::with_capacity(names.len());
    for name in &names {
        rows.push(row(&describe_in_full(&paths, name).await?));
    }
    failure::print(format.render(rows)?)
}

fn row(machine: &Value) -> Row {
    let number = |field: &str| machine[field].as_u64().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut row = Row::default();
    row.set("Name", text(&machine["name"]));
    row.set("State", text(&machine["state"]));
    row.set("Driver", text(&machine["driver"]["driver"]));
    row.set("CPUs", number("cpus"));
    row.set("Memory", human::binary_size(number("memory_mib") << 20));
    row.set("Disk", human::binary_size(number("disk_size")));
    row.set("Used", human::binary_size(number("disk_used")));
    row.set("Socket", text(&machine["socket"]));
    row
}
