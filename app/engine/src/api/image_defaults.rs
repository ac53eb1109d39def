//! What an image's description says of what its configuration leaves open, which
//! depends on the API's version.

use serde_json::{Value, json};

use super::version::{ApiVersion, FEW_IMAGE_FIELDS, NO_CONTAINER_CONFIG, NO_MADE_UP_TIME};

/// When an image was made that does not say, for clients that need something.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Adds what is missing to `GET /images/{name}/json`.
pub(super) fn fill(image: &mut Value, version: ApiVersion) {
    if version < NO_MADE_UP_TIME {
        add(&mut image["Created"], &json!(NEVER));
    }
    if version < NO_CONTAINER_CONFIG {
        // docker-compose 1 reads the volumes in it, and the image knows its own alone.
        let mut config = image["Config"].clone();
        complete(&mut config, true);
        image["ContainerConfig"] = config;
    }
    complete(&mut image["Config"], version < FEW_IMAGE_FIELDS);
}

/// Adds a configuration's fields: of an image, or those of a container, too.
fn complete(config: &mut Value, of_container: bool) {
    for field in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
        add(&mut config[field], &Value::Null);
    }
    for field in ["User", "WorkingDir"] {
        add(&mut config[field], &json!(""));
    }
    if !of_container {
        return;
    }
    for field in ["Hostname", "Domainname", "Image"] {
        add(&mut config[field], &json!(""));
    }
    for field in [
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    ] {
        add(&mut config[field], &json!(false));
    }
}

/// Sets a field that is not there, or null.
fn add(field: &mut Value, value: &Value) {
    if field.is_null() {
        field.clone_from(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MAX_VERSION, *};

    #[test]
    fn old_clients_are_told_more() {
        let mut new = json!({"Config": {"Cmd": ["sh"]}});
        let mut old = new.clone();
        fill(&mut new, MAX_VERSION);
        assert_eq!(new["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(new["Config"]["User"], "");
        assert!(new["Config"].get("Tty").is_none() && new.get("Created").is_none());
        fill(&mut old, super::super::version::MIN_VERSION);
        assert_eq!(old["Config"]["Tty"], false);
        assert_eq!(old["ContainerConfig"]["Hostname"], "");
        assert_eq!(old["Created"], NEVER);
    }
}
