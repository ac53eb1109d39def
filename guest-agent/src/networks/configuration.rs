//! Networks that are only configuration, and networks that are made of one.
//!
//! The former have no bridge and no containers: they hold what the latter are asked for,
//! and stay for as long as one of those is there.

use guest_protocol::{
    AgentError, ErrorKind,
    docker::{ConfigReference, IpamConfig, NetworkCreateRequest},
};
use serde::{Deserialize, Serialize};

use super::{
    records::{Driver, Record},
    subnets,
};
use crate::{clock, error::Result};

/// What networks are asked for that are made of one that is only configuration, beside
/// its options and labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Template {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
    /// As a user wrote them.
    pub(super) subnets: Vec<IpamConfig>,
}

/// The record of a network that is only configuration.
///
/// # Errors
/// When it is asked for what no configuration can say.
pub(super) fn record(request: NetworkCreateRequest, id: String) -> Result<Record> {
    let on = |flag: Option<bool>| flag == Some(true);
    let scope = request.scope.as_deref().unwrap_or_default();
    if on(request.ingress) || on(request.internal) || on(request.attachable) || !scope.is_empty() {
        return Err(AgentError::forbidden(
            "configuration network can only contain network specific fields. Network operator \
             fields like [ ingress | internal | attachable | scope ] are not supported.",
        ));
    }
    if source(&request).is_some() {
        return Err(AgentError::forbidden(
            "a configuration network cannot depend on another configuration network",
        ));
    }
    let ipam = request.ipam.unwrap_or_default();
    let subnets = ipam.config.unwrap_or_default();
    for subnet in &subnets {
        subnets::chosen(subnet.clone())?;
    }
    Ok(Record {
        id,
        name: request.name,
        created: clock::now(),
        driver: Driver::Null,
        options: request.options.into_iter().flatten().collect(),
        labels: request.labels.into_iter().flatten().collect(),
        ipam_options: ipam.options.unwrap_or_default(),
        template: Some(Template {
            ipv4: request.enable_ipv4 != Some(false),
            ipv6: on(request.enable_ipv6),
            subnets,
        }),
        ..Record::default()
    })
}

/// Completes what is asked of a network by the configuration that it names.
///
/// # Errors
/// When there is none of that name, or more is asked for.
pub(super) fn complete(request: &mut NetworkCreateRequest, others: &[&Record]) -> Result<()> {
    let Some(name) = source(request) else {
        return Ok(());
    };
    let ipam = request.ipam.clone().unwrap_or_default();
    let asks = request.enable_ipv4 == Some(false)
        || request.enable_ipv6 == Some(true)
        || request.labels.iter().any(|labels| !labels.is_empty())
        || ipam.options.is_some_and(|options| !options.is_empty())
        || ipam.config.is_some_and(|config| !config.is_empty());
    if asks {
        return Err(AgentError::forbidden(
            "user specified configurations are not supported if the network depends on a \
             configuration network",
        ));
    }
    if request.options.iter().any(|options| !options.is_empty()) {
        return Err(AgentError::forbidden(
            "network driver options are not supported if the network depends on a configuration \
             network",
        ));
    }
    let found = others.iter().find_map(|other| {
        let template = other.template.as_ref()?;
        (other.name == name).then_some((other, template))
    });
    let (source, template) = found.ok_or_else(|| {
        AgentError::new(
            ErrorKind::NotFound,
            format!("configuration network \"{name}\" does not exist"),
        )
    })?;
    request.enable_ipv4 = Some(template.ipv4);
    request.enable_ipv6 = Some(template.ipv6);
    request.labels = Some(source.labels.clone().into_iter().collect());
    request.options = Some(source.options.clone().into_iter().collect());
    let mut ipam = request.ipam.take().unwrap_or_default();
    ipam.config = Some(template.subnets.clone());
    ipam.options = Some(source.ipam_options.clone());
    request.ipam = Some(ipam);
    Ok(())
}

/// The network that a request takes its configuration from.
pub(super) fn source(request: &NetworkCreateRequest) -> Option<String> {
    let source: Option<&ConfigReference> = request.config_from.as_ref();
    let name = source.and_then(|source| source.network.as_deref());
    name.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Refuses to put a container into a network that is only configuration.
///
/// # Errors
/// When it is.
pub(super) fn check_endpoint(record: &Record) -> Result<()> {
    if record.template.is_some() {
        return Err(AgentError::forbidden(
            "cannot create endpoint on configuration-only network",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::Ipam;

    use super::{super::wanted, *};

    fn template() -> NetworkCreateRequest {
        let subnet = IpamConfig {
            subnet: Some("10.9.0.0/16".to_owned()),
            ..IpamConfig::default()
        };
        NetworkCreateRequest {
            name: "template".to_owned(),
            config_only: Some(true),
            labels: Some([("tier".to_owned(), "front".to_owned())].into()),
            ipam: Some(Ipam {
                config: Some(vec![subnet]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        }
    }

    fn made_of(name: &str) -> NetworkCreateRequest {
        NetworkCreateRequest {
            name: "made".to_owned(),
            config_from: Some(ConfigReference {
                network: Some(name.to_owned()),
            }),
            ..NetworkCreateRequest::default()
        }
    }

    #[test]
    fn a_network_is_made_of_a_configuration() {
        let source = record(template(), "a".repeat(64)).unwrap();
        assert!(check_endpoint(&source).is_err() && source.subnets.is_empty());
        let others = [&source];
        let made = wanted::record(made_of("template"), "b".repeat(64), others.into_iter()).unwrap();
        assert_eq!(made.subnets[0].net.to_string(), "10.9.0.0/16");
        assert_eq!(made.labels["tier"], "front");
        assert_eq!(made.config_from, "template");
        assert!(made.template.is_none() && made.driver == Driver::Bridge);
    }

    #[test]
    fn what_contradicts_is_refused() {
        let source = record(template(), "a".repeat(64)).unwrap();
        let others = [&source];
        let mut named = made_of("nobody");
        assert_eq!(
            complete(&mut named, &others).unwrap_err().kind,
            ErrorKind::NotFound
        );
        let mut more = made_of("template");
        more.options = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(
            complete(&mut more, &others).unwrap_err().kind,
            ErrorKind::Forbidden
        );
        let mut both = template();
        both.config_from = made_of("other").config_from;
        assert!(record(both, "c".repeat(64)).is_err());
        let mut internal = template();
        internal.internal = Some(true);
        assert!(record(internal, "c".repeat(64)).is_err());
    }
}
