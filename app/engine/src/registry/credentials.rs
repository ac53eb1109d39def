//! Credentials: from a request's `X-Registry-Auth`, or from the user's Docker
//! configuration and its credential helpers.

use std::{path::PathBuf, process::Stdio, time::Duration};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::RegistryError;

/// The key of Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// How long a credential helper may take: it may ask the user to unlock a key ring.
const HELPER_TIMEOUT: Duration = Duration::from_mins(1);
/// The most that is read of a configuration or from a helper, in bytes.
const MAX_CONFIGURATION: u64 = 1024 * 1024;

/// Docker's `AuthConfig`, as clients send it and `config.json` keeps it.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    #[serde(deserialize_with = "text_or_null")]
    username: String,
    #[serde(deserialize_with = "text_or_null")]
    password: String,
    /// `user:password` in base64, instead of the two above.
    #[serde(deserialize_with = "text_or_null")]
    auth: String,
    #[serde(rename = "identitytoken", deserialize_with = "text_or_null")]
    identity_token: String,
    #[serde(rename = "registrytoken", deserialize_with = "text_or_null")]
    registry_token: String,
    /// The registry they are for; only `POST /auth` needs it.
    #[serde(rename = "serveraddress", deserialize_with = "text_or_null")]
    pub(crate) server_address: String,
}

/// Clients that have no value send null, which is none to Docker as well.
fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nothing.
    Anonymous,
    /// User name and password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token (OAuth 2).
    IdentityToken(String),
    /// A token for the registry itself.
    RegistryToken(String),
}

/// Never the secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::IdentityToken(_) => "IdentityToken",
            Self::RegistryToken(_) => "RegistryToken",
        })
    }
}

impl AuthConfig {
    /// Reads an `X-Registry-Auth` header: base64url of JSON.
    ///
    /// # Errors
    /// A message for the client when it is neither.
    pub(crate) fn from_header(header: &str) -> Result<Self, String> {
        let json = decode_base64(header)
            .ok_or("invalid X-Registry-Auth header: it is not base64url".to_owned())?;
        if json.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(&json)
            .map_err(|error| format!("invalid X-Registry-Auth header: {error}"))
    }

    /// What these come to.
    pub(crate) fn credentials(&self) -> Credentials {
        if !self.registry_token.is_empty() {
            return Credentials::RegistryToken(self.registry_token.clone());
        }
        if !self.identity_token.is_empty() {
            return Credentials::IdentityToken(self.identity_token.clone());
        }
        if !self.username.is_empty() {
            return Credentials::Password {
                username: self.username.clone(),
                password: self.password.clone(),
            };
        }
        let decoded = decode_base64(&self.auth).and_then(|auth| String::from_utf8(auth).ok());
        match decoded.as_deref().and_then(|auth| auth.split_once(':')) {
            Some((username, password)) if !username.is_empty() => Credentials::Password {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            },
            _ => Credentials::Anonymous,
        }
    }
}

/// Either alphabet, with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text = text.trim();
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient)
        .decode(text)
        .or_else(|_| GeneralPurpose::new(&base64::alphabet::STANDARD, lenient).decode(text))
        .ok()
}

/// `user:password` as Basic authentication sends it.
pub(super) fn basic(username: &str, password: &str) -> String {
    general_purpose::STANDARD.encode(format!("{username}:{password}"))
}

/// The parts of Docker's `config.json` that concern registries.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfiguration {
    auths: std::collections::HashMap<String, AuthConfig>,
    #[serde(rename = "credsStore")]
    credentials_store: String,
    #[serde(rename = "credHelpers")]
    credential_helpers: std::collections::HashMap<String, String>,
}

impl Credentials {
    /// The user's own for the registry `domain`, from `$DOCKER_CONFIG/config.json`
    /// or `~/.docker/config.json`, or the credential helper that it names.
    ///
    /// # Errors
    /// [`RegistryError::Configuration`] when the file or the helper is broken.
    pub(crate) async fn of_user(domain: &str) -> Result<Self, RegistryError> {
        let Some(path) = configuration_path() else {
            return Ok(Self::Anonymous);
        };
        let broken =
            |reason: String| RegistryError::Configuration(format!("{}: {reason}", path.display()));
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::Anonymous);
            }
            Err(error) => return Err(broken(error.to_string())),
        };
        let mut text = Vec::new();
        file.take(MAX_CONFIGURATION)
            .read_to_end(&mut text)
            .await
            .map_err(|error| broken(error.to_string()))?;
        let configuration: DockerConfiguration =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        configuration.credentials(domain).await
    }
}

impl DockerConfiguration {
    async fn credentials(&self, domain: &str) -> Result<Credentials, RegistryError> {
        let key = configuration_key(domain);
        let helper = self
            .credential_helpers
            .get(key)
            .or_else(|| self.credential_helpers.get(domain))
            .unwrap_or(&self.credentials_store);
        if !helper.is_empty() {
            let found = ask_helper(helper, key).await?;
            if found != Credentials::Anonymous {
                return Ok(found);
            }
        }
        let entry = self.auths.get(key).or_else(|| {
            self.auths
                .iter()
                .find(|(server, _)| host_of(server) == host_of(key))
                .map(|(_, entry)| entry)
        });
        Ok(entry.map_or(Credentials::Anonymous, AuthConfig::credentials))
    }
}

fn configuration_path() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => std::env::home_dir()?.join(".docker"),
    };
    Some(directory.join("config.json"))
}

fn configuration_key(domain: &str) -> &str {
    match domain {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
        domain => domain,
    }
}

/// Keys are host names, but older clients wrote URLs.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Asks `docker-credential-<helper>` for the credentials of `server`, by Docker's
/// credential helper protocol.
async fn ask_helper(helper: &str, server: &str) -> Result<Credentials, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| {
        RegistryError::Configuration(format!("credential helper {program}: {reason}"))
    };
    if helper.contains(['/', '\\']) {
        return Err(failed("its name must not contain a path".to_owned()));
    }
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(server.as_bytes()).await?;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_CONFIGURATION)
                .read_to_end(&mut output)
                .await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = tokio::time::timeout(HELPER_TIMEOUT, exchange)
        .await
        .map_err(|_| failed("it took too long".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let message = String::from_utf8_lossy(&output);
        if message.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        return Err(failed(format!("{status}: {}", message.trim())));
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| failed("its answer is no JSON".to_owned()))?;
    Ok(match answer.username.as_str() {
        "" => Credentials::Anonymous,
        "<token>" => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password {
            username: answer.username,
            password: answer.secret,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password {
            username: username.into(),
            password: password.into(),
        }
    }

    #[test]
    fn a_header_is_read_in_either_alphabet_with_or_without_padding() {
        let json = r#"{"username":"me?>","password":"~~ü"}"#;
        for header in [
            general_purpose::URL_SAFE.encode(json),
            general_purpose::URL_SAFE_NO_PAD.encode(json),
            general_purpose::STANDARD.encode(json),
        ] {
            let auth = AuthConfig::from_header(&header).unwrap();
            assert!(auth.credentials() == password("me?>", "~~ü"));
        }
        let empty = AuthConfig::from_header(&general_purpose::STANDARD.encode("{}")).unwrap();
        assert!(empty.credentials() == Credentials::Anonymous);
        let nulls = r#"{"username":null,"password":null,"identitytoken":null,"auth":null}"#;
        let nulls = AuthConfig::from_header(&general_purpose::URL_SAFE.encode(nulls)).unwrap();
        assert!(nulls.credentials() == Credentials::Anonymous);
        assert!(AuthConfig::from_header("!").is_err());
        assert!(AuthConfig::from_header("AAAA").is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", password("me", "hunter2")).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_configuration_is_searched_by_host() {
        let configuration: DockerConfiguration = serde_json::from_value(serde_json::json!({
            "auths": {
                "https://index.docker.io/v1/": {"auth": basic("hub", "a:b")},
                "https://old.example/v1/": {"auth": basic("old", "c")},
                "localhost:5000": {"identitytoken": "t"},
            },
            "HttpHeaders": {"x": "y"},
        }))
        .unwrap();
        for (domain, expected) in [
            ("docker.io", password("hub", "a:b")),
            ("old.example", password("old", "c")),
            ("localhost:5000", Credentials::IdentityToken("t".into())),
            ("localhost:5001", Credentials::Anonymous),
        ] {
            assert!(
                configuration.credentials(domain).await.unwrap() == expected,
                "{domain}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_helper_is_named() {
        let error = ask_helper("does-not-exist", "x")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("docker-credential-does-not-exist"),
            "{error}"
        );
        assert!(ask_helper("../x", "x").await.is_err());
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in ".{0,100}") {
            let _ = AuthConfig::from_header(&text).map(|auth| auth.credentials());
        }
    }
}
