//! Searching: Docker's index where there is one, otherwise the list of a registry's
//! repositories.
//!
//! Sources: Docker Registry HTTP API V1, `GET /v1/search`; Docker Registry HTTP API
//! V2, "Listing Repositories".

use guest_protocol::reference::Reference;
use reqwest::{Url, header::LINK};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Client, MAX_MANIFEST, Patience};
use crate::registry::{Credentials, RegistryError};

/// Where Docker Hub's index is.
const DOCKER_HUB_INDEX: &str = "https://index.docker.io/v1/search";
/// How many pages of a registry's list are read.
const MAX_PAGES: usize = 20;
/// How many repositories are on a page.
const PAGE: &str = "1000";

/// A repository that was found; Docker's shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Found {
    /// Its name, with the registry's unless that is Docker Hub.
    pub(crate) name: String,
    /// What its owner says of it.
    pub(crate) description: String,
    /// How many people like it.
    pub(crate) star_count: u64,
    /// Whether Docker keeps it.
    pub(crate) is_official: bool,
    /// Whether it is built by Docker Hub.
    pub(crate) is_automated: bool,
}

/// Searches the registry that `term` begins with, or Docker Hub, for at most `limit`
/// repositories.
pub(crate) async fn search(
    term: &Reference,
    credentials: Credentials,
    limit: usize,
) -> Result<Vec<Found>, RegistryError> {
    let client = Client::new(term, credentials)?;
    let is_hub = term.domain() == "docker.io";
    let query = match term.path().strip_prefix("library/") {
        Some(name) if is_hub => name,
        _ => term.path(),
    };
    let index = if is_hub {
        DOCKER_HUB_INDEX.to_owned()
    } else {
        let base = &client.shared.base;
        format!("{}/v1/search", base.origin().ascii_serialization())
    };
    let mut found = match client.index(&index, query, limit).await {
        Ok(found) => found,
        Err(error) if is_hub => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the registry has no index");
            client.catalogue(query, limit).await?
        }
    };
    found.truncate(limit);
    if !is_hub {
        for repository in &mut found {
            repository.name = format!("{}/{}", term.domain(), repository.name);
        }
    }
    Ok(found)
}

impl Client {
    async fn index(
        &self,
        index: &str,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Found>, RegistryError> {
        #[derive(Deserialize)]
        struct Results {
            results: Vec<Found>,
        }
        let mut url = parse(index)?;
        url.query_pairs_mut()
            .append_pair("q", query)
            .append_pair("n", &limit.to_string());
        let (results, _): (Results, _) = self.document(&url, "the search").await?;
        Ok(results.results)
    }

    /// Repositories whose names contain `query`.
    async fn catalogue(&self, query: &str, limit: usize) -> Result<Vec<Found>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            repositories: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        let mut next = Some(self.shared.base.join("_catalog").map_err(unsupported)?);
        if let Some(url) = &mut next {
            url.query_pairs_mut().append_pair("n", PAGE);
        }
        for _ in 0..MAX_PAGES {
            let Some(url) = next.filter(|_| found.len() < limit) else {
                break;
            };
            let (page, link): (Page, _) = self.document(&url, "the list of repositories").await?;
            let names = page.repositories.into_iter().flatten();
            found.extend(names.filter(|name| name.contains(query)).map(|name| Found {
                name,
                ..Found::default()
            }));
            // Only where we are already: the list is not to lead us elsewhere.
            next = link
                .and_then(|link| url.join(&link).ok())
                .filter(|next| next.origin() == url.origin());
        }
        Ok(found)
    }

    /// A JSON document, and where the next page of it is.
    async fn document<T: DeserializeOwned>(
        &self,
        url: &Url,
        what: &str,
    ) -> Result<(T, Option<String>), RegistryError> {
        let request = || self.shared.http.get(url.clone());
        let response = self.send(what, Patience::FirstContact, request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, what).await);
        }
        let link = response
            .headers()
            .get(LINK)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| Some(value.strip_prefix('<')?.split_once('>')?.0.to_owned()));
        let bytes = self.read(response, MAX_MANIFEST, what).await?;
        let document = serde_json::from_slice(&bytes)
            .map_err(|error| RegistryError::Unsupported(format!("{what}: {error}")))?;
        Ok((document, link))
    }
}

fn parse(text: &str) -> Result<Url, RegistryError> {
    Url::parse(text).map_err(unsupported)
}

fn unsupported(error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Unsupported(format!("the registry's address: {error}"))
}
