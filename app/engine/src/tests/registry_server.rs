//! A registry that misbehaves on demand.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::image::{MANIFEST_TYPE, TestImage, digest};

/// A request's head.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
}

/// What to answer.
pub(super) enum Reply {
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// 200 with a length of which only so many bytes come.
    CutOff(Vec<u8>, usize),
    /// The head of a 200 with this length, and nothing for as long as the client
    /// stays.
    Stall(usize),
    /// 200 without end.
    Endless,
}

impl Reply {
    pub(super) fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole(
            200,
            vec![("Content-Type", content_type.to_owned())],
            body.into(),
        )
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message}]});
        Self::Whole(status, Vec::new(), body.to_string().into_bytes())
    }
}

/// A registry at work, and what it was asked.
pub(super) struct RegistryServer {
    pub(super) address: SocketAddr,
    pub(super) asked: watch::Receiver<Vec<Head>>,
}

impl RegistryServer {
    /// Serves what `answer` says to each request and how often it was made before.
    pub(super) async fn start(
        answer: impl Fn(&Head, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = watch::channel(Vec::new());
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asking, answer) = (asking.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    // The client may hang up whenever it likes.
                    let _ = serve(stream, &asking, &*answer).await;
                });
            }
        });
        Self { address, asked }
    }

    /// Serves `image` as `x:latest`, but for what `twist` has an answer of its own.
    pub(super) async fn with_image(
        image: TestImage,
        twist: impl Fn(&Head, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |head, before| {
            twist(head, before).unwrap_or_else(|| serve_image(&image, head))
        })
        .await
    }

    /// The pull of `x:latest`.
    pub(super) fn pull_path(&self) -> String {
        format!("/images/create?fromImage={}/x&tag=latest", self.address)
    }

    /// The image's name in familiar form.
    pub(super) fn image_name(&self) -> String {
        format!("{}/x:latest", self.address)
    }

    /// Requests whose path has `part`.
    pub(super) fn asked_for(&self, part: &str) -> Vec<Head> {
        let asked = self.asked.borrow();
        asked
            .iter()
            .filter(|head| head.path.contains(part))
            .cloned()
            .collect()
    }
}

/// What a registry in good order answers.
pub(super) fn serve_image(image: &TestImage, head: &Head) -> Reply {
    if head.path == "/v2/" {
        return Reply::ok("application/json", "{}");
    }
    let version = head.path.rsplit('/').next().unwrap_or_default();
    if head.path.contains("/manifests/") {
        if version == "latest" || version == digest(&image.manifest) {
            return Reply::ok(MANIFEST_TYPE, image.manifest.clone());
        }
        return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    let Some(blob) = image.blobs().find(|blob| digest(blob) == version) else {
        return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let start = head.headers.get("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    match start {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            let headers = vec![("Content-Range", range)];
            Reply::Whole(206, headers, blob[start..].to_vec())
        }
        None => Reply::ok("application/octet-stream", blob.clone()),
    }
}

async fn serve(
    stream: TcpStream,
    asking: &watch::Sender<Vec<Head>>,
    answer: &(impl Fn(&Head, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let head = Head { path, headers };
    let mut before = 0;
    asking.send_modify(|asked| {
        before = asked
            .iter()
            .filter(|earlier| earlier.path == head.path)
            .count();
        asked.push(head.clone());
    });
    let mut out = stream.into_inner();
    match answer(&head, before) {
        Reply::Whole(status, headers, body) => {
            let length = ("Content-Length", body.len().to_string());
            let fields: String = headers
                .into_iter()
                .chain([length])
                .flat_map(|(name, value)| [name.to_owned(), ": ".into(), value, "\r\n".into()])
                .collect();
            let text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{fields}\r\n");
            out.write_all(text.as_bytes()).await?;
            out.write_all(&body).await?;
        }
        Reply::CutOff(body, sent) => {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            out.write_all(text.as_bytes()).await?;
            out.write_all(&body[..sent]).await?;
        }
        Reply::Stall(length) => {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            out.write_all(text.as_bytes()).await?;
            let mut rest = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut out, &mut rest).await?;
        }
        Reply::Endless => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n")
                .await?;
            loop {
                out.write_all(&vec![b' '; 65536]).await?;
            }
        }
    }
    out.shutdown().await
}
