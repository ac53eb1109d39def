//! Which range, gateway and auxiliary address belongs to which subnet, as Docker's
//! client finds it out.

use std::net::IpAddr;

use bollard_stubs::models::IpamConfig;
use ipnet::IpNet;

/// What the options say.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    pub(super) subnets: &'a [String],
    pub(super) ranges: &'a [String],
    pub(super) gateways: &'a [String],
    pub(super) auxiliary: &'a [(String, String)],
}

/// One configuration for each subnet.
///
/// # Errors
/// In Docker's words.
pub(super) fn configs(wishes: &Wishes<'_>) -> Result<Vec<IpamConfig>, String> {
    let mut nets: Vec<IpNet> = Vec::new();
    for text in wishes.subnets {
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("invalid CIDR address: {text}"))?;
        if nets
            .iter()
            .any(|other| other.contains(&net) || net.contains(other))
        {
            return Err("multiple overlapping subnet configuration is not supported".to_owned());
        }
        nets.push(net);
    }
    let mut configs: Vec<IpamConfig> = wishes
        .subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: Some(subnet.clone()),
            ..IpamConfig::default()
        })
        .collect();
    let at = |address: IpAddr| nets.iter().position(|net| net.contains(&address));
    for range in wishes.ranges {
        let net: IpNet = range
            .parse()
            .map_err(|_| format!("invalid CIDR address: {range}"))?;
        let config = at(net.addr())
            .and_then(|at| configs.get_mut(at))
            .ok_or_else(|| format!("no matching subnet for range {range}"))?;
        if let Some(other) = config.ip_range.replace(range.clone()) {
            let subnet = config.subnet.clone().unwrap_or_default();
            return Err(format!(
                "cannot configure multiple ranges ({range}, {other}) on the same subnet ({subnet})"
            ));
        }
    }
    let address = |text: &str| -> Result<IpAddr, String> {
        text.parse()
            .map_err(|_| format!("invalid IP address: {text}"))
    };
    for gateway in wishes.gateways {
        let config = at(address(gateway)?)
            .and_then(|at| configs.get_mut(at))
            .ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
        if let Some(other) = config.gateway.replace(gateway.clone()) {
            let subnet = config.subnet.clone().unwrap_or_default();
            return Err(format!(
                "cannot configure multiple gateways ({gateway}, {other}) for the same subnet \
                 ({subnet})"
            ));
        }
    }
    for (name, text) in wishes.auxiliary {
        let config = at(address(text)?)
            .and_then(|at| configs.get_mut(at))
            .ok_or_else(|| format!("no matching subnet for aux-address {text}"))?;
        config
            .auxiliary_addresses
            .get_or_insert_default()
            .insert(name.clone(), text.clone());
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        subnets: &[&str],
        ranges: &[&str],
        gateways: &[&str],
        auxiliary: &[(&str, &str)],
    ) -> Result<Vec<IpamConfig>, String> {
        let own = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        configs(&Wishes {
            subnets: &own(subnets),
            ranges: &own(ranges),
            gateways: &own(gateways),
            auxiliary: &auxiliary.iter().map(pair).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn everything_finds_its_subnet() {
        let found = found(
            &["10.0.0.0/16", "fd00::/64"],
            &["10.0.5.0/24"],
            &["fd00::9", "10.0.5.254"],
            &[("router", "10.0.0.7")],
        )
        .unwrap();
        assert_eq!(found[0].ip_range.as_deref(), Some("10.0.5.0/24"));
        assert_eq!(found[0].gateway.as_deref(), Some("10.0.5.254"));
        assert_eq!(
            found[0].auxiliary_addresses.clone().unwrap()["router"],
            "10.0.0.7"
        );
        assert_eq!(found[1].gateway.as_deref(), Some("fd00::9"));
    }

    #[test]
    fn what_has_no_subnet_or_is_said_twice_is_refused() {
        for (result, message) in [
            (found(&["x"], &[], &[], &[]), "invalid CIDR address: x"),
            (
                found(&["10.0.0.0/8", "10.1.0.0/16"], &[], &[], &[]),
                "multiple overlapping",
            ),
            (
                found(&[], &["10.0.0.0/24"], &[], &[]),
                "no matching subnet for range",
            ),
            (
                found(&[], &[], &["10.0.0.1"], &[]),
                "no matching subnet for gateway",
            ),
            (
                found(&[], &[], &[], &[("a", "10.0.0.1")]),
                "no matching subnet for aux-address",
            ),
            (
                found(&["10.0.0.0/8"], &[], &["10.0.0.1", "10.0.0.2"], &[]),
                "multiple gateways",
            ),
            (
                found(&["10.0.0.0/8"], &["10.0.0.0/24", "10.0.1.0/24"], &[], &[]),
                "multiple ranges",
            ),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
