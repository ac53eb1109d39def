//! How a client shows who it is: Basic, or a token from where the registry says.

use std::sync::PoisonError;

use reqwest::{
    StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{Client, MAX_MESSAGE, error_text};
use crate::registry::{
    Credentials, RegistryError, challenge::Challenge, credentials::basic, error::innermost,
};

impl Client {
    /// Answers a 401: afterwards requests carry what was asked for.
    pub(super) async fn authenticate(
        &self,
        response: reqwest::Response,
    ) -> Result<(), RegistryError> {
        let challenge = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let host = self.host().to_owned();
        let value = match (challenge, &self.shared.credentials) {
            (Some(_), Credentials::RegistryToken(token)) => format!("Bearer {token}"),
            (Some(Challenge::Basic), Credentials::Password { username, password }) => {
                format!("Basic {}", basic(username, password))
            }
            (Some(Challenge::Basic), _) => return Err(RegistryError::NoCredentials(host)),
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                _,
            ) => {
                let token = self
                    .token(&realm, service.as_deref(), scope.as_deref())
                    .await?;
                format!("Bearer {token}")
            }
            (None, _) => {
                return Err(RegistryError::Unauthorized {
                    host,
                    reason: "it names no way to authenticate that is supported (Basic, Bearer)"
                        .to_owned(),
                });
            }
        };
        *self
            .shared
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(secret(&value)?);
        Ok(())
    }

    /// Fetches a token, by the distribution specification's token protocol or,
    /// with an identity token, its OAuth 2 variant.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let unsupported =
            |reason: String| RegistryError::Unsupported(format!("token server {realm}: {reason}"));
        let mut url = Url::parse(realm).map_err(|error| unsupported(error.to_string()))?;
        let local = self.shared.base.scheme() == "http";
        if !(url.scheme() == "https" || (local && url.scheme() == "http")) {
            return Err(unsupported("it is not reached by https".to_owned()));
        }
        let default_scope = format!("repository:{}:pull", self.shared.reference.path());
        let mut scopes = vec![scope.unwrap_or(&default_scope)];
        for scope in &self.shared.scopes {
            if !scopes.contains(&scope.as_str()) {
                scopes.push(scope);
            }
        }
        let joined = scopes.join(" ");
        let mut parameters: Vec<_> = service
            .map(|service| ("service", service))
            .into_iter()
            .collect();
        let request = if let Credentials::IdentityToken(token) = &self.shared.credentials {
            parameters.extend([
                ("scope", joined.as_str()),
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", "dctl"),
            ]);
            let body = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(parameters)
                .finish();
            self.shared
                .http
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body)
        } else {
            parameters.extend(scopes.into_iter().map(|scope| ("scope", scope)));
            url.query_pairs_mut().extend_pairs(parameters);
            let request = self.shared.http.get(url.clone());
            match &self.shared.credentials {
                Credentials::Password { username, password } => {
                    let value = secret(&format!("Basic {}", basic(username, password)))?;
                    request.header(AUTHORIZATION, value)
                }
                _ => request,
            }
        };
        let host = url.host_str().unwrap_or(realm).to_owned();
        let response = request
            .send()
            .await
            .map_err(|error| RegistryError::Unreachable {
                host: host.clone(),
                reason: innermost(&error),
            })?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let reason = error_text(response).await.1;
            return Err(match self.shared.credentials {
                Credentials::Anonymous => RegistryError::NoCredentials(self.host().to_owned()),
                _ => RegistryError::Unauthorized { host, reason },
            });
        }
        if !status.is_success() {
            return Err(RegistryError::Status {
                host,
                status: status.as_u16(),
                what: "the request for a token".to_owned(),
                reason: error_text(response).await.1,
            });
        }
        let bytes = self.read(response, MAX_MESSAGE, "token").await?;
        let answer: Token = serde_json::from_slice(&bytes)
            .map_err(|_| unsupported("its answer holds no token".to_owned()))?;
        [answer.token, answer.access_token]
            .into_iter()
            .find(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| unsupported("its answer holds no token".to_owned()))
    }
}

/// A header's value that no log shows.
fn secret(text: &str) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        RegistryError::Configuration("the credentials hold control characters".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_is_not_printed() {
        let value = secret("Bearer t0k3n").unwrap();
        assert!(!format!("{value:?}").contains("t0k3n"));
        assert!(secret("Bearer \n").is_err());
    }
}
