//! A pull from Debian's `docker-registry`, a real one.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::Url;

use super::{
    engine::Engine,
    image::{MANIFEST_TYPE, TestImage, digest, noise},
    receiver::Receiver,
};

/// The registry's process; it ends with the test.
pub(super) struct Registry {
    process: Child,
    pub(super) address: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts one on a port of its choice.
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nhttp: {{addr: '127.0.0.1:0'}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            directory.path().display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's package docker-registry is installed");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest.split(['"', ',']).next()?.to_owned())
            })
            .expect("the registry listens");
        // Read on, so that it never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address,
            _directory: directory,
        }
    }

    /// Pushes `image` as `repository:tag`.
    pub(super) async fn push(&self, image: &TestImage, repository: &str, tag: &str) {
        // The client's, which reqwest in these tests uses, too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let base = format!("http://{}/v2/{repository}", self.address);
        for blob in image.blobs() {
            let upload = http
                .post(format!("{base}/blobs/uploads/"))
                .send()
                .await
                .unwrap();
            let mut location: Url = upload.headers()["location"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            location
                .query_pairs_mut()
                .append_pair("digest", &digest(blob));
            let put = http
                .put(location)
                .header("content-type", "application/octet-stream")
                .body(blob.clone());
            assert!(put.send().await.unwrap().status().is_success());
        }
        let put = http
            .put(format!("{base}/manifests/{tag}"))
            .header("content-type", MANIFEST_TYPE)
            .body(image.manifest.clone());
        assert!(put.send().await.unwrap().status().is_success());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn images_come_by_tag_by_digest_and_all_at_once() {
    let registry = Registry::start();
    let (one, two) = (
        TestImage::new(&[&noise(3_000_000), b"a"]),
        TestImage::new(&[b"b"]),
    );
    registry.push(&one, "team/one", "1").await;
    registry.push(&two, "team/one", "2").await;
    let engine = Engine::start(None);
    let receiver = Receiver::start(&engine.agent_socket());
    let name = format!("{}/team/one", registry.address);

    let path = format!("/v1.50/images/create?fromImage={name}&tag=1");
    engine.post(&path, &[("x-registry-auth", "e30=")], "").await;
    assert_eq!(receiver.image(&format!("{name}:1")).unwrap().id, one.id());
    assert_eq!(receiver.layers(), 2);

    let wanted = digest(&two.manifest);
    let path = format!("/images/create?fromImage={name}&tag={wanted}");
    engine.post(&path, &[], "").await;
    assert_eq!(
        receiver.image(&format!("{name}@{wanted}")).unwrap().id,
        two.id()
    );
    assert!(receiver.image(&format!("{name}:2")).is_none());

    let all = engine
        .post(&format!("/images/create?fromImage={name}"), &[], "")
        .await;
    assert!(
        receiver.image(&format!("{name}:2")).is_some(),
        "{:?}",
        all.lines()
    );

    let unknown = engine
        .post(
            &format!("/images/create?fromImage={name}&tag=none"),
            &[],
            "",
        )
        .await;
    assert_eq!(unknown.status.as_u16(), 404);
    assert_eq!(
        unknown.message(),
        format!("manifest for {name}:none not found: manifest unknown: manifest unknown")
    );
}

#[tokio::test]
async fn layers_are_mounted_compressed_or_there_already() {
    let registry = Registry::start();
    let image = TestImage::new(&[&noise(1_000_000), &vec![0; 100_000]]);
    registry.push(&image, "from/here", "1").await;
    let engine = Engine::start(None);
    let receiver = Receiver::start(&engine.agent_socket());
    let name = |path: &str| format!("{}/{path}", registry.address);
    let source = name("from/here");
    let path = format!("/images/create?fromImage={source}&tag=1");
    engine.post(&path, &[], "").await;
    let push = async |repository: &str| {
        let repo = name(repository);
        let path = format!("/images/{source}:1/tag?repo={repo}&tag=2");
        assert_eq!(engine.post(&path, &[], "").await.status.as_u16(), 201);
        let path = format!("/images/{repo}/push?tag=2");
        engine.post(&path, &[("x-registry-auth", "e30=")], "").await
    };
    let answer = push("to/there").await;
    let said = answer.statuses().join(" | ");
    assert!(said.contains("Mounted from from/here"), "{said}");
    let pushed = digest(&image.manifest);
    assert!(said.contains(&format!("2: digest: {pushed}")), "{said}");
    let aux = answer.lines().last().unwrap()["aux"].clone();
    assert_eq!(aux["Digest"], pushed.as_str());
    assert!(
        receiver
            .image(&format!("{}@{pushed}", name("to/there")))
            .is_some()
    );
    let said = push("to/there").await.statuses().join(" | ");
    assert!(said.contains("Layer already exists"), "{said}");

    // As if it were not known where the layers came from.
    receiver.received.lock().unwrap().blobs.clear();
    let said = push("new/one").await.statuses().join(" | ");
    assert!(
        said.contains("Pushed") && !said.contains("Mounted"),
        "{said}"
    );
    assert!(
        !said.contains(&pushed),
        "another compressor made the same bytes: {said}"
    );
    let elsewhere = Engine::start(None);
    let other = Receiver::start(&elsewhere.agent_socket());
    let path = format!("/images/create?fromImage={}&tag=2", name("new/one"));
    elsewhere.post(&path, &[], "").await;
    let again = other.image(&format!("{}:2", name("new/one"))).unwrap();
    assert_eq!(again.id, image.id());
    assert_eq!(other.layers(), 2);

    let unknown = format!("/images/{}/push?tag=9", name("none"));
    let refused = engine.post(&unknown, &[], "").await;
    assert_eq!(refused.status.as_u16(), 404);
    assert!(refused.message().contains("does not exist locally"));
}
