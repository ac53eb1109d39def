//! Published ports, with Docker's own command line: what is bound, what is told, and
//! what passes.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::stage::{Docker, Stage};

/// More than anything here takes to come about.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_options_of_ports_work() {
    let Some(stage) = Stage::with_busybox().await else {
        return;
    };
    let docker = stage.docker();

    published(&docker).await;
    taken(&docker).await;
    refused(&docker).await;
    restarted(&docker).await;
    stage.agent.stop().await;
}

/// What `docker run -d … nc` with these options echoes at.
async fn echo(docker: &Docker<'_>, name: &str, options: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(options);
    arguments.extend(["bb", "busybox", "nc", "-ll", "-p", "80", "-e", "cat"]);
    docker.ok(&arguments).await;
}

/// Says something at `address` until it is echoed, and ends.
async fn says(address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let talk = tokio::task::spawn_blocking(move || {
        loop {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            // Nobody listens in the container at first: a reset.
            let said = stream
                .write_all(b"hello")
                .and_then(|()| stream.shutdown(Shutdown::Write))
                .and_then(|()| stream.read_to_string(&mut text));
            if said.is_ok() {
                return text;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let text = tokio::time::timeout(PATIENCE, talk).await.unwrap().unwrap();
    assert_eq!(text, "hello");
}

async fn published(docker: &Docker<'_>) {
    echo(docker, "web", &["-p", "127.0.0.1::80", "--expose", "81"]).await;
    let address = docker.ok(&["port", "web", "80"]).await;
    let address = address.trim();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    says(address).await;
    let ports = docker.ok(&["ps", "--format", "{{.Ports}}"]).await;
    assert_eq!(ports.trim(), format!("81/tcp, {address}->80/tcp"));
    let port = address.rsplit_once(':').unwrap().1;
    let filter = format!("publish={port}");
    let found = docker.ok(&["ps", "-q", "--filter", &filter]).await;
    assert!(!found.is_empty());
    let map = docker
        .ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"])
        .await;
    let wanted =
        format!(r#"{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{port}"}}],"81/tcp":null}}"#);
    assert_eq!(map.trim(), wanted);
    docker.ok(&["stop", "-t", "0", "web"]).await;
    TcpStream::connect(address).unwrap_err();
    assert_eq!(docker.ok(&["port", "web"]).await, "");
    docker.ok(&["start", "web"]).await;
    // The port that it had is free, so it has it again.
    says(address).await;
    docker.ok(&["rm", "-f", "web"]).await;
    TcpListener::bind(address).unwrap();

    echo(docker, "all", &["-P", "--expose", "80"]).await;
    let addresses = docker.ok(&["port", "all", "80/tcp"]).await;
    let (first, second) = addresses.trim().split_once('\n').unwrap();
    let port = first.strip_prefix("0.0.0.0:").unwrap();
    assert_eq!(second, format!("[::]:{port}"));
    says(&format!("127.0.0.1:{port}")).await;
    says(&format!("[::1]:{port}")).await;
    docker.ok(&["rm", "-f", "all"]).await;
}

async fn taken(docker: &Docker<'_>) {
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = other.local_addr().unwrap();
    let publish = format!("{address}:80");
    let run = |name| {
        [
            "run", "-d", "--name", name, "-p", &publish, "bb", "sleep", "1000",
        ]
    };
    let (code, _, errors) = docker.all(&run("late")).await;
    assert_eq!(code, 125);
    let message = format!("failed to bind host port {address}/tcp: address already in use");
    assert!(errors.contains(&message), "{errors}");
    let status = ["inspect", "-f", "{{.State.Status}}", "late"];
    assert_eq!(docker.ok(&status).await, "created\n");
    drop(other);
    docker.ok(&["start", "late"]).await;
    let (code, _, errors) = docker.all(&run("later")).await;
    assert_eq!(code, 125);
    let message = format!("Bind for {address} failed: port is already allocated");
    assert!(errors.contains(&message), "{errors}");
    // One that has ended by itself gives its port up.
    docker.ok(&["kill", "late"]).await;
    docker.ok(&["wait", "late"]).await;
    docker.ok(&["start", "later"]).await;
    docker.ok(&["rm", "-f", "late", "later"]).await;
}

async fn refused(docker: &Docker<'_>) {
    let (_, _, errors) = docker
        .all(&["run", "-p", "8000-8001:80-90", "bb", "true"])
        .await;
    assert!(
        errors.to_lowercase().contains("invalid ranges specified"),
        "{errors}"
    );
    let (_, _, errors) = docker.all(&["run", "-p", "80:80/sctp", "bb", "true"]).await;
    assert!(
        errors.contains("sctp ports cannot be published"),
        "{errors}"
    );
}

async fn restarted(docker: &Docker<'_>) {
    // Ends with its connection; the policy starts it again.
    let run = ["run", "-d", "--name", "again", "--restart", "always"];
    let options = ["-p", "127.0.0.1::80", "bb"];
    let command = ["busybox", "nc", "-l", "-p", "80", "-e", "cat"];
    docker.ok(&[&run[..], &options, &command].concat()).await;
    let address = docker.ok(&["port", "again", "80"]).await;
    says(address.trim()).await;
    says(address.trim()).await;
    docker.ok(&["restart", "-t", "0", "again"]).await;
    assert_eq!(docker.ok(&["port", "again", "80"]).await, address);
    says(address.trim()).await;
    docker.ok(&["rm", "-f", "again"]).await;
}
