//! Containers' lives: create, start, stop, and everything between.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

const ONE: &str = "contract-one";

pub(super) fn requests(s: &mut Session<'_>) {
    remove(
        s,
        &[ONE, "contract-two", "contract-full", "contract-renamed"],
    );
    lives(s);
    states(s);
    waits(s);
    updates(s);
    removals(s);
    prune(s);
}

fn lives(s: &mut Session<'_>) {
    s.post_json(
        "/containers/create?name=contract-one",
        shell("containers", "sleep 600"),
    );
    s.keep("one", "/Id");
    s.post_json(
        "/containers/create?name=contract-one",
        shell("containers", "true"),
    );
    for version in [
        "", "/v1.24", "/v1.40", "/v1.43", "/v1.44", "/v1.47", "/v1.51",
    ] {
        s.get(&format!("{version}/containers/contract-one/json"));
    }
    s.get("/containers/$one/json");
    s.get("/containers/contract-one/json?size=1");
    s.get("/containers/contract-nobody/json");
    s.post("/containers/contract-one/start");
    s.post("/containers/contract-one/start");
    s.post("/containers/contract-nobody/start");
    s.post("/containers/contract-one/start?detachKeys=nonsense,keys");
    s.post("/containers/contract-one/start?checkpoint=x");
    s.post_json(
        "/containers/contract-one/start",
        json!({"Binds": ["/a:/b"]}),
    );
    s.get("/containers/contract-one/json");
    s.get("/containers/contract-one/top");
    s.get("/containers/contract-one/top?ps_args=-o pid,comm");
    s.get("/containers/contract-one/top?ps_args=aux");
    s.get("/containers/contract-nobody/top");
    s.get("/containers/contract-one/stats?stream=0");
    s.get("/containers/contract-one/stats?stream=0&one-shot=1");
    s.get("/containers/contract-one/stats?one-shot=1");
    s.send(Ask::new("GET", "/containers/contract-one/stats").lines(2));
    s.get("/containers/contract-nobody/stats?stream=0");
    s.get("/containers/contract-one/changes");
    s.get("/containers/contract-nobody/changes");
    for size in [
        "",
        "?h=24",
        "?w=80",
        "?h=x&w=80",
        "?h=24&w=-1",
        "?h=24&w=80",
    ] {
        s.post(&format!("/containers/contract-one/resize{size}"));
    }
    s.post("/containers/contract-nobody/resize?h=24&w=80");
    s.post("/containers/contract-one/restart?t=0");
    s.post("/containers/contract-one/restart?t=x");
    s.post("/containers/contract-one/restart?signal=NONSENSE&t=0");
    s.post("/containers/contract-nobody/restart");
    s.post("/containers/contract-one/stop?t=x");
    s.post("/containers/contract-one/stop?t=0");
    s.post("/containers/contract-one/stop");
    s.post("/containers/contract-nobody/stop");
    s.get("/containers/contract-one/json");
    s.get("/containers/contract-one/stats?stream=0");
    s.get("/containers/contract-one/top");
    s.post("/containers/contract-one/resize?h=24&w=80");
}

fn states(s: &mut Session<'_>) {
    // It is off.
    s.post("/containers/contract-one/kill");
    s.post("/containers/contract-one/pause");
    s.post("/containers/contract-one/unpause");
    s.post("/containers/contract-nobody/kill");
    s.post("/containers/contract-nobody/pause");
    s.post("/containers/contract-nobody/unpause");
    s.prepare("POST", "/containers/contract-one/start", Value::Null);
    s.post("/containers/contract-one/kill?signal=NONSENSE");
    s.post("/containers/contract-one/kill?signal=0");
    s.post("/containers/contract-one/kill?signal=99");
    s.post("/containers/contract-one/kill?signal=SIGURG");
    s.post("/containers/contract-one/kill?signal=urg");
    s.post("/containers/contract-one/unpause");
    s.post("/containers/contract-one/pause");
    s.post("/containers/contract-one/pause");
    s.get("/containers/contract-one/json");
    s.post("/containers/contract-one/start");
    s.post_json("/containers/contract-one/update", json!({"CpuShares": 100}));
    s.get("/containers/contract-one/top");
    s.post("/containers/contract-one/unpause");
    s.post("/containers/contract-one/kill");
    s.wait_for_state(ONE, "exited");
    s.get("/containers/contract-one/json");
    make(s, "contract-two", shell("containers", "true"));
    s.post("/containers/contract-two/rename?name=contract-one");
    s.post("/containers/contract-two/rename?name=contract-two");
    s.post("/containers/contract-two/rename");
    s.post("/containers/contract-two/rename?name=contract bad");
    s.post("/containers/contract-two/rename?name=/");
    s.post("/containers/contract-nobody/rename?name=contract-renamed");
    s.post("/containers/contract-two/rename?name=contract-renamed");
    s.get("/containers/contract-two/json");
}

fn waits(s: &mut Session<'_>) {
    s.post("/containers/contract-one/wait");
    s.post("/containers/contract-one/wait?condition=not-running");
    s.post("/containers/contract-one/wait?condition=nonsense");
    s.post("/v1.29/containers/contract-one/wait");
    s.post("/containers/contract-nobody/wait");
    s.post("/containers/contract-nobody/wait?condition=removed");
    // Registered, and answered with a head, before the container runs.
    s.send(
        Ask::new(
            "POST",
            "/containers/contract-renamed/wait?condition=next-exit",
        )
        .head_only(),
    );
    s.send(
        Ask::new(
            "POST",
            "/containers/contract-renamed/wait?condition=removed",
        )
        .head_only(),
    );
    s.post("/containers/contract-renamed/start");
    s.wait_for_state("contract-renamed", "exited");
    s.post("/containers/contract-renamed/wait");
    // Long enough that the wait comes first.
    start(s, "contract-two", shell("containers", "sleep 5; exit 7"));
    s.post("/containers/contract-two/wait?condition=next-exit");
    s.get("/containers/contract-two/json");
    let mut config = shell("containers", "sleep 5");
    config["HostConfig"] = json!({"AutoRemove": true});
    start(s, "contract-two", config);
    s.post("/containers/contract-two/wait?condition=removed");
    s.get("/containers/contract-two/json");
}

fn updates(s: &mut Session<'_>) {
    let update = "/containers/contract-one/update";
    s.post_json(update, json!({"CpuShares": 512, "Memory": 33_554_432, "MemorySwap": -1, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}));
    s.post_json(update, json!({}));
    s.post_json(update, json!({"Memory": 1}));
    s.post_json(update, json!({"Memory": -5}));
    s.post_json(
        update,
        json!({"Memory": 33_554_432, "MemorySwap": 1_000_000}),
    );
    s.post_json(update, json!({"RestartPolicy": {"Name": "nonsense"}}));
    s.post_json(
        update,
        json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}),
    );
    s.post_json(update, json!({"RestartPolicy": {"Name": "no"}}));
    s.post_json(update, json!({"CpusetCpus": "0-9999"}));
    s.post_json(update, json!({"CpusetCpus": "nonsense"}));
    s.post_json(update, json!({"NanoCpus": 1_000_000, "CpuQuota": 5000}));
    s.post_json(update, json!({"PidsLimit": 100}));
    s.post_json(update, json!({"KernelMemory": 100}));
    s.post(update);
    s.send(Ask::new("POST", update).text("application/json", "{"));
    s.send(Ask::new("POST", update).text("text/plain", "{}"));
    s.post_json("/containers/contract-nobody/update", json!({}));
}

fn removals(s: &mut Session<'_>) {
    start(s, "contract-two", shell("containers", "sleep 600"));
    s.delete("/containers/contract-two");
    s.delete("/containers/contract-two?link=1");
    s.prepare("POST", "/containers/contract-two/pause", Value::Null);
    s.delete("/containers/contract-two");
    s.delete("/containers/contract-two?force=1&v=1");
    s.delete("/containers/contract-two");
    s.delete("/containers/contract-nobody?force=1");
    s.delete("/containers/contract-one");
    s.delete("/containers/contract-renamed?v=1");
    s.delete("/containers/");
}

fn prune(s: &mut Session<'_>) {
    make(s, "contract-two", shell("containers", "true"));
    s.post(r#"/containers/prune?filters={"nonsense":["x"]}"#);
    s.post("/containers/prune?filters=nonsense");
    s.post(r#"/containers/prune?filters={"until":["soon"],"label":["contract=containers"]}"#);
    s.post(r#"/containers/prune?filters={"until":["1h","2h"],"label":["contract=containers"]}"#);
    s.post(r#"/containers/prune?filters={"label":["contract=nobody"]}"#);
    s.post(r#"/containers/prune?filters={"label":["contract=containers"]}"#);
}
