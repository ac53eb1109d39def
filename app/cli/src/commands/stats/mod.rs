//! `stats`: what containers use, once or live.

mod sample;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use self::sample::{Sample, Use};
use super::{Environment, container};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    output::{
        human,
        table::{Column, Format, Row},
    },
    session::terminal,
};

/// How often the table is shown again.
const REFRESH: Duration = Duration::from_millis(500);

/// How long the first table waits for all to be measured.
const FIRST: Duration = Duration::from_secs(2);

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the first result and end
    #[arg(long)]
    no_stream: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// The containers; all that run when none is named
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 8] = [
    column("ID", "CONTAINER ID"),
    column("Name", "NAME"),
    column("CPUPerc", "CPU %"),
    column("MemUsage", "MEM USAGE / LIMIT"),
    column("MemPerc", "MEM %"),
    column("NetIO", "NET I/O"),
    column("BlockIO", "BLOCK I/O"),
    column("PIDs", "PIDS"),
];

/// What templates can name besides.
const MORE: [Column; 1] = [column("Container", "CONTAINER")];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

/// One that is shown: how it was named, and what it used last.
#[derive(Debug, Clone)]
struct Shown {
    named: String,
    last: Option<Use>,
    /// Nobody measures it any more.
    over: bool,
}

/// Those that are shown, in the order of their number.
type Table = Arc<Mutex<BTreeMap<usize, Shown>>>;

fn lock(table: &Table) -> MutexGuard<'_, BTreeMap<usize, Shown>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `dctl stats`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: StatsArguments,
) -> Result<(), Failure> {
    let all_columns = [&COLUMNS[..], &MORE].concat();
    let format = Format::parse(arguments.format.as_deref(), &COLUMNS, &all_columns)?;
    let client = environment.machine().await?;
    let view = View {
        format,
        whole: arguments.no_trunc,
    };
    if arguments.no_stream {
        return once(&client, &arguments, &view).await;
    }
    live(&client, &arguments, &view).await
}

/// The containers to show.
async fn selected(client: &Client, arguments: &StatsArguments) -> Result<Vec<String>, Error> {
    if !arguments.containers.is_empty() {
        return Ok(arguments.containers.clone());
    }
    let call = Call::get("/containers/json").flag("all", arguments.all);
    let listed: Vec<Listed> = client.json(&call).await?;
    Ok(listed.into_iter().map(|container| container.id).collect())
}

/// Measures each once, all at the same time, and shows the result.
async fn once(client: &Client, arguments: &StatsArguments, view: &View) -> Result<(), Failure> {
    let names = selected(client, arguments).await?;
    let measured = names.iter().map(async |name| {
        let call = Call::get(container::path(name, "stats")).query("stream", "0");
        client.json::<Sample>(&call).await
    });
    let mut rows = Vec::new();
    for (name, sample) in names
        .iter()
        .zip(futures_util::future::join_all(measured).await)
    {
        match sample {
            Ok(sample) => rows.push(row(name, Some(&sample.used()), view.whole)),
            // Gone since it was listed.
            Err(error) if arguments.containers.is_empty() && error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    failure::print(view.format.render(rows)?)
}

/// Shows the table again and again, until the user has seen enough or the containers
/// that were named are gone.
async fn live(client: &Client, arguments: &StatsArguments, view: &View) -> Result<(), Failure> {
    let table = Table::default();
    let mut followed = BTreeMap::new();
    let named = !arguments.containers.is_empty();
    let mut next = 0;
    let mut screen = Screen::default();
    let began = tokio::time::Instant::now();
    loop {
        if !named || next == 0 {
            for name in selected(client, arguments).await? {
                let known = followed.get(&name).is_some_and(|number| {
                    lock(&table).get(number).is_some_and(|shown| !shown.over)
                });
                if known {
                    continue;
                }
                if named {
                    // An error about one that was named by mistake.
                    container::inspect(client, &name).await?;
                }
                followed.insert(name.clone(), next);
                follow(client, &table, next, name);
                next += 1;
            }
            if !named {
                lock(&table).retain(|_, shown| !shown.over);
            }
        }
        let shown: Vec<Shown> = lock(&table).values().cloned().collect();
        let waiting = shown.iter().any(|one| one.last.is_none() && !one.over);
        if !waiting || began.elapsed() >= FIRST {
            let rows = shown
                .iter()
                .map(|one| row(&one.named, one.last.as_ref(), view.whole))
                .collect();
            screen.show(&view.format.render(rows)?)?;
            if named && shown.iter().all(|one| one.over) {
                return Ok(());
            }
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// Measures one container for as long as there is one.
fn follow(client: &Client, table: &Table, number: usize, name: String) {
    let shown = Shown {
        named: name.clone(),
        last: None,
        over: false,
    };
    lock(table).insert(number, shown);
    let (client, table) = (client.clone(), Arc::clone(table));
    tokio::spawn(async move {
        let call = Call::get(container::path(&name, "stats")).query("stream", "1");
        let measured = async {
            let mut samples = client.lines::<Sample>(&call).await?;
            while let Some(sample) = samples.next().await? {
                if let Some(shown) = lock(&table).get_mut(&number) {
                    shown.last = Some(sample.used());
                }
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = measured.await {
            tracing::debug!(%error, name, "stats ended");
        }
        if let Some(shown) = lock(&table).get_mut(&number) {
            shown.over = true;
            shown.last = None;
        }
    });
}

struct View {
    format: Format,
    whole: bool,
}

/// Standard output, on which a table takes the place of the one before if it is a
/// terminal.
#[derive(Debug, Default)]
struct Screen {
    used: bool,
}

impl Screen {
    fn show(&mut self, text: &str) -> Result<(), Failure> {
        if !terminal::stdout_is_terminal() {
            return failure::print(text);
        }
        let begin = if self.used { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        self.used = true;
        // Each line clears what was to its right, the last what was below.
        let lines = text.replace('\n', "\x1b[K\n");
        failure::print(format!("{begin}{lines}\x1b[J"))
    }
}

fn row(named: &str, used: Option<&Use>, whole: bool) -> Row {
    const NONE: &str = "--";
    let mut row = Row::default();
    let both = |first: String, second: String| format!("{first} / {second}");
    row.set("Container", named);
    let Some(used) = used else {
        let id = if whole { named } else { human::short_id(named) };
        for (field, text) in [
            ("ID", id),
            ("Name", NONE),
            ("CPUPerc", NONE),
            ("MemPerc", NONE),
            ("MemUsage", "-- / --"),
            ("NetIO", NONE),
            ("BlockIO", NONE),
            ("PIDs", NONE),
        ] {
            row.set(field, text);
        }
        return row;
    };
    let id = if whole {
        used.id.as_str()
    } else {
        human::short_id(&used.id)
    };
    row.set("ID", id);
    row.set("Name", used.name.as_str());
    row.set("CPUPerc", format!("{:.2}%", used.cpu));
    row.set("MemPerc", format!("{:.2}%", used.memory_share()));
    row.set(
        "MemUsage",
        both(
            human::binary_size(used.memory),
            human::binary_size(used.memory_limit),
        ),
    );
    row.set(
        "NetIO",
        both(human::size(used.received, 3), human::size(used.sent, 3)),
    );
    row.set(
        "BlockIO",
        both(human::size(used.read, 3), human::size(used.written, 3)),
    );
    row.set("PIDs", Value::from(used.pids.to_string()));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let used = Use {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            cpu: 12.345,
            memory: 3_500_000,
            memory_limit: 7 << 30,
            received: 1500,
            sent: 0,
            read: 4_261_550,
            written: 0,
            pids: 3,
        };
        let rows = vec![row("web", Some(&used), false), row("gone", None, false)];
        let table = Format::parse(None, &COLUMNS, &COLUMNS)
            .unwrap()
            .render(rows)
            .unwrap();
        assert_eq!(
            table,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O      BLOCK I/O     PIDS\n\
             0123456789ab   web       12.35%    3.338MiB / 7GiB     0.05%     1.5kB / 0B   4.26MB / 0B   3\n\
             gone           --        --        -- / --             --        --           --            --\n"
        );
    }
}
