//! A client of OCI distribution registries: names, credentials, manifests and
//! blobs that are verified while they stream.
//!
//! [`crate::images`] calls it to pull and push, the API to search. It knows nothing of the guest, of Docker's
//! progress messages or of the API that asked; it never writes to disk and never
//! logs a secret.

mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
mod platform;
mod retry;

pub(crate) use blob::Blob;
pub(crate) use client::{Client, Found, Location, Manifest, Upload, search};
pub(crate) use credentials::{AuthConfig, Credentials};
pub(crate) use error::RegistryError;
pub(crate) use platform::Platform;
pub(crate) use retry::Backoff;
