//! Packets that leave a container, as the agent reads them, and what it makes of them.

#![no_main]

use guest_protocol::egress::Refusal;
use libfuzzer_sys::fuzz_target;

/// The agent is a program, not a library: its modules are taken as they are.
#[path = "../../guest-agent/src/egress/packet.rs"]
#[allow(dead_code)]
mod packet;

fuzz_target!(|bytes: &[u8]| {
    let Some(packet) = packet::Packet::parse(bytes) else {
        return;
    };
    let (source, destination) = packet.ends();
    let ipv6 = source.is_ipv6();
    assert_eq!(ipv6, destination.is_ipv6());
    assert!(bytes.starts_with(packet.quote()));
    match packet.content {
        packet::Content::Tcp { sequence, .. } => {
            assert_eq!(packet::reset(source, destination, sequence).len(), 20);
        }
        packet::Content::Udp { .. } => {}
        packet::Content::Echo {
            identifier,
            sequence,
            data,
        } => {
            let reply = packet::echo_reply(ipv6, identifier, sequence, data);
            assert_eq!(reply.len(), 8 + data.len());
        }
    }
    let error = packet::unreachable(ipv6, packet.quote(), Refusal::Refused);
    assert!(error.is_some_and(|error| error.ends_with(packet.quote())));
});
