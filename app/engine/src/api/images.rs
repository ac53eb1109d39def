//! Images: pull, list, tag, remove.

use std::collections::{HashMap, HashSet};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use guest_protocol::{
    docker::ImageDeleteResponseItem,
    image::{Image, Removed},
    methods::{ContainerList, ImageInspect, ImageList, ImageRemove, ImageTag, ImagesDiskUsage},
    reference::Reference,
};
use serde_json::{Value, json};

use super::{
    ApiError, Context, auth, events, filters::Filters, image_archives, image_view,
    name_pattern::Pattern, new_images, parameters::Parameters, progress, times, unknown,
    version::ALWAYS_DIGESTS,
};
use crate::{
    agent::CallError,
    images::{Progress, import_starter, is_starter, pull, pull_all_tags},
};

/// `GET /images/json`
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&[
            "before",
            "dangling",
            "label",
            "label!",
            "reference",
            "since",
            "until",
        ])
        .map_err(ApiError::bad_request)?;
    let dangling = filters.flag("dangling").map_err(ApiError::bad_request)?;
    let images = context.agent.call(ImageList {}).await?;
    let shared = if parameters.flag("shared-size") {
        Some(context.agent.call(ImagesDiskUsage {}).await?.shared)
    } else {
        None
    };
    let created_of = |key: &str| -> Result<Option<i64>, ApiError> {
        let Some(wanted) = filters.get(key).first() else {
            return Ok(None);
        };
        find(&images, wanted)
            .map(image_view::created)
            .ok_or_else(|| ApiError::not_found(format!("No such image: {wanted}")))
    };
    let period = Period {
        before: created_of("before")?,
        since: created_of("since")?,
        until: until(&filters)?,
    };
    let patterns = filters.get("reference").iter();
    let patterns = patterns.map(|pattern| Pattern::parse(pattern));
    let patterns: Vec<_> = patterns
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut summaries: Vec<_> = images
        .into_iter()
        .filter_map(|image| named_so(image, &patterns))
        .filter(|image| dangling.is_none_or(|dangling| image.repo_tags.is_empty() == dangling))
        .filter(|image| filters.labels(&image_view::labels(image)))
        .filter(|image| period.includes(image_view::created(image)))
        .map(|image| {
            let shared = shared.as_ref().map_or(-1, |sizes| {
                sizes.get(&image.id).map_or(0, |size| *size as i64)
            });
            image_view::summary(&image, shared, parameters.version)
        })
        .collect();
    summaries.sort_by_key(|image| std::cmp::Reverse(image.created));
    let mut shown = json!(summaries);
    if parameters.version < ALWAYS_DIGESTS && !parameters.flag("digests") {
        for image in shown.as_array_mut().into_iter().flatten() {
            image["RepoDigests"] = Value::Null;
        }
    }
    Ok(Json(shown))
}

/// When images were made that are asked for, in Unix seconds.
#[derive(Default)]
struct Period {
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Period {
    /// As in Docker, an image that does not say when it was made is in no period that is
    /// limited.
    fn includes(&self, created: Option<i64>) -> bool {
        let holds = |limit: Option<i64>, compare: fn(&i64, &i64) -> bool| {
            limit.is_none_or(|limit| created.is_some_and(|created| compare(&created, &limit)))
        };
        holds(self.before, i64::lt) && holds(self.since, i64::gt) && holds(self.until, i64::le)
    }
}

/// The filter `until`, in Unix seconds.
fn until(filters: &Filters) -> Result<Option<i64>, ApiError> {
    let until = filters.get("until").first();
    until
        .map(|until| times::parse(until).map_err(ApiError::bad_request))
        .transpose()
        .map(|time| time.map(|nanoseconds| nanoseconds / 1_000_000_000))
}

fn find<'a>(images: &'a [Image], wanted: &str) -> Option<&'a Image> {
    let name = Reference::parse(wanted).map(|name| name.or_latest().to_string());
    images.iter().find(|image| {
        let hex = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        hex.starts_with(wanted)
            || image.id == wanted
            || name.as_ref().is_ok_and(|name| {
                image.repo_tags.contains(name) || image.repo_digests.contains(name)
            })
    })
}

/// The image with those of its names that one of `patterns` stands for, if there are any;
/// all without patterns.
fn named_so(mut image: Image, patterns: &[Pattern]) -> Option<Image> {
    if patterns.is_empty() {
        return Some(image);
    }
    let wanted = |name: &String| patterns.iter().any(|pattern| pattern.matches_name(name));
    image.repo_tags.retain(wanted);
    image.repo_digests.retain(wanted);
    (!image.repo_tags.is_empty() || !image.repo_digests.is_empty()).then_some(image)
}

/// `POST /images/create`: a pull, with its progress as the body, or an import.
///
/// What fails before there is progress is an HTTP error, afterwards a last line.
pub(super) async fn create(
    State(context): State<Context>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if let Some(source) = parameters.text("fromSrc") {
        return new_images::import(context, &parameters, source, body).await;
    }
    let name = parameters
        .text("fromImage")
        .ok_or_else(|| ApiError::bad_request("parameter fromImage is missing"))?;
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let mut reference = Reference::parse(name).map_err(|error| invalid(&error))?;
    if let Some(version) = parameters.text("tag") {
        reference = with_tag(reference, version)?;
    }
    let platform = parameters.platform()?;
    let starter = context.starter.filter(|_| is_starter(&reference));
    let credentials = match starter {
        Some(_) => None,
        None => Some(auth::for_registry(&headers, reference.domain()).await?),
    };
    let (progress, lines) = Progress::channel();
    let task = tokio::spawn(async move {
        let agent = &context.agent;
        let platform = platform.as_ref();
        let work = async {
            match (starter, credentials) {
                (Some(layout), _) => import_starter(agent, layout, &progress).await,
                (None, None) => Ok(()),
                (None, Some(credentials))
                    if reference.tag().is_none() && reference.digest().is_none() =>
                {
                    pull_all_tags(agent, &reference, platform, credentials, &progress).await
                }
                (None, Some(credentials)) => {
                    pull(agent, &reference, platform, credentials, &progress).await
                }
            }
        };
        tokio::select! {
            result = work => result,
            () = progress.gone() => Ok(()),
        }
    });
    progress::respond(task, lines, "the pull failed").await
}

/// `GET /images/{name}/json`, `/history` and `/get`
pub(super) async fn get(
    State(context): State<Context>,
    Path(path): Path<String>,
    parameters: Parameters,
    uri: Uri,
) -> Result<Response, ApiError> {
    let inspect = async |reference: &str| {
        let reference = reference.to_owned();
        context.agent.call(ImageInspect { reference }).await
    };
    if let Some(name) = path.strip_suffix("/get") {
        return image_archives::save(&context, vec![name.to_owned()], &parameters).await;
    }
    if let Some(name) = path.strip_suffix("/json") {
        let image = inspect(name).await?;
        image_view::require_platform(&image, name, parameters.platform()?.as_ref())?;
        return Ok(Json(image_view::inspect(image, parameters.version)?).into_response());
    }
    if let Some(name) = path.strip_suffix("/history") {
        let image = inspect(name).await?;
        image_view::require_platform(&image, name, parameters.platform()?.as_ref())?;
        return Ok(Json(image_view::history(&image)).into_response());
    }
    Err(unknown::error("GET", &uri))
}

/// `POST /images/{name}/tag` and `/push`
pub(super) async fn post(
    State(context): State<Context>,
    Path(path): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    if let Some(name) = path.strip_suffix("/push") {
        return image_archives::push(context, name, &parameters, &headers).await;
    }
    let Some(name) = path.strip_suffix("/tag") else {
        return Err(unknown::error("POST", &uri));
    };
    let Some(repository) = parameters.text("repo") else {
        // As in Docker: no name is nothing to do.
        return Ok(StatusCode::OK.into_response());
    };
    let mut target =
        Reference::parse(repository).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if target.digest().is_some() {
        return Err(ApiError::bad_request(
            "refusing to create a tag with a digest reference",
        ));
    }
    if let Some(tag) = parameters.text("tag") {
        target = with_tag(target, tag)?;
    }
    let request = ImageTag {
        reference: name.to_owned(),
        name: target.or_latest().to_string(),
    };
    context.agent.call(request).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// A name with a tag, or a digest.
///
/// # Errors
/// 400 when it is neither.
pub(super) fn with_tag(name: Reference, tag: &str) -> Result<Reference, ApiError> {
    let is_tag = !tag.contains(':');
    name.with_version(tag).map_err(|error| {
        ApiError::bad_request(if is_tag {
            "invalid tag format".to_owned()
        } else {
            error.to_string()
        })
    })
}

/// `DELETE /images/{name}`
pub(super) async fn remove(
    State(context): State<Context>,
    Path(reference): Path<String>,
    parameters: Parameters,
) -> Result<Json<Vec<ImageDeleteResponseItem>>, ApiError> {
    let force = parameters.flag("force");
    // Layers are no images here, so that there are no parents that `noprune` could
    // keep.
    let removed = context.agent.call(ImageRemove { reference, force }).await?;
    Ok(Json(removed.into_iter().map(item).collect()))
}

fn item(removed: Removed) -> ImageDeleteResponseItem {
    let (untagged, deleted) = match removed {
        Removed::Untagged(name) => (Some(name), None),
        Removed::Deleted(id) => (None, Some(id)),
    };
    ImageDeleteResponseItem { untagged, deleted }
}

/// `POST /images/prune`
pub(super) async fn prune(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let filters = parameters.filters()?;
    filters
        .allow(&["dangling", "label", "label!", "until"])
        .map_err(ApiError::bad_request)?;
    let only_dangling = filters
        .flag("dangling")
        .map_err(ApiError::bad_request)?
        .unwrap_or(true);
    let period = Period {
        until: until(&filters)?,
        ..Period::default()
    };
    let containers = context.agent.call(ContainerList {}).await?;
    let used: HashSet<_> = containers.into_iter().map(|c| c.image_id).collect();
    let images = context.agent.call(ImageList {}).await?;
    // A layer that several images have is gone once, with the last of them.
    let sizes: HashMap<_, _> = images
        .iter()
        .flat_map(|image| &image.layers)
        .map(|layer| (layer.diff_id.clone(), layer.size))
        .collect();
    let mut deleted = Vec::new();
    let mut reclaimed = 0_u64;
    for image in images {
        if used.contains(&image.id)
            || (only_dangling && !image.repo_tags.is_empty())
            || !period.includes(image_view::created(&image))
            || !filters.labels(&image_view::labels(&image))
        {
            continue;
        }
        // By each of its names, so that nothing is forced.
        let names = if image.repo_tags.is_empty() {
            vec![image.id.clone()]
        } else {
            image.repo_tags.clone()
        };
        for reference in names {
            match context
                .agent
                .call(ImageRemove {
                    reference,
                    force: false,
                })
                .await
            {
                Ok(removed) => {
                    for one in &removed {
                        if let Removed::Deleted(id) = one {
                            reclaimed += sizes.get(id).copied().unwrap_or_default();
                        }
                    }
                    deleted.extend(removed.into_iter().map(item));
                }
                // In use by now.
                Err(CallError::Agent(error)) => {
                    tracing::info!(image = %image.id, %error, "not pruned");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    events::tell_pruned(&context, "image", reclaimed).await?;
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json(
        json!({"ImagesDeleted": deleted, "SpaceReclaimed": reclaimed}),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_does_not_say_its_age_is_neither_old_nor_new() {
        let (old, new) = (Some(10), Some(20));
        let until = |until| Period {
            until: Some(until),
            ..Period::default()
        };
        assert!(until(15).includes(old) && !until(15).includes(new));
        let between = Period {
            before: Some(20),
            since: Some(9),
            until: None,
        };
        assert!(between.includes(old) && !between.includes(new));
        assert!(!until(15).includes(None) && !between.includes(None));
        assert!(Period::default().includes(None));
    }

    #[test]
    fn an_image_is_listed_by_the_names_that_were_asked_for() {
        let image = Image {
            repo_tags: vec!["busybox:latest".into(), "other:1".into()],
            repo_digests: vec!["busybox@sha256:aa".into()],
            ..Image::default()
        };
        let named = |pattern: &str| named_so(image.clone(), &[Pattern::parse(pattern).unwrap()]);
        let busybox = named("busy*").unwrap();
        assert_eq!(busybox.repo_tags, ["busybox:latest"]);
        assert_eq!(busybox.repo_digests, image.repo_digests);
        assert_eq!(named("other").unwrap().repo_tags, ["other:1"]);
        assert!(named("nobody").is_none());
        assert_eq!(named_so(image.clone(), &[]), Some(image));
    }
}
