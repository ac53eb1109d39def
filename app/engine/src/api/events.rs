//! `GET /events`: what happens in the machine, one JSON object a line.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use guest_protocol::{
    container::Event,
    frame,
    methods::{Events, Pruned},
    reference::Reference,
};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{ApiError, Context, filters::Filters, parameters::Parameters, times};

/// `GET /events`
///
/// `since` brings what the agent remembers of the past, `until` ends the stream.
pub(super) async fn stream(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filters = parameters.filters()?;
    let time = |name: &str| {
        let text = parameters.text(name).filter(|text| *text != "0");
        text.map(|text| times::parse(text).map_err(ApiError::bad_request))
            .transpose()
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let text = |name: &str| parameters.text(name).unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let ((), guest) = context.agent.open(Events { since, until }).await?;
    let lines = stream::unfold((guest, filters), next_line);
    Ok((
        [(CONTENT_TYPE, "application/json")],
        Body::from_stream(lines),
    )
        .into_response())
}

/// Has the agent tell that unused things of a kind were removed.
pub(super) async fn tell_pruned(
    context: &Context,
    kind: &str,
    reclaimed: u64,
) -> Result<(), ApiError> {
    let kind = kind.to_owned();
    Ok(context.agent.call(Pruned { kind, reclaimed }).await?)
}

type Following = (UnixStream, Filters);

/// The next event that is wanted; ends with the machine, or when the agent ends it.
async fn next_line((mut guest, filters): Following) -> Option<(io::Result<Bytes>, Following)> {
    loop {
        let event = match frame::read::<_, Event>(&mut guest).await {
            Ok(event) => event,
            Err(error) => {
                tracing::info!(%error, "events ended");
                return None;
            }
        };
        if includes(&filters, &event) {
            let line = format!("{}\n", message(&event));
            return Some((Ok(line.into()), (guest, filters)));
        }
    }
}

/// An event in Docker's shape, with the fields that older clients look for.
fn message(event: &Event) -> Value {
    let mut message = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time / 1_000_000_000,
        "timeNano": event.time,
    });
    if event.kind == "container" || event.kind == "image" {
        message["status"] = json!(event.action);
        message["id"] = json!(event.id);
    }
    if event.kind == "container"
        && let Some(image) = event.attributes.get("image")
    {
        message["from"] = json!(image);
    }
    message
}

fn includes(filters: &Filters, event: &Event) -> bool {
    // As in Docker: whatever the event is about.
    let named = |key: &str| {
        filters.any(key, |wanted| {
            let name = event.attributes.get("name");
            event.id.starts_with(wanted.as_str())
                || name.is_some_and(|name| name.starts_with(wanted.as_str()))
        })
    };
    // A container's image counts for `image`, too.
    let image = filters.any("image", |wanted| {
        let name = match event.kind.as_str() {
            "image" => event.attributes.get("name"),
            _ => event.attributes.get("image"),
        };
        [Some(&event.id), name]
            .into_iter()
            .flatten()
            .any(|name| name == wanted || repository(name).as_ref() == Some(wanted))
    });
    let others = [
        "config", "daemon", "network", "node", "plugin", "secret", "service", "volume",
    ];
    let attributes = event.attributes.clone().into_iter().collect();
    filters.exact("type", &event.kind)
        && filters.exact("scope", "local")
        && filters.any("event", |wanted| {
            event.action == *wanted || event.action.split(':').next() == Some(wanted)
        })
        && named("container")
        && image
        && others.into_iter().all(named)
        && filters.labels(&attributes)
}

/// A name without tag and digest.
fn repository(name: &str) -> Option<String> {
    Some(Reference::parse(name).ok()?.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "container".into(),
            action: "exec_create: sh".into(),
            id: "abcdef".into(),
            attributes: [("name", "web"), ("image", "busybox:1"), ("tier", "front")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            time: 5_000_000_007,
        }
    }

    #[test]
    fn filters_select_events() {
        let selects = |json: &str| includes(&Filters::parse(json).unwrap(), &event());
        for json in [
            "{}",
            r#"{"type":["container"]}"#,
            r#"{"event":["exec_create","die"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"container":["abc"]}"#,
            r#"{"image":["busybox"]}"#,
            r#"{"label":["tier=front"]}"#,
            r#"{"image":["busybox:1"]}"#,
        ] {
            assert!(selects(json), "{json}");
        }
        for json in [
            r#"{"type":["image"]}"#,
            r#"{"event":["die"]}"#,
            r#"{"container":["db"]}"#,
            r#"{"volume":["v"]}"#,
            r#"{"network":["other"]}"#,
            r#"{"label":["tier=back"]}"#,
        ] {
            assert!(!selects(json), "{json}");
        }
    }

    #[test]
    fn an_event_has_docker_s_shape() {
        let message = message(&event());
        assert_eq!(message["time"], 5);
        assert_eq!(message["timeNano"], 5_000_000_007_i64);
        assert_eq!(message["from"], "busybox:1");
        assert_eq!(message["Actor"]["Attributes"]["name"], "web");
    }
}
