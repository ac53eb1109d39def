//! Networks.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

pub(super) fn requests(s: &mut Session<'_>) {
    remove(s, &["contract-net-a", "contract-net-b"]);
    remove_networks(s);
    create(s);
    lists(s);
    configurations(s);
    members(s);
    prune(s);
    remove_networks(s);
}

fn remove_networks(s: &mut Session<'_>) {
    for name in [
        "contract-net",
        "contract-subnet",
        "contract-more",
        "contract-made",
        "contract-template",
        "contract bad",
    ] {
        s.prepare("DELETE", &format!("/networks/{name}"), Value::Null);
    }
}

fn create(s: &mut Session<'_>) {
    let create = "/networks/create";
    s.post_json(
        create,
        json!({"Name": "contract-net", "Labels": {"contract": "networks"}}),
    );
    s.keep("net", "/Id");
    s.post_json(create, json!({"Name": "contract-net"}));
    s.post_json(
        create,
        json!({"Name": "contract-net", "CheckDuplicate": true}),
    );
    s.post_json(
        create,
        json!({
            "Name": "contract-subnet", "Driver": "bridge", "Internal": true, "Attachable": true,
            "Labels": {"contract": "networks"}, "Options": {"com.docker.network.bridge.enable_icc": "true"},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.231.7.0/24", "Gateway": "10.231.7.1", "IPRange": "10.231.7.128/25"}]},
        }),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "IPAM": {"Config": [{"Subnet": "10.231.7.0/25"}]}}),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "IPAM": {"Config": [{"Subnet": "10.231.8.1/24"}]}}),
    );
    s.post_json(create, json!({"Name": "contract-more", "IPAM": {"Config": [{"Subnet": "10.231.8.0/24", "Gateway": "10.231.9.1"}]}}));
    s.post_json(
        create,
        json!({"Name": "contract-more", "IPAM": {"Driver": "contract-nobody"}}),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "Driver": "contract-nobody"}),
    );
    s.post_json(create, json!({"Name": "contract-more", "Driver": "host"}));
    s.post_json(create, json!({"Name": "contract-more", "Driver": "null"}));
    s.post_json(
        create,
        json!({"Name": "contract-more", "Driver": "overlay"}),
    );
    s.post_json(create, json!({"Name": "contract-more", "Scope": "swarm"}));
    s.post_json(create, json!({"Name": "contract-more", "Ingress": true}));
    s.post_json(
        create,
        json!({"Name": "contract-more", "ConfigOnly": true, "Internal": true}),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "ConfigFrom": {"Network": "contract-nobody"}}),
    );
    s.post_json(
        create,
        json!({"Name": "contract-more", "Options": {"com.docker.network.driver.mtu": "x"}}),
    );
    s.post_json(create, json!({"Name": ""}));
    s.post_json(create, json!({"Name": "contract bad"}));
    s.post_json(create, json!({"Name": "bridge"}));
    s.post_json(create, json!({"Name": "host"}));
    s.post_json(create, json!({"Name": 7}));
    s.post(create);
    s.send(Ask::new("POST", create).text("application/json", "{"));
    s.send(Ask::new("POST", create).text("text/plain", "{}"));
}

/// Networks that are only configuration, and one that is made of one.
fn configurations(s: &mut Session<'_>) {
    let create = "/networks/create";
    s.post_json(
        create,
        json!({
            "Name": "contract-template", "ConfigOnly": true, "Labels": {"contract": "template"},
            "Options": {"com.docker.network.bridge.enable_icc": "false"},
            "IPAM": {"Config": [{"Subnet": "10.231.20.0/24", "Gateway": "10.231.20.1"}]},
        }),
    );
    s.get("/networks/contract-template");
    s.get(r#"/networks?filters={"label":["contract=template"]}"#);
    s.get(r#"/networks?filters={"label":["contract=template"],"driver":["null"]}"#);
    let from = json!({"Network": "contract-template"});
    for more in [
        json!({"Labels": {"a": "b"}}),
        json!({"Options": {"a": "b"}}),
        json!({"EnableIPv6": true}),
        json!({"IPAM": {"Config": [{"Subnet": "10.231.21.0/24"}]}}),
        json!({"ConfigOnly": true}),
    ] {
        let mut body = json!({"Name": "contract-made", "ConfigFrom": from});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        s.post_json(create, body);
    }
    s.post_json(create, json!({"Name": "contract-made", "ConfigFrom": from}));
    s.get("/networks/contract-made");
    s.delete("/networks/contract-template");
    s.post(r#"/networks/prune?filters={"label":["contract=template"],"label!":["contract"]}"#);
    make(s, "contract-net-a", shell("networks", "sleep 600"));
    s.post_json(
        "/networks/contract-template/connect",
        json!({"Container": "contract-net-a"}),
    );
    remove(s, &["contract-net-a"]);
    s.delete("/networks/contract-made");
    s.delete("/networks/contract-template");
}

fn lists(s: &mut Session<'_>) {
    for version in ["", "/v1.24", "/v1.44", "/v1.47"] {
        s.get(&format!("{version}/networks/contract-net"));
    }
    for path in [
        "/networks/$net",
        "/networks/contract-subnet",
        "/networks/contract-subnet?verbose=1",
        "/networks/contract-subnet?scope=local",
        "/networks/contract-subnet?scope=swarm",
        "/networks/contract-subnet?scope=nonsense",
        "/networks/bridge",
        "/networks/host",
        "/networks/none",
        "/networks/contract-nobody",
        r#"/networks?filters={"label":["contract=networks"]}"#,
        r#"/networks?filters={"label":{"contract=networks":true}}"#,
        r#"/v1.44/networks?filters={"label":["contract=networks"]}"#,
        r#"/networks?filters={"name":["contract-nobody"]}"#,
        r#"/networks?filters={"name":["contract-subnet"],"scope":["local"],"driver":["bridge"],"type":["custom"]}"#,
        r#"/networks?filters={"type":["builtin"]}"#,
        r#"/networks?filters={"type":["nonsense"]}"#,
        r#"/networks?filters={"scope":["nonsense"]}"#,
        r#"/networks?filters={"dangling":["maybe"]}"#,
        r#"/networks?filters={"nonsense":["x"]}"#,
        "/networks?filters=nonsense",
        "/networks/",
    ] {
        s.get(path);
    }
}

fn members(s: &mut Session<'_>) {
    start(s, "contract-net-a", {
        let mut config = shell("networks", "sleep 600");
        config["HostConfig"] = json!({"NetworkMode": "contract-net"});
        config
    });
    make(s, "contract-net-b", shell("networks", "sleep 600"));
    s.get("/networks/contract-net");
    s.get("/containers/contract-net-a/json");
    s.keep("mac", "/NetworkSettings/Networks/contract-net/MacAddress");
    let connect = "/networks/contract-subnet/connect";
    s.post_json(
        connect,
        json!({"Container": "contract-net-a", "EndpointConfig": {"Aliases": ["alias"], "IPAMConfig": {"IPv4Address": "10.231.7.200"}}}),
    );
    s.post_json(connect, json!({"Container": "contract-net-a"}));
    s.post_json(connect, json!({"Container": "contract-net-b", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.231.9.9"}}}));
    s.post_json(connect, json!({"Container": "contract-net-b", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "nonsense"}}}));
    s.post_json("/networks/contract-net/connect", json!({"Container": "contract-net-b", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.231.7.7"}}}));
    s.post_json(connect, json!({"Container": "contract-net-b"}));
    s.get("/containers/contract-net-b/json");
    s.get("/networks/contract-subnet");
    s.get("/containers/contract-net-a/json");
    s.post_json(connect, json!({"Container": "contract-nobody"}));
    s.post_json(connect, json!({"Container": ""}));
    s.post_json(
        "/networks/contract-nobody/connect",
        json!({"Container": "contract-net-a"}),
    );
    s.post_json(
        "/networks/host/connect",
        json!({"Container": "contract-net-a"}),
    );
    s.post_json(
        "/networks/none/connect",
        json!({"Container": "contract-net-a"}),
    );
    s.post(connect);
    s.send(Ask::new("POST", connect).text("application/json", "{"));
    s.delete("/networks/contract-net");
    s.delete("/networks/contract-nobody");
    s.delete("/networks/bridge");
    s.delete("/networks/host");
    let disconnect = "/networks/contract-subnet/disconnect";
    s.post_json(disconnect, json!({"Container": "contract-nobody"}));
    s.post_json(
        "/networks/contract-nobody/disconnect",
        json!({"Container": "contract-net-a"}),
    );
    s.post_json(disconnect, json!({"Container": "contract-net-a"}));
    s.post_json(disconnect, json!({"Container": "contract-net-a"}));
    s.post_json(
        disconnect,
        json!({"Container": "contract-net-a", "Force": true}),
    );
    s.post_json(
        disconnect,
        json!({"Container": "contract-net-b", "Force": true}),
    );
    s.post(disconnect);
    s.get("/containers/contract-net-b/json");
    remove(s, &["contract-net-a", "contract-net-b"]);
    s.delete("/networks/contract-subnet");
    s.delete("/networks/$net");
}

fn prune(s: &mut Session<'_>) {
    s.prepare(
        "POST",
        "/networks/create",
        json!({"Name": "contract-net", "Labels": {"contract": "networks"}}),
    );
    s.post(r#"/networks/prune?filters={"nonsense":["x"]}"#);
    s.post("/networks/prune?filters=nonsense");
    s.post(r#"/networks/prune?filters={"until":["soon"],"label":["contract=networks"]}"#);
    s.post(r#"/networks/prune?filters={"until":["1h","2h"],"label":["contract=networks"]}"#);
    s.post(r#"/networks/prune?filters={"label":["contract=nobody"]}"#);
    s.post(r#"/networks/prune?filters={"label":["contract=networks"]}"#);
}
