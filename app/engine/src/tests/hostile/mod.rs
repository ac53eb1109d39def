//! Clients that are broken or mean: bytes that are no requests, bodies that are too
//! much or never come, and connections that are left at any moment.

mod bodies;
mod dropped;
mod footprint;
mod heads;
mod slow;

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// More than any answer in these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that says what it likes.
struct Raw {
    stream: UnixStream,
}

impl Raw {
    async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        Self { stream }
    }

    /// Connects and says `bytes`.
    async fn say(socket: &Path, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(socket).await;
        client.send(bytes).await;
        client
    }

    /// Sends, as far as the engine listens.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref());
        tokio::time::timeout(PATIENCE, sent).await.unwrap().is_ok()
    }

    /// Everything until the engine closes.
    async fn rest(mut self) -> String {
        let mut answer = Vec::new();
        // A reset after the answer counts as an end.
        let reading = self.stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("the engine answers and closes in time");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What comes until `mark` has come.
    async fn until(&mut self, mark: &str) -> String {
        let mut answer = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&answer).contains(mark) {
                if self.stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(in_time && answer.contains(mark), "no {mark:?}: {answer:?}");
        answer
    }
}

/// The status in an answer, 0 if there was none.
fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1);
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The rest of an answer after its headers, as it came.
fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
