//! Docker's progress messages: one JSON object a line, as `docker pull` draws
//! them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How often one layer's bar moves at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// The client is gone; nobody wants the rest.
#[derive(Debug, thiserror::Error)]
#[error("the client went away")]
pub(crate) struct Gone;

/// Where progress goes. Waits when the client does not read.
#[derive(Clone)]
pub(crate) struct Progress {
    lines: mpsc::Sender<Bytes>,
}

impl Progress {
    /// A progress and the lines that come of it.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Bytes>) {
        let (lines, receiver) = mpsc::channel(16);
        (Self { lines }, receiver)
    }

    /// A line of its own.
    pub(crate) async fn status(&self, status: impl Into<String>) -> Result<(), Gone> {
        self.send(&json!({"status": status.into()})).await
    }

    /// A line about `id`, a tag or a layer.
    pub(crate) async fn status_of(&self, id: &str, status: &str) -> Result<(), Gone> {
        self.send(&json!({"status": status, "id": id})).await
    }

    /// A step of the layer `id`, without a bar.
    pub(crate) async fn step(&self, id: &str, status: &str) -> Result<(), Gone> {
        self.send(&json!({"status": status, "progressDetail": {}, "id": id}))
            .await
    }

    /// A line that is text for a terminal, with its line break.
    pub(crate) async fn stream(&self, text: &str) -> Result<(), Gone> {
        self.send(&json!({"stream": text})).await
    }

    /// A line for programs.
    pub(crate) async fn aux(&self, value: &Value) -> Result<(), Gone> {
        self.send(&json!({"progressDetail": {}, "aux": value}))
            .await
    }

    /// A bar for the layer `id` of `total` bytes.
    pub(crate) fn bar<'a>(&'a self, id: &'a str, status: &'static str, total: u64) -> Bar<'a> {
        Bar {
            progress: self,
            id,
            status,
            total,
            drawn: None,
        }
    }

    /// Resolves when the client is gone.
    pub(crate) async fn gone(&self) {
        self.lines.closed().await;
    }

    async fn send(&self, message: &Value) -> Result<(), Gone> {
        let line = format!("{message}\r\n");
        self.lines.send(line.into()).await.map_err(|_| Gone)
    }
}

/// The line of a failure after output has begun.
pub(crate) fn error_line(message: &str) -> Bytes {
    let line = json!({"errorDetail": {"message": message}, "error": message});
    format!("{line}\r\n").into()
}

/// A layer's bar.
pub(crate) struct Bar<'a> {
    progress: &'a Progress,
    id: &'a str,
    status: &'static str,
    total: u64,
    drawn: Option<Instant>,
}

impl Bar<'_> {
    /// Moves it, unless it moved a moment ago.
    pub(crate) async fn set(&mut self, current: u64) -> Result<(), Gone> {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        self.progress
            .send(&json!({
                "status": self.status,
                "progressDetail": {"current": current, "total": self.total},
                "progress": bar_text(current, self.total),
                "id": self.id,
            }))
            .await
    }
}

/// `[=====>   ]  1.5MB/3MB`, for clients that print it instead of drawing.
fn bar_text(current: u64, total: u64) -> String {
    const WIDTH: usize = 50;
    let done = current
        .saturating_mul(WIDTH as u64)
        .checked_div(total)
        .map_or(WIDTH, |done| (done as usize).min(WIDTH));
    let arrow = if done < WIDTH { ">" } else { "" };
    format!(
        "[{}{arrow}{}]  {}/{}",
        "=".repeat(done),
        " ".repeat((WIDTH - done).saturating_sub(1)),
        human_size(current),
        human_size(total)
    )
}

/// Decimal units and four digits, as Docker prints sizes.
#[allow(clippy::cast_precision_loss)] // Four digits are shown.
fn human_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    let decimals = match size {
        s if s >= 1000.0 => 0,
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{size:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_docker_prints_them() {
        for (bytes, text) in [
            (0, "0B"),
            (512, "512B"),
            (1000, "1kB"),
            (2_219_949, "2.22MB"),
            (123_456_789, "123.5MB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_bar_is_as_wide_as_docker_s() {
        for (current, total) in [(0, 10), (5, 10), (10, 10), (20, 10), (0, 0)] {
            let text = bar_text(current, total);
            assert_eq!(text.find(']'), Some(51), "{text}");
        }
    }

    #[tokio::test]
    async fn who_went_away_is_noticed() {
        let (progress, lines) = Progress::channel();
        drop(lines);
        assert!(progress.status("x").await.is_err());
        progress.gone().await;
    }
}
