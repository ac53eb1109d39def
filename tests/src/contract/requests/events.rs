//! What happens, as `GET /events` tells it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    remove, shell, start,
};

pub(super) fn requests(s: &mut Session<'_>) {
    bad(s);
    containers(s);
    objects(s);
}

/// Seconds since 1970, with their fraction.
fn now() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
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
    s.keep_value("since", now());
    let at = |path: &str| format!("/containers/{name}{path}");
    let act = |s: &mut Session<'_>, path: &str, body: Value| s.prepare("POST", &at(path), body);
    start(s, name, shell("events", "sleep 600"));
    act(s, "/exec", json!({"Cmd": ["false"], "AttachStdout": true}));
    s.keep("exec", "/Id");
    s.prepare("POST", "/exec/$exec/start", json!({}));
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
    act(s, "/restart?t=0", Value::Null);
    act(s, "/kill?signal=URG", Value::Null);
    act(s, "/kill", Value::Null);
    s.wait_for_state(name, "exited");
    s.prepare(
        "POST",
        "/commit?container=contract-eventful&repo=contract-event&tag=1",
        Value::Null,
    );
    remove(s, &[name]);
    s.keep_value("until", now());
    s.get(r#"/events?since=$since&until=$until&filters={"type":["container"],"label":["contract=events"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"container":["contract-eventful"],"event":["die"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"event":{"exec_die":true},"label":{"contract=events":true}}"#);
    s.get(r#"/v1.24/events?since=$since&until=$until&filters={"container":["contract-eventful"],"event":["start"]}"#);
    s.get(r#"/events?since=$since&until=$until&filters={"image":["contract-event:1"]}"#);
}

fn objects(s: &mut Session<'_>) {
    s.keep_value("since", now());
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
    s.keep_value("until", now());
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
