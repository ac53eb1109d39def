//! IP address management: which subnet a new network gets, and which addresses of it
//! its containers have.
//!
//! Nothing here is kept on disk: subnets are in the networks' records, and addresses
//! last as long as a container runs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use guest_protocol::network::{GATEWAY_IPV4, HOST_IPV4, HOST_IPV6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::records::Subnet;

/// Why there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// Docker's words.
    #[error("Address already in use")]
    InUse,
    /// Docker's words.
    #[error("requested address is out of range")]
    OutOfRange,
    /// Every address has somebody.
    #[error("no available addresses on this network's address pools")]
    Exhausted,
}

/// The addresses of a subnet, and which are taken.
#[derive(Debug)]
pub(super) struct Pool {
    subnet: IpNet,
    range: IpNet,
    /// Of nobody's choice: the network's own, the gateway's, auxiliary ones.
    reserved: BTreeSet<IpAddr>,
    taken: BTreeSet<IpAddr>,
}

impl Pool {
    pub(super) fn new(subnet: &Subnet) -> Self {
        let mut reserved = edges(&subnet.net);
        reserved.insert(subnet.gateway);
        reserved.extend(subnet.auxiliary.values());
        Self {
            subnet: subnet.net,
            range: subnet.range.unwrap_or(subnet.net),
            taken: reserved.clone(),
            reserved,
        }
    }

    /// Takes `wanted`, or the lowest address of the range that is free.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(super) fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr, AddressError> {
        let address = match wanted {
            Some(address) if !self.subnet.contains(&address) => {
                return Err(AddressError::OutOfRange);
            }
            Some(address) if self.taken.contains(&address) => return Err(AddressError::InUse),
            Some(address) => address,
            None => lowest_free(&self.range, &self.taken).ok_or(AddressError::Exhausted)?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives an address back.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if !self.reserved.contains(&address) {
            self.taken.remove(&address);
        }
    }
}

/// The gateway that a subnet gets when nobody chose one: its lowest free address.
pub(super) fn default_gateway(
    subnet: &IpNet,
    range: Option<&IpNet>,
    auxiliary: impl Iterator<Item = IpAddr>,
) -> Option<IpAddr> {
    let mut taken = edges(subnet);
    taken.extend(auxiliary);
    lowest_free(range.unwrap_or(subnet), &taken)
}

/// The addresses of a subnet that no host can have.
fn edges(subnet: &IpNet) -> BTreeSet<IpAddr> {
    let mut edges = BTreeSet::new();
    // Subnets of one or two addresses have none (RFC 3021, RFC 6164).
    if subnet.max_prefix_len().saturating_sub(subnet.prefix_len()) > 1 {
        edges.insert(subnet.network());
        if matches!(subnet, IpNet::V4(_)) {
            edges.insert(subnet.broadcast());
        }
    }
    edges
}

fn lowest_free(range: &IpNet, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (first, last) = (range.network(), range.broadcast());
    let mut candidate = number(first);
    for address in taken.range(first..=last) {
        if number(*address) > candidate {
            break;
        }
        candidate = number(*address).checked_add(1)?;
    }
    (candidate <= number(last)).then(|| match first {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(candidate as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(candidate)),
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The default bridge's subnet; Docker's.
pub(super) const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16);

/// What subnets of new networks are cut out of, and how long their prefixes are;
/// Docker's default address pools.
const POOLS: [(Ipv4Net, u8); 2] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20),
];

/// Whether two subnets share an address.
pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Whether no network may have this subnet: loopback, multicast, and the addresses by
/// which containers reach the host.
pub(super) fn is_reserved(subnet: &IpNet) -> bool {
    let host = [
        IpAddr::V4(HOST_IPV4),
        IpAddr::V4(GATEWAY_IPV4),
        IpAddr::V6(HOST_IPV6),
    ];
    let address = subnet.addr();
    host.iter().any(|host| subnet.contains(host))
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
}

/// A subnet for a new network that overlaps with none of `taken`.
pub(super) fn free_subnet(taken: &[IpNet]) -> Option<IpNet> {
    POOLS
        .iter()
        .filter_map(|(pool, length)| pool.subnets(*length).ok())
        .flatten()
        // The first of 172.16.0.0/12 is not Docker's to take.
        .filter(|subnet| subnet.addr() != Ipv4Addr::new(172, 16, 0, 0))
        .map(IpNet::V4)
        .find(|subnet| !is_reserved(subnet) && !taken.iter().any(|other| overlap(subnet, other)))
}

/// An IPv6 subnet for the network `id`: a unique local one (RFC 4193) whose global
/// id is the beginning of the network's, which is random.
pub(super) fn local_subnet(id: &str) -> IpNet {
    let bits = u64::from_str_radix(id.get(..10).unwrap_or_default(), 16).unwrap_or_default();
    let address = (0xfd_u128 << 120) | (u128::from(bits & 0xff_ffff_ffff) << 80);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(address), 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str, range: Option<&str>, gateway: &str) -> Subnet {
        Subnet {
            net: text.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            gateway: gateway.parse().unwrap(),
            auxiliary: BTreeMap::new(),
            chosen: true,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_taken_from_the_lowest_on() {
        let mut one = subnet("10.0.0.0/29", None, "10.0.0.1");
        one.auxiliary.insert("router".into(), ip("10.0.0.3"));
        let mut pool = Pool::new(&one);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take(None).ok()).collect();
        assert_eq!(
            taken,
            ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip)
        );
        assert_eq!(pool.take(None), Err(AddressError::Exhausted));
        pool.give_back(ip("10.0.0.4"));
        // The gateway's stays its own.
        pool.give_back(ip("10.0.0.1"));
        assert_eq!(pool.take(None), Ok(ip("10.0.0.4")));
    }

    #[test]
    fn a_certain_address_is_had_when_it_is_free() {
        let mut pool = Pool::new(&subnet("10.1.0.0/16", Some("10.1.5.0/24"), "10.1.5.254"));
        assert_eq!(pool.take(None), Ok(ip("10.1.5.0")));
        assert_eq!(pool.take(Some(ip("10.1.9.9"))), Ok(ip("10.1.9.9")));
        assert_eq!(pool.take(Some(ip("10.1.9.9"))), Err(AddressError::InUse));
        assert_eq!(pool.take(Some(ip("10.1.5.254"))), Err(AddressError::InUse));
        assert_eq!(
            pool.take(Some(ip("10.1.255.255"))),
            Err(AddressError::InUse)
        );
        assert_eq!(
            pool.take(Some(ip("10.2.0.1"))),
            Err(AddressError::OutOfRange)
        );
        assert_eq!(
            pool.take(Some(ip("fd00::1"))),
            Err(AddressError::OutOfRange)
        );
    }

    #[test]
    fn the_smallest_subnets_have_addresses() {
        let mut pool = Pool::new(&subnet("10.0.0.2/31", None, "10.0.0.2"));
        assert_eq!(pool.take(None), Ok(ip("10.0.0.3")));
        assert_eq!(pool.take(None), Err(AddressError::Exhausted));
        let all: IpNet = "0.0.0.0/0".parse().unwrap();
        assert_eq!(lowest_free(&all, &BTreeSet::new()), Some(ip("0.0.0.0")));
        let last: IpNet = "255.255.255.255/32".parse().unwrap();
        assert_eq!(
            lowest_free(&last, &BTreeSet::from([ip("255.255.255.255")])),
            None
        );
        let last: IpNet = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
            .parse()
            .unwrap();
        assert_eq!(lowest_free(&last, &BTreeSet::from([last.addr()])), None);
    }

    #[test]
    fn gateways_are_the_lowest_host() {
        let gateway =
            |subnet: &str| default_gateway(&subnet.parse().unwrap(), None, [].into_iter());
        assert_eq!(gateway("172.18.0.0/16"), Some(ip("172.18.0.1")));
        assert_eq!(gateway("fd00:1::/64"), Some(ip("fd00:1::1")));
    }

    #[test]
    fn default_pools_run_out_and_never_hold_the_host() {
        let mut taken = vec![IpNet::V4(DEFAULT_SUBNET)];
        while let Some(subnet) = free_subnet(&taken) {
            taken.push(subnet);
        }
        // 172.17 to 172.31, and sixteen of 192.168 but the one with the host.
        assert_eq!(taken.len(), 15 + 15);
        assert_eq!(taken[1].to_string(), "172.18.0.0/16");
        assert_eq!(taken[15].to_string(), "192.168.0.0/20");
        assert!(
            !taken
                .iter()
                .any(|subnet| subnet.contains(&IpAddr::V4(HOST_IPV4)))
        );
    }

    #[test]
    fn a_network_s_local_subnet_is_its_own() {
        let subnet = local_subnet(&"0123456789abcdef".repeat(4));
        assert_eq!(subnet.to_string(), "fd01:2345:6789::/64");
    }

    proptest! {
        /// Whatever is taken and given back, nobody has another's address, and all are
        /// inside.
        #[test]
        fn addresses_are_never_had_twice(
            base in any::<u32>(),
            length in 8_u8..=32,
            steps in proptest::collection::vec(proptest::option::of(any::<u16>()), 1..200),
        ) {
            let net = IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(base), length).unwrap().trunc());
            let gateway = default_gateway(&net, None, [].into_iter()).unwrap();
            let mut pool = Pool::new(&Subnet {
                net, range: None, gateway, auxiliary: BTreeMap::new(), chosen: false,
            });
            let mut had: Vec<IpAddr> = Vec::new();
            for step in steps {
                match step {
                    Some(at) if !had.is_empty() => {
                        let address = had.swap_remove(usize::from(at) % had.len());
                        pool.give_back(address);
                    }
                    _ => if let Ok(address) = pool.take(None) {
                        prop_assert!(net.contains(&address) && address != gateway);
                        prop_assert!(length > 30 || (address != net.network() && address != net.broadcast()));
                        prop_assert!(!had.contains(&address));
                        had.push(address);
                    },
                }
            }
        }
    }
}
