//! Which image a text means: a name, a digest, an id, or the beginning of one.

use std::collections::BTreeMap;

use guest_protocol::{
    AgentError,
    reference::{Reference, ReferenceError, is_digest},
};

use super::Inner;
use crate::images::records::ImageRecord;

impl Inner {
    /// The image that `text` means: by full id, by name, by the beginning of an id.
    pub(super) fn find(&self, text: &str) -> Result<(String, ImageRecord), AgentError> {
        let named = name(text);
        let id = if is_digest(text) {
            Some(text.to_owned())
        } else if is_digest(&format!("sha256:{text}")) {
            Some(format!("sha256:{text}"))
        } else {
            match &named {
                Ok(reference) => self.records.reference(reference)?,
                Err(_) => None,
            }
        };
        let found = match id {
            Some(id) => self.records.image(&id)?.map(|record| (id, record)),
            None => self.find_by_prefix(text)?,
        };
        found
            .filter(|(_, record)| !record.removed)
            .ok_or_else(|| match named {
                Ok(reference) => AgentError::no_such_image(&reference.to_string()),
                Err(error) if !is_id_like(text) => invalid(text, &error),
                Err(_) => AgentError::no_such_image(text),
            })
    }

    fn find_by_prefix(&self, text: &str) -> Result<Option<(String, ImageRecord)>, AgentError> {
        if !is_id_like(text) {
            return Ok(None);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let mut matches = self.records.images()?.into_iter().filter(|(id, record)| {
            !record.removed
                && id
                    .strip_prefix("sha256:")
                    .is_some_and(|hex| hex.starts_with(prefix))
        });
        let first = matches.next();
        if matches.next().is_some() {
            return Err(AgentError::invalid(format!(
                "image id {text} is ambiguous: give more digits of it"
            )));
        }
        Ok(first)
    }
}

/// The name that `text` is of the image `id`; none when it is (the beginning of)
/// its id.
pub(crate) fn name_meant(text: &str, id: &str) -> Option<Reference> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if !hex.is_empty()
        && id
            .strip_prefix("sha256:")
            .is_some_and(|id| id.starts_with(hex))
    {
        return None;
    }
    name(text).ok()
}

/// Whether `text` can be the beginning of an id.
fn is_id_like(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (1..=64).contains(&hex.len())
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The names of the image `id`.
pub(super) fn names_of(names: &BTreeMap<Reference, String>, id: &str) -> Vec<Reference> {
    names
        .iter()
        .filter(|(_, named)| *named == id)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The name that `text` is. Without tag and digest it means `latest`; with both
/// the digest counts.
fn name(text: &str) -> Result<Reference, ReferenceError> {
    let reference = Reference::parse(text)?.or_latest();
    match reference.digest().map(str::to_owned) {
        Some(digest) => reference.with_version(&digest),
        None => Ok(reference),
    }
}

/// The same, or why it is none, for a client.
pub(super) fn parse(text: &str) -> Result<Reference, AgentError> {
    name(text).map_err(|error| invalid(text, &error))
}

pub(super) fn invalid(text: &str, error: &ReferenceError) -> AgentError {
    AgentError::invalid(format!("{error}: {text:?}"))
}
