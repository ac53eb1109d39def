//! The packet filter: takes what leaves, and hands it to the agent.
//!
//! A packet whose route leads to [`link::NAME`] leaves, whoever sends it. Packets of
//! networks that may not leave are dropped by their own table, at a lower priority
//! than [`PRIORITY`].

use super::{link, queue};
use crate::{
    error::Result,
    nftables::{
        BaseChain, Chain, ChainType, Hook, Rule, Table,
        TransportProtocol::{Icmp, Icmpv6, Tcp, Udp},
    },
};

/// The table's name.
const NAME: &str = "dctl-egress";

/// When packets are taken: after connections are tracked, before destinations are
/// changed.
pub(super) const PRIORITY: i32 = -160;

/// Puts the table in place. Connections go to the sockets that listen on `port`.
pub(super) fn replace(port: u16) -> Result<()> {
    let base = |kind, hook, priority| BaseChain {
        kind,
        hook,
        priority,
    };
    let take = |rule: Rule| rule.set_mark(link::MARK);
    let filter = |priority| base(ChainType::Filter, Hook::Prerouting, priority);

    // What is held goes on to the next chain of the hook when it is let go.
    let leaving = Chain::regular("leaving")
        .rule(take(Rule::new().tcp_syn()).queue(queue::NUMBER))
        .rule(take(Rule::new().protocol(Tcp)).accept())
        .rule(take(Rule::new().protocol(Udp).transparent_socket()).accept())
        .rule(take(Rule::new().protocol(Udp)).queue(queue::NUMBER))
        .rule(Rule::new().echo_request(false).queue(queue::NUMBER))
        .rule(Rule::new().echo_request(true).queue(queue::NUMBER))
        .rule(Rule::new().protocol(Icmp).drop())
        .rule(Rule::new().protocol(Icmpv6).drop())
        .rule(Rule::new().prohibit());
    let take_chain = Chain::base("take", filter(PRIORITY))
        // The machine's own, on their detour; then those of containers.
        .rule(Rule::new().input("lo").mark(link::MARK).jump("leaving"))
        .rule(
            Rule::new()
                .input_other_than("lo")
                .route(link::NAME)
                .jump("leaving"),
        );

    let marked = || Rule::new().mark(link::MARK);
    let mut hand_over = Chain::base("hand-over", filter(PRIORITY + 1));
    for ipv6 in [false, true] {
        for protocol in [Tcp, Udp] {
            let rule = marked().family(ipv6).protocol(protocol);
            hand_over = hand_over.rule(rule.transparent_proxy(ipv6, port).accept());
        }
    }
    // No socket has it: nobody knows it any more.
    let hand_over = hand_over.rule(marked().protocol(Udp).drop());

    let own = Chain::base("own", base(ChainType::Route, Hook::Output, -150))
        .rule(take(Rule::new().output(link::NAME)));
    Table::new(NAME)
        .chain(leaving)
        .chain(take_chain)
        .chain(hand_over)
        .chain(own)
        .replace()
}
