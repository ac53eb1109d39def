//! A blob, verified while it is read, and gone on with where a connection broke.

use bytes::Bytes;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};

use super::{Client, RegistryError, client::Patience, error::innermost, retry::Backoff};

/// A blob on its way from a registry.
///
/// The last piece is handed out only after the whole was verified, so who passes
/// the pieces on never completes something that is damaged.
pub(crate) struct Blob {
    client: Client,
    digest: String,
    size: u64,
    received: u64,
    hash: Sha256,
    response: Option<reqwest::Response>,
    /// Bytes at the start of the response that were received before, from a
    /// registry that does not know ranges.
    skip: u64,
    held_back: Option<Bytes>,
    backoff: Backoff,
    done: bool,
}

impl Blob {
    pub(super) fn new(client: Client, digest: String, size: u64) -> Self {
        Self {
            client,
            digest,
            size,
            received: 0,
            hash: Sha256::new(),
            response: None,
            skip: 0,
            held_back: None,
            backoff: Backoff::default(),
            done: false,
        }
    }

    /// The next piece; `None` after the last, when all was verified.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while !self.done {
            let Some(piece) = self.receive().await? else {
                self.verify()?;
                self.done = true;
                break;
            };
            if let Some(earlier) = self.held_back.replace(piece) {
                return Ok(Some(earlier));
            }
        }
        Ok(self.held_back.take())
    }

    /// The whole of a small blob, at most `limit` bytes.
    pub(crate) async fn read(mut self, limit: u64) -> Result<Bytes, RegistryError> {
        if self.size > limit {
            return Err(RegistryError::Size {
                what: self.what(),
                expected: limit,
                actual: self.size,
            });
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    /// The next piece as it comes, hashed; `None` when all have come.
    async fn receive(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.received == self.size && (self.response.is_none() || self.size == 0) {
                return Ok(None);
            }
            if self.response.is_none() {
                self.connect().await?;
            }
            let Some(response) = &mut self.response else {
                continue;
            };
            match response.chunk().await {
                Ok(Some(mut piece)) => {
                    let old = self.skip.min(piece.len() as u64);
                    self.skip -= old;
                    let piece = piece.split_off(old as usize);
                    if piece.is_empty() {
                        continue;
                    }
                    self.received += piece.len() as u64;
                    if self.received > self.size {
                        return Err(RegistryError::Size {
                            what: self.what(),
                            expected: self.size,
                            actual: self.received,
                        });
                    }
                    self.hash.update(&piece);
                    self.backoff.progress();
                    return Ok(Some(piece));
                }
                // When everything came, how the connection ended does not matter.
                Ok(None) | Err(_) if self.received == self.size => {
                    self.response = None;
                    return Ok(None);
                }
                Ok(None) => self.interrupted("unexpected EOF".to_owned()).await?,
                Err(error) => self.interrupted(innermost(&error)).await?,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), RegistryError> {
        let patience = if self.received == 0 {
            Patience::FirstContact
        } else {
            Patience::Known
        };
        let response = self
            .client
            .get_blob(&self.digest, self.received, patience)
            .await?;
        self.skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            self.received
        };
        self.response = Some(response);
        Ok(())
    }

    /// Waits before the next attempt, if there is to be one.
    async fn interrupted(&mut self, reason: String) -> Result<(), RegistryError> {
        self.response = None;
        match self.backoff.after_failure(None) {
            Some(wait) => {
                tracing::info!(digest = %self.digest, received = self.received, %reason, "going on with a blob");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(RegistryError::Interrupted {
                what: format!("{} ({} of {} bytes)", self.what(), self.received, self.size),
                host: self.client.host().to_owned(),
                reason,
            }),
        }
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        let actual = format!("sha256:{}", hex::encode(self.hash.finalize_reset()));
        if actual == self.digest {
            return Ok(());
        }
        Err(RegistryError::Digest {
            what: self.what(),
            expected: self.digest.clone(),
            actual,
        })
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }
}
