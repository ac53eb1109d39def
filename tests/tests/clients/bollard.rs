//! bollard: a program in Rust that works with containers through the API.

use std::{
    collections::HashMap,
    fmt::Debug,
    future::Future,
    time::{SystemTime, UNIX_EPOCH},
};

use bollard::{
    API_DEFAULT_VERSION, Docker, body_full,
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, StartExecResults},
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, NetworkConnectRequest,
        NetworkCreateRequest, PortBinding, VolumeCreateOptions,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptions, CreateImageOptionsBuilder,
        DownloadFromContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
        ListContainersOptionsBuilder, LogsOptionsBuilder, PushImageOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptions,
        StartContainerOptions, StatsOptionsBuilder, TagImageOptionsBuilder,
        UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde_json::json;
use tests::{command::LONG, images::Layer};
use tokio::io::AsyncWriteExt;

use crate::shared::shared;

/// Runs a test with a client, within a time.
fn with_client<F: Future<Output = ()>>(test: impl FnOnce(Docker) -> F) {
    let socket = shared().installation.socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = socket.to_str().unwrap();
        let client = Docker::connect_with_unix(path, LONG.as_secs(), API_DEFAULT_VERSION).unwrap();
        let client = client.negotiate_version().await.unwrap();
        tokio::time::timeout(LONG, test(client)).await.unwrap();
    });
}

/// Creates a container of busybox.
async fn create(client: &Docker, command: &[&str], more: ContainerCreateBody) -> String {
    let configuration = ContainerCreateBody {
        image: Some(shared().busybox.clone()),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        ..more
    };
    let created = client
        .create_container(None::<CreateContainerOptions>, configuration)
        .await
        .unwrap();
    assert_eq!(created.warnings, Vec::<String>::new());
    created.id
}

async fn start(client: &Docker, id: &str) {
    let options = None::<StartContainerOptions>;
    client.start_container(id, options).await.unwrap();
}

async fn remove(client: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
    client
        .remove_container(id, Some(options.build()))
        .await
        .unwrap();
}

/// All of a stream, as text.
async fn text(output: impl Stream<Item = Result<LogOutput, Error>>) -> String {
    let pieces: Vec<_> = output
        .map_ok(LogOutput::into_bytes)
        .try_collect()
        .await
        .unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

#[track_caller]
fn status<T: Debug>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::DockerResponseServerError { status_code, .. }) => status_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bollard_talks_with_a_container() {
    with_client(|client| async move {
        let more = ContainerCreateBody {
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            ..Default::default()
        };
        let id = create(&client, &["sh", "-c", "cat; echo ended; exit 3"], more).await;
        let streams = AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true);
        let attached = client.attach_container(&id, Some(streams.build())).await;
        let mut attached = attached.unwrap();
        let exit = WaitContainerOptionsBuilder::new()
            .condition("next-exit")
            .build();
        let mut wait = Box::pin(client.wait_container(&id, Some(exit)));
        let started = async {
            start(&client, &id).await;
            attached.input.write_all(b"typed\n").await.unwrap();
            attached.input.shutdown().await.unwrap();
        };
        let (exit, ()) = tokio::join!(wait.next(), started);
        // A code that is not 0 is an error of its own.
        let Some(Err(Error::DockerContainerWaitError { code: 3, .. })) = exit else {
            panic!("{exit:?}");
        };
        assert_eq!(text(attached.output).await, "typed\nended\n");
        let all = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        assert_eq!(text(client.logs(&id, Some(all))).await, "typed\nended\n");
        remove(&client, &id).await;
    });
}

#[test]
fn bollard_executes_and_moves_files() {
    with_client(|client| async move {
        let id = create(&client, &["sleep", "600"], ContainerCreateBody::default()).await;
        start(&client, &id).await;
        let mut layer = Layer::new();
        layer.file("f", 0o644, b"content");
        let to = UploadToContainerOptionsBuilder::new().path("/tmp").build();
        let body = body_full(layer.finish().into());
        client
            .upload_to_container(&id, Some(to), body)
            .await
            .unwrap();
        let exec = CreateExecOptions {
            cmd: Some(vec!["sh", "-c", "cat /tmp/f; exit 6"]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = client.create_exec(&id, exec).await.unwrap().id;
        match client.start_exec(&exec, None).await.unwrap() {
            StartExecResults::Attached { output, .. } => {
                assert_eq!(text(output).await, "content");
            }
            StartExecResults::Detached => panic!("it was not asked for"),
        }
        let ended = client.inspect_exec(&exec).await.unwrap();
        assert_eq!((ended.exit_code, ended.running), (Some(6), Some(false)));
        let from = DownloadFromContainerOptionsBuilder::new()
            .path("/tmp/f")
            .build();
        let archive = client.download_from_container(&id, Some(from));
        let archive: Vec<_> = archive.try_collect().await.unwrap();
        let archive = archive.concat();
        let mut archive = tar::Archive::new(&archive[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("f"));
        let once = StatsOptionsBuilder::new().stream(false).build();
        let mut stats = Box::pin(client.stats(&id, Some(once)));
        let stats = stats.try_next().await.unwrap().unwrap();
        assert!(stats.memory_stats.unwrap().usage.unwrap() > 0);
        remove(&client, &id).await;
    });
}

#[test]
fn bollard_has_events_networks_volumes_and_ports() {
    with_client(|client| async move {
        let label = ("bollard".to_owned(), "events".to_owned());
        let filters = HashMap::from([("label", vec!["bollard=events"])]);
        // The request goes out when the stream is read first: later than what is told.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let since = now.as_secs().to_string();
        let events = EventsOptionsBuilder::new().filters(&filters).since(&since);
        let mut events = Box::pin(client.events(Some(events.build())));
        let volume = VolumeCreateOptions {
            name: Some("bollard".to_owned()),
            ..Default::default()
        };
        client.create_volume(volume).await.unwrap();
        let network = NetworkCreateRequest {
            name: "bollard".to_owned(),
            ..Default::default()
        };
        client.create_network(network).await.unwrap();
        let ports = HashMap::from([(
            "80/tcp".to_owned(),
            Some(vec![PortBinding {
                host_ip: Some("127.0.0.1".to_owned()),
                host_port: None,
            }]),
        )]);
        let more = ContainerCreateBody {
            labels: Some(HashMap::from([label])),
            exposed_ports: serde_json::from_value(json!({"80/tcp": {}})).unwrap(),
            host_config: Some(HostConfig {
                binds: Some(vec!["bollard:/v".to_owned()]),
                port_bindings: Some(ports),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = create(&client, &["httpd", "-f", "-p", "80"], more).await;
        start(&client, &id).await;
        let connect = NetworkConnectRequest {
            container: Some(id.clone()),
            endpoint_config: Some(EndpointSettings {
                aliases: Some(vec!["also".to_owned()]),
                ..Default::default()
            }),
        };
        client.connect_network("bollard", connect).await.unwrap();
        let options = None::<InspectContainerOptions>;
        let inspected = client.inspect_container(&id, options).await.unwrap();
        let settings = inspected.network_settings.unwrap();
        let port = settings.ports.unwrap()["80/tcp"].clone().unwrap()[0]
            .host_port
            .clone();
        let address = format!("127.0.0.1:{}", port.unwrap());
        tokio::net::TcpStream::connect(address).await.unwrap();
        let aliases = settings.networks.unwrap()["bollard"].aliases.clone();
        assert!(aliases.unwrap().contains(&"also".to_owned()));
        let filters = HashMap::from([("volume", vec!["bollard"])]);
        let listed = ListContainersOptionsBuilder::new()
            .filters(&filters)
            .build();
        let listed = client.list_containers(Some(listed)).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].id.as_ref(), Some(&id));
        assert_eq!(status(client.remove_network("bollard").await), 403);
        remove(&client, &id).await;
        let mut actions = Vec::new();
        while actions.last().is_none_or(|action| action != "destroy") {
            let event = events.try_next().await.unwrap().unwrap();
            actions.push(event.action.unwrap());
        }
        assert_eq!(actions[..2], ["create", "start"]);
        client.remove_network("bollard").await.unwrap();
        let options = None::<RemoveVolumeOptions>;
        client.remove_volume("bollard", options).await.unwrap();
    });
}

#[test]
fn bollard_moves_images() {
    with_client(|client| async move {
        let repository = shared().registry.name("library/bollard");
        let tag = TagImageOptionsBuilder::new()
            .repo(&repository)
            .tag("t")
            .build();
        client
            .tag_image(&shared().busybox, Some(tag))
            .await
            .unwrap();
        let push = PushImageOptionsBuilder::new().tag("t").build();
        let pushed = client.push_image(&repository, Some(push), None);
        let pushed: Vec<_> = pushed.try_collect().await.unwrap();
        assert!(!pushed.is_empty());
        let name = format!("{repository}:t");
        let options = None::<RemoveImageOptions>;
        let removed = client.remove_image(&name, options, None).await.unwrap();
        assert_eq!(removed[0].untagged.as_ref(), Some(&name));
        assert_eq!(status(client.inspect_image(&name).await), 404);
        let pull = CreateImageOptionsBuilder::new().from_image(&name).build();
        let pulled = client.create_image(Some(pull), None, None);
        let pulled: Vec<_> = pulled.try_collect().await.unwrap();
        let last = pulled.last().unwrap().status.clone().unwrap();
        assert!(last.starts_with("Status: "), "{last}");
        let saved = client.export_image(&name);
        let saved: Vec<_> = saved.try_collect().await.unwrap();
        assert!(saved.concat().len() > 1_000_000);
        let options = None::<RemoveImageOptions>;
        client.remove_image(&name, options, None).await.unwrap();
    });
}
