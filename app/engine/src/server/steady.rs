//! A request's body that may not stand still.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that fails when nothing of it comes for a while, though somebody waits.
pub(super) struct Steady {
    body: Incoming,
    pause: Duration,
    /// Ends when there was nothing for too long; there from the first wait on.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Steady {
    /// `body`, with pauses of `pause` at most.
    pub(super) fn new(body: Incoming, pause: Duration) -> Self {
        Self {
            body,
            pause,
            patience: None,
        }
    }
}

impl Body for Steady {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.patience = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        let pause = this.pause;
        let patience = this
            .patience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + pause)));
        patience.as_mut().poll(context).map(|()| {
            let message = format!("nothing of the body came for {} seconds", pause.as_secs());
            Some(Err(io::Error::new(io::ErrorKind::TimedOut, message).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
