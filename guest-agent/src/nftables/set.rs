//! Sets and verdict maps.

use std::net::IpAddr;

use super::{
    constants::set,
    expression::{INTERFACE_NAME, Verdict},
    rule::{Network, mask, padded},
};
use crate::netlink::Message;

/// What a set is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Names of interfaces.
    Interface,
    /// Networks of IPv4.
    Ipv4,
    /// Networks of IPv6.
    Ipv6,
}

impl Key {
    /// The number by which `nft` shows what it is; the kernel does not look at it.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Interface => 41,
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
            Self::Interface => INTERFACE_NAME,
        }
    }
}

#[derive(Debug, Clone)]
struct Element {
    key: Vec<u8>,
    interval_end: bool,
    verdict: Option<Verdict>,
}

/// A set of networks, or a map from interfaces to verdicts.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    name: String,
    key: Key,
    elements: Vec<Element>,
}

/// How `nft` is told that the keys are in the machine's byte order, as names are; it
/// would show them backwards. The kernel does not look at it.
const HOST_BYTE_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];

/// How many elements a message has at most: it must hold them in 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 256;

impl Set {
    /// Interfaces, and a verdict for each.
    pub(crate) fn interface_verdicts<'a>(
        name: &str,
        verdicts: impl IntoIterator<Item = (&'a str, Verdict)>,
    ) -> Self {
        let elements = verdicts.into_iter().map(|(interface, verdict)| Element {
            key: padded(interface).to_vec(),
            interval_end: false,
            verdict: Some(verdict),
        });
        Self {
            name: name.into(),
            key: Key::Interface,
            elements: elements.collect(),
        }
    }

    /// Networks: of what is given, those of the family. They may overlap.
    pub(crate) fn networks(name: &str, ipv6: bool, networks: &[Network]) -> Self {
        let mut ranges: Vec<(u128, u128)> = networks
            .iter()
            .filter(|network| network.address.is_ipv6() == ipv6)
            .map(|network| range(*network))
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                // One ends where or before the next begins.
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        let key = if ipv6 { Key::Ipv6 } else { Key::Ipv4 };
        let highest = if ipv6 {
            u128::MAX
        } else {
            u128::from(u32::MAX)
        };
        let mut elements = Vec::new();
        for (first, last) in joined {
            elements.push(Element::boundary(key, first, false));
            // A range that reaches the highest address has no end.
            if last < highest {
                elements.push(Element::boundary(key, last + 1, true));
            }
        }
        Self {
            name: name.into(),
            key,
            elements,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds what makes it, without its elements.
    pub(super) fn encode(&self, table: &str, id: u32, message: &mut Message) {
        // Interfaces have verdicts; networks are intervals of addresses.
        let map = self.key == Key::Interface;
        let flags = if map {
            set::FLAG_MAP
        } else {
            set::FLAG_INTERVAL
        };
        message.text(set::TABLE, table).text(set::NAME, &self.name);
        message.big(set::FLAGS, flags);
        message.big(set::KEY_TYPE, self.key.number());
        message.big(set::KEY_LENGTH, self.key.length() as u32);
        if map {
            message.big(set::DATA_TYPE, set::DATA_IS_VERDICT);
            message.big(set::DATA_LENGTH, 0);
        }
        message.big(set::ID, id);
        if map {
            message.bytes(set::USER_DATA, &HOST_BYTE_ORDER);
        }
    }

    /// What adds its elements: the contents of so many messages.
    pub(super) fn elements(&self) -> impl Iterator<Item = impl Fn(&str, &mut Message) + '_> + '_ {
        self.elements
            .chunks(ELEMENTS_PER_MESSAGE)
            .map(move |elements| {
                move |table: &str, message: &mut Message| {
                    message.text(set::ELEMENTS_TABLE, table);
                    message.text(set::ELEMENTS_SET, &self.name);
                    message.nest(set::ELEMENTS, |message| {
                        for element in elements {
                            element.encode(message);
                        }
                    });
                }
            })
    }
}

impl Element {
    fn boundary(key: Key, address: u128, interval_end: bool) -> Self {
        let bytes = address.to_be_bytes();
        Self {
            key: bytes.get(16 - key.length()..).unwrap_or_default().to_vec(),
            interval_end,
            verdict: None,
        }
    }

    fn encode(&self, message: &mut Message) {
        message.nest(super::constants::rule::LIST_ELEMENT, |message| {
            message.nest(set::ELEMENT_KEY, |message| {
                message.bytes(super::constants::data::VALUE, &self.key);
            });
            if let Some(verdict) = &self.verdict {
                message.nest(set::ELEMENT_DATA, |message| verdict.encode(message));
            }
            if self.interval_end {
                message.big(set::ELEMENT_FLAGS, set::ELEMENT_INTERVAL_END);
            }
        });
    }
}

/// The first and the last address of a network.
fn range(network: Network) -> (u128, u128) {
    let (address, all, length) = match network.address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), u128::from(u32::MAX), 4),
        IpAddr::V6(address) => (u128::from(address), u128::MAX, 16),
    };
    let mask = mask(length, network.prefix)
        .iter()
        .fold(0, |mask, byte| mask << 8 | u128::from(*byte));
    (address & mask, address & mask | !mask & all)
}
