//! What happens, as `GET /events` tells it.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

pub(super) fn requests(s: &mut Session<'_>) {
    bad(s);
    containers(s);
    objects(s);
    images(s);
    endings(s);
}

/// What comes of an image that has labels: by its label, and by its name and id.
fn images(s: &mut Session<'_>) {
    let name = "$registry/contract-event";
    let act = |s: &mut Session<'_>, method, path: &str| s.prepare(method, path, Value::Null);
    moment(s, "since");
    make(s, "contract-eventful", shell("events", "true"));
    let commit = format!("/commit?container=contract-eventful&repo={name}&tag=1&comment=c");
    act(s, "POST", &commit);
    act(s, "GET", &format!("/images/{name}:1/json"));
    s.keep("event-image", "/Id");
    act(
        s,
        "POST",
        &format!("/images/{name}:1/tag?repo={name}&tag=2"),
    );
    s.send(
        Ask::new("POST", &format!("/images/{name}/push?tag=1")).header("X-Registry-Auth", "e30="),
    );
    act(s, "GET", &format!("/images/{name}:1/get"));
    act(s, "DELETE", &format!("/images/{name}:2"));
    act(s, "DELETE", &format!("/images/{name}:1"));
    act(s, "POST", &format!("/images/create?fromImage={name}&tag=1"));
    act(s, "DELETE", &format!("/images/{name}:1"));
    remove(s, &["contract-eventful"]);
    moment(s, "until");
    let between = "/events?since=$since&until=$until";
    for filter in [
        r#""type":["image"],"label":["contract=events"]"#,
        r#""type":["image"],"image":["$event-image"]"#,
        r#""type":["image"],"image":["$registry/contract-event"]"#,
        r#""type":["image"],"image":["$registry/contract-event:1"]"#,
        r#""type":["container"],"label":["contract=events"]"#,
    ] {
        s.get(&format!("{between}&filters={{{filter}}}"));
    }
}

/// The ways in which a container ends.
fn endings(s: &mut Session<'_>) {
    let name = "contract-ending";
    let act = |s: &mut Session<'_>, method, path: &str| {
        s.prepare(method, &format!("/containers/{name}{path}"), Value::Null);
    };
    // It ends as it is told to, or not at all.
    let obedient = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    // Once by itself: a second end may or may not be among the events of that time.
    let once = "[ -e /ended ] && sleep 600; touch /ended; echo ready; exit 7";
    let ways: &[(&str, &[(&'static str, &str)])] = &[
        (obedient, &[("POST", "/stop?t=30")]),
        (obedient, &[("POST", "/restart?t=30")]),
        (obedient, &[("POST", "/kill?signal=TERM")]),
        (
            obedient,
            &[("POST", "/kill?signal=WINCH"), ("POST", "/kill")],
        ),
        (stubborn, &[("POST", "/stop?t=1")]),
        (stubborn, &[("POST", "/restart?t=1")]),
        (stubborn, &[("POST", "/kill")]),
        (stubborn, &[("DELETE", "?force=1")]),
        (stubborn, &[("POST", "/pause"), ("POST", "/kill")]),
        (stubborn, &[("POST", "/pause"), ("DELETE", "?force=1")]),
        (
            once,
            &[("POST", "/wait"), ("POST", "/stop"), ("DELETE", "")],
        ),
        (once, &[("POST", "/wait"), ("POST", "/restart?t=1")]),
    ];
    for (script, actions) in ways {
        remove(s, &[name]);
        moment(s, "since");
        let mut config = shell("endings", script);
        config["StopSignal"] = json!("SIGTERM");
        start(s, name, config);
        s.wait_for_output(name, "ready");
        for (method, path) in *actions {
            act(s, method, path);
        }
        let restarts = actions.iter().any(|(_, path)| path.contains("restart"));
        let removed = actions.iter().any(|(method, _)| *method == "DELETE");
        if !restarts && !removed {
            s.wait_for_state(name, "exited");
        }
        moment(s, "until");
        let actions: Vec<_> = actions
            .iter()
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        let query = r#"/events?since=$since&until=$until&filters={"type":["container"],"label":["contract=endings"]}"#;
        s.get(&format!("{query}&after={}", actions.join(",")));
    }
    remove(s, &[name]);
}

/// Keeps what time it is by the engine's own clock.
fn moment(s: &mut Session<'_>, name: &str) {
    s.prepare("GET", "/info", Value::Null);
    s.keep_seconds(name, "/SystemTime");
}

fn bad(s: &mut Session<'_>) {
    for query in [
        "since=nonsense",
        "until=nonsense",
        "since=9999999999&until=1",
        "until=1&filters=nonsense",
        r#"until=1&filters={"nonsense":["x"]}"#,
        r#"until=1&filters={"type":["nonsense"]}"#,
        "since=1&until=2",
        "until=1",
    ] {
        s.get(&format!("/events?{query}"));
    }
    s.send(Ask::new("GET", r#"/events?filters={"type":["contract-nobody"]}"#).head_only());
    s.send(
        Ask::new(
            "GET",
            r#"/v1.24/events?filters={"type":["contract-nobody"]}"#,
        )
        .head_only(),
    );
}

fn containers(s: &mut Session<'_>) {
    let name = "contract-eventful";
    remove(s, &[name]);
    moment(s, "since");
    let at = |path: &str| format!("/containers/{name}{path}");
    let act = |s: &mut Session<'_>, path: &str, body: Value| s.prepare("POST", &at(path), body);
    start(s, name, shell("events", "sleep 600"));
    act(s, "/exec", json!({"Cmd": ["false"], "AttachStdout": true}));
    s.keep("exec", "/Id");
    s.prepare("POST", "/exec/$exec/start", json!({}));
    // Its output ends before it does.
    s.wait_for("/exec/$exec/json", "/Running", &json!(false));
    act(s, "/pause", Value::Null);
    act(s, "/unpause", Value::Null);
    act(s, "/resize?h=24&w=80", Value::Null);
    act(s, "/rename?name=contract-eventful-2", Value::Null);
    s.prepare(
        "POST",
        "/containers/contract-eventful-2/rename?name=contract-eventful",
        Value::Null,
    );
    act(s, "/update", json!({"CpuShares": 100}));
    s.prepare("GET", &at("/top"), Value::Null);
    s.prepare("GET", &at("/archive?path=/etc/passwd"), Value::Null);
    s.prepare("GET", &at("/export"), Value::Null);
    // Its stop signal ends it. Without patience it may or may not be killed once more.
    act(s, "/restart?t=30", Value::Null);
    act(s, "/kill?signal=URG", Value::Null);
    act(s, "/kill", Value::Null);
    s.wait_for_state(name, "exited");
    s.prepare(
        "POST",
        "/commit?container=contract-eventful&repo=contract-event&tag=1",
        Value::Null,
    );
    remove(s, &[name]);
    moment(s, "until");
    s.get(r#"/events?since=$since&until=$until&filters={"type":["container"],"label":["contract=events"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"container":["contract-eventful"],"event":["die"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"event":{"exec_die":true},"label":{"contract=events":true}}"#);
    s.get(r#"/v1.24/events?since=$since&until=$until&filters={"container":["contract-eventful"],"event":["start"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"image":["contract-event:1"]}"#);
}

fn objects(s: &mut Session<'_>) {
    moment(s, "since");
    s.prepare(
        "POST",
        "/images/contract-event:1/tag?repo=contract-event&tag=2",
        Value::Null,
    );
    s.prepare("DELETE", "/images/contract-event:2", Value::Null);
    s.prepare("DELETE", "/images/contract-event:1", Value::Null);
    s.prepare("POST", "/volumes/create", json!({"Name": "contract-event"}));
    s.prepare(
        "POST",
        "/networks/create",
        json!({"Name": "contract-event"}),
    );
    let mut config = shell("events", "sleep 600");
    config["HostConfig"] = json!({"NetworkMode": "contract-event", "Binds": ["contract-event:/x"]});
    start(s, "contract-eventful", config);
    remove(s, &["contract-eventful"]);
    s.prepare("DELETE", "/volumes/contract-event", Value::Null);
    s.prepare("DELETE", "/networks/contract-event", Value::Null);
    moment(s, "until");
    let between = "/events?since=$since&until=$until";
    s.get(&format!(
        r#"{between}&filters={{"volume":["contract-event"]}}"#
    ));
    s.get(&format!(
        r#"{between}&filters={{"network":["contract-event"]}}"#
    ));
    s.get(&format!(r#"{between}&filters={{"type":["image"],"event":["tag","untag"],"image":["contract-event"]}}"#));
    s.get(&format!(
        r#"{between}&filters={{"type":["container"],"label":["contract=events"]}}"#
    ));
}
