//! Commands in running containers.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

const CREATE: &str = "/containers/contract-exec/exec";

pub(super) fn requests(s: &mut Session<'_>) {
    start(s, "contract-exec", shell("exec", "sleep 600"));
    make(s, "contract-exec-off", shell("exec", "sleep 600"));
    create(s);
    streams(s);
    terminals(s);
    failures(s);
    remove(s, &["contract-exec", "contract-exec-off"]);
}

fn create(s: &mut Session<'_>) {
    s.post_json(
        CREATE,
        json!({"Cmd": ["echo", "hello"], "AttachStdout": true, "AttachStderr": true}),
    );
    s.keep("exec", "/Id");
    s.get("/exec/$exec/json");
    s.get("/v1.24/exec/$exec/json");
    s.get("/containers/contract-exec/json");
    s.post_json(CREATE, json!({"Cmd": []}));
    s.post_json(CREATE, json!({}));
    s.post_json(CREATE, json!({"Cmd": "echo"}));
    s.post_json(CREATE, json!({"Cmd": ["true"], "User": "contract-nobody"}));
    s.post_json(CREATE, json!({"Cmd": ["true"], "ConsoleSize": [1]}));
    s.post_json(
        CREATE,
        json!({"Cmd": ["true"], "DetachKeys": "nonsense,keys"}),
    );
    s.post(CREATE);
    s.send(Ask::new("POST", CREATE).text("application/json", "{"));
    s.send(Ask::new("POST", CREATE).text("text/plain", "{}"));
    s.post_json("/containers/contract-nobody/exec", json!({"Cmd": ["true"]}));
    s.post_json(
        "/containers/contract-exec-off/exec",
        json!({"Cmd": ["true"]}),
    );
    s.prepare("POST", "/containers/contract-exec/pause", Value::Null);
    s.post_json(CREATE, json!({"Cmd": ["true"]}));
    s.prepare("POST", "/containers/contract-exec/unpause", Value::Null);
}

/// Makes an exec that is named `$exec`.
fn exec(s: &mut Session<'_>, body: Value) {
    s.prepare("POST", CREATE, body);
    s.keep("exec", "/Id");
}

fn begin(body: &Value) -> Ask {
    Ask::new("POST", "/exec/$exec/start").json(body)
}

fn streams(s: &mut Session<'_>) {
    let both = json!({"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"], "AttachStdout": true, "AttachStderr": true});
    exec(s, both.clone());
    s.send(begin(&json!({"Detach": false})).upgrade(""));
    s.get("/exec/$exec/json");
    s.send(begin(&json!({"Detach": false})).upgrade(""));
    exec(s, both.clone());
    s.send(begin(&json!({"Detach": false, "Tty": false})));
    exec(s, both.clone());
    s.send(
        Ask::new("POST", "/v1.41/exec/$exec/start")
            .json(&json!({}))
            .upgrade(""),
    );
    exec(
        s,
        json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true}),
    );
    s.send(begin(&json!({})).upgrade("what is typed\n"));
    exec(
        s,
        json!({"Cmd": ["sh", "-c", "pwd; id -u; echo $A"], "AttachStdout": true, "WorkingDir": "/tmp", "User": "user", "Env": ["A=B"]}),
    );
    s.send(begin(&json!({})).upgrade(""));
    exec(s, both);
    s.send(begin(&json!({"Detach": true})));
    s.wait_for("/exec/$exec/json", "/Running", &json!(false));
    s.get("/exec/$exec/json");
    s.send(begin(&json!({"Detach": true})));
    exec(s, json!({"Cmd": ["sleep", "600"]}));
    s.send(begin(&json!({"Detach": true})));
    s.get("/exec/$exec/json");
    s.post("/exec/$exec/resize?h=24&w=80");
}

fn terminals(s: &mut Session<'_>) {
    let sized = json!({"Cmd": ["stty", "size"], "AttachStdout": true, "Tty": true, "ConsoleSize": [20, 70]});
    exec(s, sized.clone());
    s.send(begin(&json!({"Tty": true, "ConsoleSize": [30, 90]})).upgrade(""));
    exec(s, sized.clone());
    s.send(begin(&json!({"Tty": true})).upgrade(""));
    s.get("/exec/$exec/json");
    exec(s, sized.clone());
    s.send(begin(&json!({"Tty": false})).upgrade(""));
    exec(s, sized.clone());
    s.send(begin(&json!({"Tty": false, "ConsoleSize": [30, 90]})).upgrade(""));
    exec(s, sized);
    s.send(begin(
        &json!({"Detach": true, "Tty": true, "ConsoleSize": [30, 90]}),
    ));
    for size in [
        "",
        "?h=24",
        "?w=80",
        "?h=x&w=80",
        "?h=24&w=-1",
        "?h=24&w=80",
    ] {
        s.post(&format!("/exec/contract-nobody/resize{size}"));
    }
}

fn failures(s: &mut Session<'_>) {
    for command in [
        json!(["contract-nobody"]),
        json!(["/etc/passwd"]),
        json!(["/contract/nobody"]),
    ] {
        exec(
            s,
            json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true}),
        );
        s.send(begin(&json!({})).upgrade(""));
        s.get("/exec/$exec/json");
        exec(s, json!({"Cmd": command}));
        s.send(begin(&json!({"Detach": true})));
        s.get("/exec/$exec/json");
    }
    exec(
        s,
        json!({"Cmd": ["true"], "AttachStdout": true, "User": "contract-nobody"}),
    );
    s.send(begin(&json!({})).upgrade(""));
    exec(
        s,
        json!({"Cmd": ["true"], "AttachStdout": true, "WorkingDir": "/contract/nobody"}),
    );
    s.send(begin(&json!({})).upgrade(""));
    exec(s, json!({"Cmd": ["true"], "AttachStdout": true}));
    s.send(Ask::new("POST", "/exec/$exec/start").text("application/json", "{"));
    s.send(Ask::new("POST", "/exec/$exec/start").text("text/plain", "{}"));
    s.post("/exec/$exec/start");
    s.get("/exec/contract-nobody/json");
    s.post_json("/exec/contract-nobody/start", json!({}));
    s.post_json("/exec/contract-nobody/start", json!({"Detach": true}));
    exec(s, json!({"Cmd": ["true"], "AttachStdout": true}));
    s.prepare("POST", "/containers/contract-exec/pause", Value::Null);
    s.send(begin(&json!({})).upgrade(""));
    s.prepare("POST", "/containers/contract-exec/unpause", Value::Null);
    exec(s, json!({"Cmd": ["sleep", "600"], "AttachStdout": true}));
    s.prepare("POST", "/exec/$exec/start", json!({"Detach": true}));
    s.keep_as("exec", "ran");
    exec(s, json!({"Cmd": ["true"], "AttachStdout": true}));
    s.prepare("POST", "/containers/contract-exec/kill", Value::Null);
    s.wait_for_state("contract-exec", "exited");
    s.get("/exec/$ran/json");
    s.get("/containers/contract-exec/json");
    s.send(begin(&json!({})).upgrade(""));
    s.get("/exec/$exec/json");
}
