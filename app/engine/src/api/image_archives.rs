//! Images as they leave the machine and come back: push, save, load.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use guest_protocol::{methods::ImageInspect, reference::Reference};

use super::{
    ApiError, Context, auth, image_view, images::with_tag, parameters::Parameters, progress,
};
use crate::images::{self, Progress};

/// `GET /images/get`
pub(super) async fn save_several(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    // Some clients send one list, others a parameter for each.
    let names: Vec<String> = parameters
        .texts("names")
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::to_owned)
        .collect();
    save(&context, names, &parameters).await
}

/// An archive of `names` as the reply.
pub(super) async fn save(
    context: &Context,
    names: Vec<String>,
    parameters: &Parameters,
) -> Result<Response, ApiError> {
    if let Some(platform) = parameters.platform()? {
        for name in &names {
            let reference = name.clone();
            let image = context.agent.call(ImageInspect { reference }).await?;
            image_view::require_platform(&image, name, Some(&platform))?;
        }
    }
    let archive = images::save(&context.agent, names).await?;
    Ok((
        [(CONTENT_TYPE, "application/x-tar")],
        Body::from_stream(archive),
    )
        .into_response())
}

/// `POST /images/load`
pub(super) async fn load(
    State(context): State<Context>,
    parameters: Parameters,
    body: Body,
) -> Result<Response, ApiError> {
    let quiet = parameters.flag("quiet");
    let platform = parameters.platform()?;
    let (progress, lines) = Progress::channel();
    let task = tokio::spawn(async move {
        let work = images::load(
            &context.agent,
            body.into_data_stream(),
            platform.as_ref(),
            quiet,
            &progress,
        );
        tokio::select! {
            result = work => result,
            () = progress.gone() => Ok(()),
        }
    });
    // As Docker: a stream from the beginning.
    Ok(progress::tell(task, lines, "loading failed"))
}

/// `POST /images/{name}/push`
pub(super) async fn push(
    context: Context,
    name: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let mut reference = Reference::parse(name).map_err(|error| invalid(&error))?;
    if let Some(tag) = parameters.text("tag") {
        reference = with_tag(reference, tag)?;
    }
    if let Some(platform) = parameters.platform()? {
        let name = reference.to_string();
        let reference = name.clone();
        let image = context.agent.call(ImageInspect { reference }).await?;
        image_view::require_platform(&image, &name, Some(&platform))?;
    }
    let credentials = auth::for_registry(headers, reference.domain()).await?;
    let (progress, lines) = Progress::channel();
    let task = tokio::spawn(async move {
        tokio::select! {
            result = images::push(&context.agent, &reference, credentials, &progress) => result,
            () = progress.gone() => Ok(()),
        }
    });
    progress::respond(task, lines, "the push failed").await
}
