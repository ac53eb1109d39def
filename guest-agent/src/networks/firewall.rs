//! What keeps networks apart: the table `dctl` of the machine's packet filter.
//!
//! It is made anew from what networks there are, whole and in one transaction, each
//! time that changes: nothing is left over, whatever happened before.
//!
//! It decides before connections are tracked and before anything takes packets out of
//! the machine, so that what may not leave a network never gets there.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    Live, options,
    records::{Driver, Record},
};
use crate::{
    error::Result,
    nftables::{BaseChain, Chain, ChainType, Hook, Network, Rule, Set, Table, Verdict},
};

/// The table's name.
const TABLE: &str = "dctl";

/// Before the tracking of connections (`raw`).
const PRIORITY: i32 = -300;

/// Chains of networks, by the bridges that packets come from.
const BRIDGES: &str = "bridges";

/// Subnets of all networks.
const SUBNETS: [(&str, bool); 2] = [("subnets4", false), ("subnets6", true)];

/// What interfaces that have IPv6 say to each other, whoever they are.
const LINK_LOCAL: [Network; 2] = [
    Network {
        address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
        prefix: 10,
    },
    Network {
        address: IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)),
        prefix: 16,
    },
];

/// Puts the table in place.
///
/// # Errors
/// When the kernel refuses; then it is as before.
pub(super) fn replace<'a>(networks: impl Iterator<Item = &'a Live>) -> Result<()> {
    table(networks.map(|network| &network.record)).replace()
}

fn table<'a>(records: impl Iterator<Item = &'a Record>) -> Table {
    let bridges: Vec<(String, &Record)> = records
        .filter(|record| record.driver == Driver::Bridge)
        .map(|record| (options::bridge(record), record))
        .collect();
    let subnets: Vec<Network> = bridges
        .iter()
        .flat_map(|(_, record)| &record.subnets)
        .map(|subnet| network(&subnet.net))
        .collect();
    let mut table = Table::new(TABLE);
    for (name, ipv6) in SUBNETS {
        table = table.set(Set::networks(name, ipv6, &subnets));
    }
    for (bridge, record) in &bridges {
        table = table.chain(from_bridge(bridge, record));
    }
    let verdicts: Vec<(&str, Verdict)> = bridges
        .iter()
        .map(|(bridge, _)| (bridge.as_str(), Verdict::Jump(chain_name(bridge))))
        .collect();
    let prerouting = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Prerouting,
        priority: PRIORITY,
    };
    table
        .set(Set::interface_verdicts(BRIDGES, verdicts))
        .chain(Chain::base("prerouting", prerouting).rule(Rule::new().verdict_by_input(BRIDGES)))
}

/// What comes from a network: to itself it may go; elsewhere not at all, or anywhere
/// but to other networks.
fn from_bridge(bridge: &str, record: &Record) -> Chain {
    let own = record
        .subnets
        .iter()
        .map(|subnet| network(&subnet.net))
        .chain(LINK_LOCAL)
        .map(|network| Rule::new().destination(network).verdict(Verdict::Return));
    let chain = Chain::regular(&chain_name(bridge)).rules(own);
    if record.internal {
        return chain.rule(Rule::new().verdict(Verdict::Drop));
    }
    chain.rules(SUBNETS.map(|(name, ipv6)| {
        Rule::new()
            .destination_in(name, ipv6)
            .verdict(Verdict::Drop)
    }))
}

fn chain_name(bridge: &str) -> String {
    format!("from-{bridge}")
}

fn network(subnet: &IpNet) -> Network {
    Network {
        address: subnet.addr(),
        prefix: subnet.prefix_len(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        time::Duration,
    };

    use super::*;
    use crate::networks::{
        links::{End, Links},
        namespace::{Namespace, tests::new_namespace},
        records::Subnet,
    };

    fn record(name: &str, subnet: &str, internal: bool) -> Record {
        let subnet: IpNet = subnet.parse().unwrap();
        Record {
            id: name.repeat(16),
            name: name.into(),
            subnets: vec![Subnet {
                net: subnet,
                range: None,
                gateway: subnet.hosts().next().unwrap(),
                auxiliary: [].into(),
                chosen: true,
            }],
            internal,
            ..Record::default()
        }
    }

    /// A host at the second address of a network, and the address.
    fn host(machine: &Namespace, record: &Record) -> (Namespace, IpAddr) {
        let inside = new_namespace();
        let (bridge, subnet) = (options::bridge(record), &record.subnets[0]);
        let address = subnet.net.hosts().nth(1).unwrap();
        let near = format!("v{}", record.name);
        machine
            .run(|| -> io::Result<()> {
                let mut links = Links::open()?;
                let far = End {
                    name: "eth0",
                    namespace: inside.as_fd(),
                    mac_address: [2, 0, 0, 0, 0, record.name.as_bytes()[0]],
                };
                links.add_pair(&near, &far, None)?;
                links.join_bridge(&near, &bridge, false)?;
                links.bring_up(&near)
            })
            .unwrap()
            .unwrap();
        inside
            .run(|| -> io::Result<()> {
                let mut links = Links::open()?;
                let length = subnet.net.prefix_len();
                links.add_address("eth0", IpNet::new(address, length).unwrap())?;
                links.bring_up("eth0")?;
                links.set_default_route(subnet.gateway, "eth0")
            })
            .unwrap()
            .unwrap();
        (inside, address)
    }

    #[test]
    fn networks_are_kept_apart_and_internal_ones_to_themselves() {
        let machine = new_namespace();
        let records = [
            record("abcd", "10.1.0.0/16", false),
            record("efgh", "10.2.0.0/16", false),
            record("ijkl", "10.3.0.0/16", true),
        ];
        machine
            .run(|| {
                super::super::forward_packets().unwrap();
                for record in &records {
                    super::super::make_bridge(record).unwrap();
                }
                // An address that is in no network.
                let outside = "10.9.0.1/32".parse().unwrap();
                let mut links = Links::open().unwrap();
                links.add_address("lo", outside).unwrap();
            })
            .unwrap();
        let [one, other, internal] = records.each_ref().map(|record| host(&machine, record));
        let listen = |namespace: &Namespace| {
            namespace
                .run(|| TcpListener::bind("0.0.0.0:80"))
                .unwrap()
                .unwrap()
        };
        let _listeners = [&machine, &one.0, &other.0, &internal.0].map(listen);
        let connects = |from: &Namespace, to: IpAddr, within: Duration| {
            from.run(|| TcpStream::connect_timeout(&(to, 80).into(), within).is_ok())
                .unwrap()
        };
        // A bridge loses what comes before it knows its ports: TCP sends it again.
        let reaches = |from: &Namespace, to: IpAddr| connects(from, to, Duration::from_secs(20));
        let outside: IpAddr = "10.9.0.1".parse().unwrap();
        // Without the table the machine forwards everything.
        assert!(reaches(&one.0, other.1) && reaches(&internal.0, outside));
        machine
            .run(|| table(records.iter()).replace())
            .unwrap()
            .unwrap();
        for (from, to, reached) in [
            (&one.0, other.1, false),
            (&other.0, one.1, false),
            (&one.0, internal.1, false),
            (&internal.0, one.1, false),
            (&internal.0, outside, false),
            // The other network's gateway is the other network's.
            (&one.0, records[1].subnets[0].gateway, false),
            (&one.0, outside, true),
            (&one.0, records[0].subnets[0].gateway, true),
            (&internal.0, records[2].subnets[0].gateway, true),
        ] {
            let within = Duration::from_millis(if reached { 20_000 } else { 300 });
            assert_eq!(connects(from, to, within), reached, "{to}");
        }
    }
}
