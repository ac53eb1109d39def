//! HTTP/1 on the socket: connections, version prefixes, and an end in order.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header::SERVER},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};
use tower_service::Service;

use crate::api::{MAX_VERSION, negotiate};

/// How long requests under way may take when the engine ends.
const GRACE: Duration = Duration::from_secs(3);
/// Connections at once; a client that needs more waits.
const MAX_CONNECTIONS: usize = 1024;
/// How long to wait when the process has no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `end`, then lets requests under way finish, for a moment.
pub(crate) async fn serve(listener: UnixListener, router: Router, end: impl Future<Output = ()>) {
    let ending = watch::Sender::new(false);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut end = pin!(end);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = &mut end => break,
        };
        match accepted {
            Ok((client, _)) => {
                let connection = connection(client, router.clone(), ending.subscribe());
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    // Closed when the last connection has dropped its end.
    if tokio::time::timeout(GRACE, ending.closed()).await.is_err() {
        tracing::info!("requests under way were cut off");
    }
}

/// Serves one connection; takes no more requests once `ending`.
async fn connection(
    client: UnixStream,
    router: Router,
    mut ending: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match negotiate(&mut request) {
        Ok(()) => {
            tracing::debug!(method = %request.method(), path = request.uri().path(), "request");
            router.call(request.map(Body::new)).await?
        }
        Err(error) => error.into_response(),
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
