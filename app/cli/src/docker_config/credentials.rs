//! The user's credentials for registries, where Docker keeps them: in
//! `config.json`, or with the credential helper that it names.
//!
//! `login` and `logout` come here; the engine reads the same file by itself.
//!
//! Source: Docker's documentation of `docker login`, "Credential stores".

use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Configuration;
use crate::failure::Failure;

/// The server that is meant when none is named, and its key.
pub(crate) const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// What a helper says when it has nothing.
const NOT_FOUND: &str = "credentials not found";

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) secret: String,
}

/// Where credentials went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// To a helper.
    Helper,
    /// To the file, for whoever can read it.
    File,
}

/// The key of a server: its host, or Docker Hub's old address.
pub(crate) fn key(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

impl Configuration {
    /// The helper that keeps credentials for `key`, if one does.
    fn helper(&self, key: &str) -> Option<&str> {
        let own = self
            .values
            .get("credHelpers")
            .and_then(|helpers| helpers.get(key));
        own.or_else(|| self.values.get("credsStore"))?
            .as_str()
            .filter(|helper| !helper.is_empty())
    }

    /// The credentials for `key`.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Credentials>, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            username: String,
            secret: String,
        }
        if let Some(helper) = self.helper(key) {
            let Some(answer) = ask(helper, "get", key.as_bytes()).await? else {
                return Ok(None);
            };
            let answer: Answer =
                serde_json::from_slice(&answer).map_err(|error| failed(helper, &error))?;
            return Ok(Some(Credentials {
                username: answer.username,
                secret: answer.secret,
            }));
        }
        let entry = self.values.get("auths").and_then(|auths| auths.get(key));
        let decoded = entry
            .and_then(|entry| entry.get("auth")?.as_str())
            .and_then(|auth| STANDARD.decode(auth).ok())
            .and_then(|auth| String::from_utf8(auth).ok());
        Ok(decoded.and_then(|auth| {
            let (username, secret) = auth.split_once(':')?;
            Some(Credentials {
                username: username.to_owned(),
                secret: secret.to_owned(),
            })
        }))
    }

    /// Keeps credentials for `key`.
    pub(crate) async fn store(
        &mut self,
        key: &str,
        credentials: &Credentials,
    ) -> Result<Stored, Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Request<'a> {
            #[serde(rename = "ServerURL")]
            server_url: &'a str,
            username: &'a str,
            secret: &'a str,
        }
        let helper = self.helper(key).map(str::to_owned);
        let entry = if let Some(helper) = &helper {
            let request = Request {
                server_url: key,
                username: &credentials.username,
                secret: &credentials.secret,
            };
            let request = serde_json::to_vec(&request).map_err(Failure::engine)?;
            ask(helper, "store", &request).await?;
            // Docker's client notes for whom there is something.
            json!({})
        } else {
            let auth = format!("{}:{}", credentials.username, credentials.secret);
            json!({"auth": STANDARD.encode(auth)})
        };
        let auths = self.values.entry("auths").or_insert_with(|| json!({}));
        match auths.as_object_mut() {
            Some(auths) => auths.insert(key.to_owned(), entry),
            None => return Err(self.unusable(&"its \"auths\" is no object")),
        };
        self.write()?;
        Ok(if helper.is_some() {
            Stored::Helper
        } else {
            Stored::File
        })
    }

    /// Forgets the credentials for `key`. Tells whether there were any.
    pub(crate) async fn erase(&mut self, key: &str) -> Result<bool, Failure> {
        let known = self
            .values
            .get_mut("auths")
            .and_then(Value::as_object_mut)
            .is_some_and(|auths| auths.remove(key).is_some());
        if let Some(helper) = self.helper(key) {
            let had = ask(helper, "get", key.as_bytes()).await?.is_some();
            if had {
                ask(helper, "erase", key.as_bytes()).await?;
            }
            if known {
                self.write()?;
            }
            return Ok(known || had);
        }
        if known {
            self.write()?;
        }
        Ok(known)
    }
}

/// Calls `docker-credential-<helper>`; `None` when it has no such credentials.
async fn ask(helper: &str, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    if helper.contains(['/', '\\']) {
        return Err(failed(helper, &"its name must not contain a path"));
    }
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(helper, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says in its status why.
        let _ = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(helper, &error))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let message = String::from_utf8_lossy(&output.stdout);
    if message.contains(NOT_FOUND) {
        return Ok(None);
    }
    Err(failed(helper, &message.trim()))
}

fn failed(helper: &str, reason: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!(
        "error using credential helper docker-credential-{helper}: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn servers_are_known_by_their_host() {
        assert_eq!(key("https://registry.example/v2/"), "registry.example");
        assert_eq!(key("localhost:5000"), "localhost:5000");
        for hub in ["", "docker.io", DOCKER_HUB] {
            assert_eq!(key(hub), DOCKER_HUB);
        }
    }

    #[tokio::test]
    async fn other_keys_stay_and_nobody_else_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.json");
        let mut configuration = Configuration::read(path.clone()).unwrap();
        let credentials = Credentials {
            username: "me".into(),
            secret: "a:b".into(),
        };
        let stored = configuration.store("x:1", &credentials).await.unwrap();
        assert_eq!(stored, Stored::File);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        text["HttpHeaders"] = json!({"a": "b"});
        fs::write(&path, text.to_string()).unwrap();
        let mut configuration = Configuration::read(path.clone()).unwrap();
        let found = configuration.get("x:1").await.unwrap();
        assert_eq!(found, Some(credentials));
        assert!(configuration.erase("x:1").await.unwrap());
        assert!(!configuration.erase("x:1").await.unwrap());
        let text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(text, json!({"auths": {}, "HttpHeaders": {"a": "b"}}));
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, r#"{"credHelpers":{"x":"does-not-exist"}}"#).unwrap();
        let configuration = Configuration::read(path).unwrap();
        let error = configuration.get("x").await.unwrap_err();
        assert!(error.message().unwrap().contains("does-not-exist"));
        assert!(configuration.get("y").await.unwrap().is_none());
    }
}
