//! PostgreSQL with its files in a folder of this host: made by root for its own user,
//! killed in the middle of writes, and nothing that it acknowledged is lost.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use tests::{
    Running,
    command::{self, LONG},
    installation::wait_until,
};

use crate::machine::{self, Container, Folder, Image, Machine, Transport};

/// Where the database is, and the way to its user.
const AS_POSTGRES: &str = "export PGDATA=/var/lib/postgresql/data PGHOST=/tmp PGUSER=postgres
    as() { setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"; }
    ";

/// What the entry points of database images do first: root makes the directory the
/// user's, who makes the database. Small files of its log: more of them come and go.
const MAKE: &str = "set -e
    chown postgres:postgres $PGDATA
    chmod 700 $PGDATA
    as initdb --data-checksums --auth=trust --no-instructions --no-sync --wal-segsize=1";

const SERVER: &str = "exec setpriv --reuid=postgres --regid=postgres --clear-groups \\
        postgres -c listen_addresses= -c unix_socket_directories=/tmp";

/// A folder with a new database. To make one takes a software CPU long, so it is made
/// over one transport, and copied with what tells its owner.
fn database() -> Folder {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = Folder::new();
        let mount = folder.mounted("/var/lib/postgresql/data");
        let wait = ["sleep", "infinity"];
        let container =
            Machine::with(Transport::Virtiofs).container(Image::Postgres, &["-v", &mount], &wait);
        let script = format!("{AS_POSTGRES}{MAKE}");
        container.start(&script).finish(MADE_WITHIN).success();
        let kept = machine::kept("database");
        copy(folder.path(), &kept);
        kept
    });
    let folder = Folder::new();
    copy(made, folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--no-target-directory"])
        .args([from, to]);
    command::run(&mut copy, b"", LONG).success();
}

/// Writes rows until it is ended, and says the number of each one that is committed.
fn writer(container: &Container, number: u32) -> Running {
    container.start(&format!(
        "{AS_POSTGRES} seq 1000000 |
        sed 's/.*/INSERT INTO written VALUES ({number}, &, md5(&::text)) RETURNING n;/' |
        stdbuf -oL psql --quiet --no-align --tuples-only"
    ))
}

fn query(container: &Container, statement: &str) -> String {
    container
        .exec(&format!("{AS_POSTGRES} psql -qAtc \"{statement}\""))
        .success()
        .text()
}

fn wait_until_ready(container: &Container) {
    wait_until("the server is ready", LONG, || {
        let ready = container.exec(&format!("{AS_POSTGRES} pg_isready --quiet"));
        ready.code() == 0
    });
}

/// How long a software CPU may take to make a database.
const MADE_WITHIN: Duration = Duration::from_mins(10);

/// Rows that each writer is to have committed before the crash.
const ENOUGH: &str = "\n100\n";

fn survives(transport: Transport) {
    let machine = Machine::with(transport);
    let folder = database();
    let mount = folder.mounted("/var/lib/postgresql/data");
    let server = format!("{AS_POSTGRES}{SERVER}");
    let command = ["sh", "-c", server.as_str()];
    let container = machine.container(Image::Postgres, &["-v", &mount], &command);
    wait_until_ready(&container);

    // Inside it is the server's alone; here it is its maker's.
    let shown = container
        .exec("stat -c '%U %a' /var/lib/postgresql/data")
        .success();
    assert_eq!(shown.text(), "postgres 700");
    let me = rustix::process::geteuid().as_raw();
    assert_eq!(fs::metadata(folder.path()).unwrap().uid(), me);

    query(
        &container,
        "CREATE TABLE written (writer int, n int, sum text, PRIMARY KEY (writer, n))",
    );
    let writers = [1, 2].map(|number| {
        let mut writer = writer(&container, number);
        writer.wait_for_output(ENOUGH, LONG);
        writer
    });
    container.dctl(&["kill", "--signal", "KILL"]).success();
    let committed = writers.map(|writer| {
        let said = writer.finish(Duration::from_secs(30)).text();
        let last: u32 = said.lines().last().unwrap().parse().unwrap();
        last
    });

    container.dctl(&["wait"]).success();
    container.dctl(&["start"]).success();
    wait_until_ready(&container);
    let logs = container.dctl(&["logs"]).success();
    assert!(
        logs.error().contains("automatic recovery in progress"),
        "{logs}"
    );
    for (writer, committed) in [1, 2].into_iter().zip(committed) {
        let statement = format!(
            "SELECT count(*) FROM written WHERE writer = {writer} AND n <= {committed} \
             AND sum = md5(n::text)"
        );
        assert_eq!(query(&container, &statement), committed.to_string());
    }
    // It is sound, and goes on.
    query(&container, "INSERT INTO written VALUES (3, 1, '')");
    query(&container, "REINDEX TABLE written");
    query(&container, "VACUUM FULL written");
    container.dctl(&["stop"]).success();
    let check = format!("{AS_POSTGRES} as pg_checksums --check");
    let checked = machine.run(Image::Postgres, &["-v", &mount], &check);
    assert!(
        checked.success().text().contains("Bad checksums:  0"),
        "the checksums of all pages are right"
    );
}

#[test]
fn survives_its_crash_over_virtiofs() {
    survives(Transport::Virtiofs);
}

#[test]
fn survives_its_crash_over_vsock() {
    survives(Transport::Vsock);
}
