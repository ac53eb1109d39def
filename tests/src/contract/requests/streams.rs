//! Containers' output and input: logs, attach, websockets.

use serde_json::json;

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

const TALKER: &str = "contract-talker";

pub(super) fn requests(s: &mut Session<'_>) {
    logs(s);
    attach(s);
    terminal(s);
    websocket(s);
}

/// Runs a container that does one thing, and another when what it said first (`said`) is in
/// the log: of two streams, either may be read first.
fn talk(s: &mut Session<'_>, first: &str, said: &[&str], then: &str) {
    let script = format!("trap '{then}; exit' USR1; {first}; while :; do sleep 0.1; done");
    start(s, TALKER, shell("streams", &script));
    for word in said {
        s.wait_for_output(TALKER, word);
    }
    let kill = format!("/containers/{TALKER}/kill?signal=USR1");
    s.prepare("POST", &kill, serde_json::Value::Null);
    s.wait_for_state(TALKER, "exited");
}

fn logs(s: &mut Session<'_>) {
    talk(s, "echo one; echo err >&2", &["one", "err"], "echo two");
    for options in [
        "stdout=1&stderr=1",
        "stdout=1",
        "stderr=1",
        "stdout=1&tail=1",
        "stdout=1&tail=all",
        "stdout=1&tail=nonsense",
        "stdout=1&tail=-1",
        "stdout=1&tail=0",
        "stdout=1&timestamps=1&tail=1",
        "stdout=1&follow=1",
        "stdout=1&since=1",
        "stdout=1&since=9999999999",
        "stdout=1&until=1",
        "stdout=1&since=nonsense",
        "stdout=1&until=nonsense",
        "stdout=1&details=1",
        "",
    ] {
        s.get(&format!("/containers/contract-talker/logs?{options}"));
    }
    s.get("/v1.41/containers/contract-talker/logs?stdout=1&stderr=1");
    s.get("/containers/contract-nobody/logs?stdout=1");
    s.get("/containers/contract-nobody/logs");
    s.head("/containers/contract-talker/logs?stdout=1");
    remove(s, &[TALKER]);
}

fn attach(s: &mut Session<'_>) {
    let path = "/containers/contract-talker/attach";
    let with = |options: &str| Ask::new("POST", &format!("{path}?{options}"));
    let mut config = shell("streams", "echo ready; cat; echo end >&2");
    config["OpenStdin"] = json!(true);
    config["StdinOnce"] = json!(true);
    make(s, TALKER, config.clone());
    // Not started: the stream waits for it.
    s.send(with("stream=1&stdout=1").upgrade("").head_only());
    s.send(with("logs=1&stdout=1&stderr=1").upgrade(""));
    s.send(with("logs=1&stdout=1&stderr=1"));
    start(s, TALKER, config.clone());
    s.wait_for_output(TALKER, "ready");
    s.send(with("logs=1&stream=1&stdin=1&stdout=1&stderr=1").upgrade("what is typed\n"));
    s.wait_for_state(TALKER, "exited");
    s.send(with("logs=1&stdout=1&stderr=1").upgrade(""));
    s.send(with("logs=1&stdout=1"));
    // These wait for its next start.
    s.send(
        with("logs=1&stream=1&stdout=1&stderr=1")
            .upgrade("")
            .head_only(),
    );
    s.send(with("stream=1&stdout=1&stderr=1").upgrade("").head_only());
    s.send(with("").upgrade(""));
    s.send(with("detachKeys=nonsense,keys&stream=1&stdout=1").upgrade(""));
    s.send(
        Ask::new(
            "POST",
            "/v1.41/containers/contract-talker/attach?logs=1&stdout=1",
        )
        .upgrade(""),
    );
    s.send(
        Ask::new(
            "POST",
            "/containers/contract-nobody/attach?stream=1&stdout=1",
        )
        .upgrade(""),
    );
    s.post("/containers/contract-nobody/attach?stream=1&stdout=1");
    remove(s, &[TALKER]);
    start(s, TALKER, shell("streams", "sleep 600"));
    s.prepare(
        "POST",
        "/containers/contract-talker/pause",
        serde_json::Value::Null,
    );
    s.send(with("stream=1&stdout=1").upgrade(""));
    remove(s, &[TALKER]);
}

fn terminal(s: &mut Session<'_>) {
    let mut config = shell("streams", "stty size; cat");
    config["OpenStdin"] = json!(true);
    config["StdinOnce"] = json!(true);
    config["Tty"] = json!(true);
    config["HostConfig"] = json!({"ConsoleSize": [33, 99]});
    start(s, TALKER, config);
    s.wait_for_output(TALKER, "99");
    s.send(Ask::new("POST", "/containers/contract-talker/attach?logs=1&stdout=1").upgrade(""));
    s.prepare(
        "POST",
        "/containers/contract-talker/resize?h=40&w=100",
        serde_json::Value::Null,
    );
    s.prepare(
        "POST",
        "/containers/contract-talker/kill",
        serde_json::Value::Null,
    );
    s.wait_for_state(TALKER, "exited");
    s.get("/containers/contract-talker/logs?stdout=1");
    s.get("/v1.41/containers/contract-talker/logs?stdout=1");
    remove(s, &[TALKER]);
}

fn websocket(s: &mut Session<'_>) {
    let path = "/containers/contract-talker/attach/ws";
    talk(s, "echo one", &["one"], "echo err >&2");
    s.send(Ask::new("GET", &format!("{path}?logs=1&stdout=1&stderr=1")).websocket());
    s.send(Ask::new("GET", &format!("{path}?logs=1&stdout=1")).websocket());
    s.get(&format!("{path}?logs=1&stdout=1"));
    s.send(Ask::new("GET", "/containers/contract-nobody/attach/ws?stdout=1").websocket());
    remove(s, &[TALKER]);
}
