//! One client's connection: its requests, and its end, whichever side ends it.

use std::{convert::Infallible, error::Error, pin::pin, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, Response, header::SERVER},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixStream, sync::watch};
use tower_service::Service;

use super::{Limits, steady::Steady};
use crate::{
    api::{MAX_VERSION, negotiate},
    hangup::Hangup,
};

/// Serves one connection; takes no more requests once `ending`.
///
/// A client may close its sending direction and still gets its answers. One that is
/// gone is noticed whatever it had sent before, and nothing is kept for it.
pub(crate) async fn serve(
    client: UnixStream,
    router: Router,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let gone = Hangup::of(&client)?;
    let changing = watch::Sender::new(false);
    let mut changed = changing.subscribe();
    let service = service_fn(move |request| {
        answer(router.clone(), limits.body_pause, changing.clone(), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let left = tokio::select! {
        // What the client has said before it went is heard.
        biased;
        result = &mut connection => return Ok(result?),
        () = gone.wait() => true,
        _ = ending.wait_for(|ending| *ending) => false,
    };
    if left {
        let finished = async {
            tokio::select! {
                _ = &mut connection => {}
                // Its sender is dropped with the connection.
                _ = changed.wait_for(|changing| !changing) => {}
            }
        };
        let _ = tokio::time::timeout(limits.unattended, finished).await;
        return Ok(());
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection => Ok(result?),
        () = gone.wait() => Ok(()),
    }
}

/// Notes that something is being changed, until it is dropped.
struct Changing(watch::Sender<bool>);

impl Changing {
    fn begin(changing: watch::Sender<bool>) -> Self {
        changing.send_replace(true);
        Self(changing)
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Whether a request is done to its end though its client is gone: half of a change
/// would be worse. Images that come and go are given up with their client, as Docker
/// does.
fn outlives_its_client(method: &Method, path: &str) -> bool {
    *method != Method::GET && *method != Method::HEAD && !path.starts_with("/images/")
}

async fn answer(
    mut router: Router,
    body_pause: Duration,
    changing: watch::Sender<bool>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match negotiate(&mut request) {
        Ok(()) => {
            let (method, path) = (request.method(), request.uri().path());
            tracing::debug!(%method, path, "request");
            let _changing = outlives_its_client(method, path).then(|| Changing::begin(changing));
            let request = request.map(|body| match body.size_hint().exact() {
                Some(1..) => Body::new(Steady::new(body, body_pause)),
                _ => Body::new(body),
            });
            router.call(request).await?
        }
        Err(refusal) => *refusal,
    };
    let headers = response.headers_mut();
    if let Ok(version) = HeaderValue::from_str(&MAX_VERSION.to_string()) {
        headers.insert("api-version", version);
    }
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    let server = concat!("dctl/", env!("CARGO_PKG_VERSION"), " (linux)");
    headers.insert(SERVER, HeaderValue::from_static(server));
    Ok(response)
}
