//! What containers use and changed, and what happened: stats, top, ps, diff, events,
//! port, prune, logs' details.

use tests::{command::LONG, installation::wait_until};

use crate::shared::{Name, dctl, shared};

fn started(options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let arguments = [
        &["run", "-d", "--name", name.as_str()],
        options,
        &[&shared().busybox, "sh", "-c", script],
    ]
    .concat();
    dctl(&arguments).success();
    name
}

#[test]
fn stats_are_shown_once_and_live() {
    let name = started(&["-m", "64m", "--pids-limit", "20"], "while :; do :; done");
    let format = "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}";
    let used = dctl(&["stats", "--no-stream", "--format", format, name.as_str()])
        .success()
        .text();
    let fields: Vec<_> = used.split('|').collect();
    assert_eq!(fields[0], name.as_str());
    let percent: f64 = fields[1].trim_end_matches('%').parse().unwrap();
    // How much of a CPU it has is the host's affair.
    assert!(percent > 0.0, "{used}");
    assert!(fields[2].ends_with("/ 64MiB"), "{used}");
    assert_eq!(fields[3], "1");
    let table = dctl(&["stats", "--no-stream"]).success().text();
    assert!(table.starts_with("CONTAINER ID   NAME"), "{table}");
    assert!(table.contains(name.as_str()), "{table}");
    // Of one that is named it ends with the container.
    let mut live = shared().installation.start(&["stats", name.as_str()]);
    live.wait_for_output("64MiB", LONG);
    dctl(&["rm", "-f", name.as_str()]).success();
    live.finish(LONG).success();
    dctl(&["stats", "--no-stream", "nobody"]).fails_with(1, "No such container");
    let ended = started(&[], "true");
    dctl(&["wait", ended.as_str()]).success();
    let all = dctl(&[
        "stats",
        "-a",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDs}}",
    ])
    .success();
    let idle = format!("{} 0", ended.as_str());
    assert!(all.text().lines().any(|found| found == idle), "{all}");
}

#[test]
fn top_takes_options_of_ps() {
    let name = started(&["-u", "1000"], "sleep 600; true");
    let top = |options: &[&str]| {
        let arguments = [&["top", name.as_str()], options].concat();
        dctl(&arguments).success().text()
    };
    wait_until("the script has begun", LONG, || {
        top(&[]).contains("sleep 600")
    });
    assert!(top(&[]).starts_with("UID "), "{}", top(&[]));
    let own = top(&["-o", "pid,user,comm,args"]);
    assert!(own.lines().next().unwrap().starts_with("PID"), "{own}");
    assert!(own.contains("1000") && own.contains("sleep 600"), "{own}");
    assert!(top(&["aux"]).starts_with("USER"));
    dctl(&["top", name.as_str(), "-o", "nonsense"]).fails_with(1, "nonsense");
}

#[test]
fn changes_and_sizes_are_told() {
    let script = "echo x > /added; rm /etc/group; head -c 5000 /dev/zero > /bin/zeros";
    let name = started(&[], script);
    dctl(&["wait", name.as_str()]).success();
    let diff = dctl(&["diff", name.as_str()]).success().text();
    for line in [
        "A /added",
        "C /bin",
        "A /bin/zeros",
        "C /etc",
        "D /etc/group",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
    }
    assert!(
        !diff.contains("/proc") && !diff.contains("resolv.conf"),
        "{diff}"
    );
    let filter = format!("name=^{}$", name.as_str());
    let size = dctl(&[
        "ps",
        "-a",
        "-s",
        "--filter",
        &filter,
        "--format",
        "{{.Size}}",
    ])
    .success()
    .text();
    assert!(size.starts_with("5kB (virtual "), "{size}");
    let sizes = dctl(&["inspect", "-s", "-f", "{{.SizeRw}}", name.as_str()]).success();
    assert_eq!(sizes.text(), "5002");
}

#[test]
fn ps_finds_containers_by_what_they_are() {
    let name = started(
        &["--label", "team=blue", "--expose", "8080", "-v", "/data"],
        "exit 9",
    );
    dctl(&["wait", name.as_str()]).success();
    let id = shared().installation.inspect(name.as_str(), "{{.Id}}");
    let by_id = format!("id={}", &id[..12]);
    let by_image = format!("ancestor={}", shared().busybox);
    for filter in [
        by_id.as_str(),
        by_image.as_str(),
        "label=team",
        "label=team=blue",
        "exited=9",
        "status=exited",
        "volume=/data",
        "expose=8080/tcp",
        "expose=8000-9000",
        "health=none",
        "is-task=false",
    ] {
        let own = format!("name=^{}$", name.as_str());
        let found = dctl(&["ps", "-a", "-q", "--no-trunc", "-f", &own, "-f", filter]).success();
        assert_eq!(found.text(), id, "{filter}");
    }
    for filter in [
        "label=team=red",
        "exited=0",
        "status=running",
        "health=healthy",
        "expose=1",
    ] {
        let own = format!("name=^{}$", name.as_str());
        let found = dctl(&["ps", "-a", "-q", "-f", &own, "-f", filter]).success();
        assert_eq!(found.text(), "", "{filter}");
    }
    dctl(&["ps", "-f", "nonsense=1"]).fails_with(1, "invalid filter");
    let json = dctl(&["ps", "-a", "-n", "1", "--format", "json"]).success();
    let row: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        row["Names"].is_string() && row["State"].is_string(),
        "{row}"
    );
}

#[test]
fn events_of_the_past_are_told_again() {
    let name = started(&[], "exit 5");
    dctl(&["wait", name.as_str()]).success();
    let filter = format!("container={}", name.as_str());
    let events = |more: &[&str]| {
        let arguments = [
            &["events", "--since", "10m", "--until", "0s", "-f", &filter],
            more,
        ]
        .concat();
        dctl(&arguments).success().text()
    };
    let actions = events(&["--format", "{{.Action}}"]);
    assert_eq!(actions, "create\nstart\ndie");
    let code = events(&[
        "-f",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    assert_eq!(code, "5");
    assert_eq!(events(&["-f", "type=image"]), "");
    let line = events(&["-f", "event=start"]);
    assert!(
        line.contains(" container start ") && line.contains("name="),
        "{line}"
    );
}

#[test]
fn logged_attributes_are_shown_on_request() {
    let options = [
        "--label",
        "team=blue",
        "-e",
        "A=1",
        "--log-opt",
        "labels=team",
        "--log-opt",
        "env=A",
    ];
    let name = started(&options, "echo said");
    dctl(&["wait", name.as_str()]).success();
    let plain = dctl(&["logs", name.as_str()]).success();
    assert_eq!(plain.text(), "said");
    let detailed = dctl(&["logs", "--details", name.as_str()]).success();
    assert_eq!(detailed.text(), "A=1,team=blue said");
}

#[test]
fn ports_that_are_not_published_are_not_shown() {
    let name = started(&["--expose", "80"], "sleep 600");
    assert_eq!(dctl(&["port", name.as_str()]).success().text(), "");
    dctl(&["port", name.as_str(), "80"]).fails_with(1, "no public port '80/tcp' published");
}

#[test]
fn prune_asks_and_removes_what_is_stopped() {
    let label = format!("prune-{}", std::process::id());
    let gone = started(&["--label", &label], "head -c 5000 /dev/zero > /x");
    let kept = started(&["--label", &label], "sleep 600");
    dctl(&["wait", gone.as_str()]).success();
    let filter = format!("label={label}");
    let refused = shared()
        .installation
        .dctl_with_input(&["container", "prune", "--filter", &filter], b"n\n");
    refused.fails_with(1, "cancelled");
    let asked = shared()
        .installation
        .dctl_with_input(&["container", "prune", "--filter", &filter], b"y\n")
        .success();
    assert!(
        asked
            .text()
            .contains("WARNING! This will remove all stopped containers.")
    );
    assert!(
        asked.text().contains("Total reclaimed space: 5kB"),
        "{asked}"
    );
    dctl(&["inspect", gone.as_str()]).fails_with(1, gone.as_str());
    dctl(&["inspect", kept.as_str()]).success();
}

#[test]
fn a_tree_deeper_than_any_path_is_no_obstacle() {
    // Two trees as deep as one path can say, one at the bottom of the other.
    let script = "set -e; cd /tmp; deep=$(printf 'dddd/%.0s' $(seq 700)); \
                  mkdir -p $deep first/$deep; mv first $deep";
    let name = started(&[], script);
    assert_eq!(dctl(&["wait", name.as_str()]).success().text(), "0");
    let diff = dctl(&["diff", name.as_str()]).success().text();
    assert!(diff.lines().count() > 500, "{diff}");
    let filter = format!("name=^{}$", name.as_str());
    dctl(&["ps", "-a", "-s", "--filter", &filter]).success();
    let id = shared().installation.inspect(name.as_str(), "{{.Id}}");
    dctl(&["rm", name.as_str()]).success();
    wait_until("its files are gone", LONG, || {
        // Names alone: what is on its way out can be gone when it is looked at.
        let script = "echo /data/containers/* /data/containers-trash/*";
        let listed = dctl(&["machine", "shell", "sh", "-c", script])
            .success()
            .text();
        // Of others there may be more on their way out.
        !listed.contains(&id)
    });
}
