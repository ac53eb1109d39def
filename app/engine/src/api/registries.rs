//! What registries say: search, and manifests that are not pulled.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, Uri},
};
use guest_protocol::reference::Reference;
use oci_spec::image::{ImageIndex, ImageManifest};
use serde_json::{Value, json};

use super::{ApiError, Context, auth, image_view::platform_of, parameters::Parameters, unknown};
use crate::registry::{self, Client, Found, Manifest};

/// How many repositories a search finds when nobody says, and at most.
const SEARCH_LIMIT: usize = 25;
const MAX_SEARCH_LIMIT: usize = 100;
/// The largest configuration that is read, in bytes.
const MAX_CONFIGURATION: u64 = 4 * 1024 * 1024;

/// `GET /images/search`
pub(super) async fn search(
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Json<Vec<Found>>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&["is-automated", "is-official", "stars"])
        .map_err(ApiError::bad_request)?;
    let official = filters.flag("is-official").map_err(ApiError::bad_request)?;
    let automated = filters
        .flag("is-automated")
        .map_err(ApiError::bad_request)?;
    let mut stars = 0;
    for value in filters.get("stars") {
        let least: u64 = value
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid filter 'stars=[{value}]'")))?;
        stars = stars.max(least);
    }
    let limit = match parameters.number("limit")?.unwrap_or(0) {
        0 => SEARCH_LIMIT,
        limit @ 1..=MAX_SEARCH_LIMIT => limit,
        limit => {
            return Err(ApiError::bad_request(format!(
                "limit {limit} is outside the range of [1, {MAX_SEARCH_LIMIT}]"
            )));
        }
    };
    let term = parameters
        .text("term")
        .ok_or_else(|| ApiError::bad_request("parameter term is missing"))?;
    let reference =
        Reference::parse(term).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let credentials = auth::for_registry(&headers, reference.domain()).await?;
    let mut found = registry::search(&reference, credentials, limit).await?;
    found.retain(|repository| {
        repository.star_count >= stars
            && official.is_none_or(|official| repository.is_official == official)
            && automated.is_none_or(|automated| repository.is_automated == automated)
    });
    Ok(Json(found))
}

/// What a name leads to in its registry.
async fn fetch(headers: &HeaderMap, name: &str) -> Result<(Client, Manifest), ApiError> {
    let reference = Reference::parse(name)
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .or_latest();
    let credentials = auth::for_registry(headers, reference.domain()).await?;
    let client = Client::new(&reference, credentials)?;
    let manifest = client.manifest(reference.version()).await?;
    Ok((client, manifest))
}

/// `GET /distribution/{name}/json`
pub(super) async fn distribution(
    State(_): State<Context>,
    Path(path): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let Some(name) = path.strip_suffix("/json") else {
        return Err(unknown::error("GET", &uri));
    };
    let (client, manifest) = fetch(&headers, name).await?;
    let descriptor = descriptor(&manifest);
    let platforms = match Document::read(&manifest)? {
        Document::Index(index) => index
            .manifests()
            .iter()
            .filter_map(|inner| serde_json::to_value(inner.platform().as_ref()?).ok())
            .collect(),
        Document::Manifest(document) => vec![platform(&client, &document).await?],
    };
    Ok(Json(
        json!({"Descriptor": descriptor, "Platforms": platforms}),
    ))
}

/// `GET /dctl/manifest/{name}`: a manifest as it is, and with `verbose` those of all
/// platforms.
pub(super) async fn manifest(
    State(_): State<Context>,
    Path(name): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let (client, top) = fetch(&headers, &name).await?;
    let raw = |manifest: &Manifest| -> Result<Value, ApiError> {
        serde_json::from_slice(&manifest.bytes)
            .map_err(|error| ApiError::internal(format!("the manifest is no JSON: {error}")))
    };
    if !parameters.flag("verbose") {
        return Ok(Json(raw(&top)?));
    }
    let reference = Reference::parse(&name)
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .or_latest();
    let entry = |manifest: &Manifest, platform: Value| -> Result<Value, ApiError> {
        let mut descriptor = descriptor(manifest);
        descriptor["platform"] = platform;
        let kind = if manifest.media_type.contains("docker") {
            "SchemaV2Manifest"
        } else {
            "OCIManifest"
        };
        Ok(json!({
            "Ref": reference.in_full(),
            "Descriptor": descriptor,
            kind: raw(manifest)?,
        }))
    };
    match Document::read(&top)? {
        Document::Manifest(document) => {
            let platform = platform(&client, &document).await?;
            Ok(Json(entry(&top, platform)?))
        }
        Document::Index(index) => {
            let mut entries = Vec::new();
            for inner in index.manifests() {
                let manifest = client.manifest(inner.digest().as_ref()).await?;
                let platform = serde_json::to_value(inner.platform()).unwrap_or_default();
                entries.push(entry(&manifest, platform)?);
            }
            Ok(Json(Value::Array(entries)))
        }
    }
}

fn descriptor(manifest: &Manifest) -> Value {
    let announced = manifest.media_type.split(';').next().unwrap_or_default();
    json!({
        "mediaType": announced.trim(),
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
    })
}

/// What an image was made for, by its configuration.
async fn platform(client: &Client, manifest: &ImageManifest) -> Result<Value, ApiError> {
    let config = manifest.config();
    let bytes = client
        .blob(config.digest().as_ref(), config.size())?
        .read(MAX_CONFIGURATION)
        .await?;
    let configuration = serde_json::from_slice(&bytes).unwrap_or_default();
    let platform = platform_of(&configuration);
    Ok(json!({"architecture": platform.architecture(), "os": platform.os()}))
}

/// A document that a registry has under a name.
enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

impl Document {
    fn read(manifest: &Manifest) -> Result<Self, ApiError> {
        let failed = |error: serde_json::Error| {
            ApiError::internal(format!(
                "manifest {} is not understood: {error}",
                manifest.digest
            ))
        };
        let value: Value = serde_json::from_slice(&manifest.bytes).map_err(failed)?;
        if value.get("manifests").is_some() {
            serde_json::from_value(value)
                .map(|index| Self::Index(Box::new(index)))
                .map_err(failed)
        } else {
            serde_json::from_value(value)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(failed)
        }
    }
}
