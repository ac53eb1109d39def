//! Against this machine's kernel, each test in a network namespace of its own; `nft`
//! reads back what was written.

use std::{process::Command, thread};

use proptest::prelude::*;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{set::Set, *};

/// Runs a test in a network namespace that goes with it.
fn in_namespace(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let test = scope.spawn(|| {
            // SAFETY: the thread shares no files with another that could be surprised.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests need root");
            test();
        });
        if let Err(panic) = test.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The rules of the calling thread's network namespace, without indentation.
fn ruleset() -> Vec<String> {
    let output = Command::new("nft")
        .args(["--numeric", "--stateless", "list", "ruleset"])
        .output()
        .expect("nft is installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && line != "}")
        .collect()
}

fn filter(hook: Hook) -> BaseChain {
    BaseChain {
        kind: ChainType::Filter,
        hook,
        priority: -150,
    }
}

/// What `nft` shows of the only rule of a table.
fn shown(hook: Hook, rule: Rule) -> String {
    let table = Table::new("test")
        .set(Set::networks("ours", false, &[]))
        .chain(Chain::regular("other"))
        .chain(Chain::base("c", filter(hook)).rule(rule));
    table.replace().unwrap();
    ruleset().pop().unwrap()
}

#[test]
fn conditions_and_verdicts_are_as_nft_reads_them() {
    let network = |address: &str, prefix| Network {
        address: address.parse().unwrap(),
        prefix,
    };
    let cases = [
        (
            Rule::new().input("docker0").accept(),
            r#"iifname "docker0" accept"#,
        ),
        (
            Rule::new().input_other_than("lo").drop(),
            r#"iifname != "lo" drop"#,
        ),
        (Rule::new().jump("other"), "jump other"),
        (Rule::new().verdict(Verdict::Return), "return"),
        (
            Rule::new().route("eth0").accept(),
            r#"fib daddr oifname "eth0" accept"#,
        ),
        (
            Rule::new()
                .destination("10.0.0.1".parse::<std::net::IpAddr>().unwrap())
                .accept(),
            "ip daddr 10.0.0.1 accept",
        ),
        (
            Rule::new().destination(network("172.17.0.5", 16)).accept(),
            "ip daddr 172.17.0.0/16 accept",
        ),
        (
            Rule::new().destination(network("fd00::", 9)).accept(),
            "ip6 daddr fd00::/9 accept",
        ),
        (
            Rule::new().destination_in("ours", false).accept(),
            "ip daddr @ours accept",
        ),
        (
            Rule::new()
                .destination_port(TransportProtocol::Udp, 53)
                .accept(),
            "udp dport 53 accept",
        ),
        (
            Rule::new().tcp_syn().drop(),
            "tcp flags 0x2 / 0x2,0x10 drop",
        ),
        (Rule::new().echo_request(false).drop(), "icmp type 8 drop"),
        (
            Rule::new().echo_request(true).drop(),
            "icmpv6 type 128 drop",
        ),
        (
            Rule::new().mark(0x64).set_mark(7),
            "meta mark 0x00000064 meta mark set 0x00000007",
        ),
        (
            Rule::new().transparent_socket().set_mark(1).accept(),
            "socket transparent 1 meta mark set 0x00000001 accept",
        ),
        (
            Rule::new()
                .family(false)
                .protocol(TransportProtocol::Tcp)
                .transparent_proxy(false, 9000),
            "meta nfproto 2 meta l4proto 6 tproxy ip to :9000",
        ),
        (
            Rule::new()
                .family(true)
                .protocol(TransportProtocol::Udp)
                .transparent_proxy(true, 9000),
            "meta nfproto 10 meta l4proto 17 tproxy ip6 to :9000",
        ),
        (Rule::new().queue(5), "queue num 5"),
        (Rule::new().prohibit(), "reject with icmpx 3"),
    ];
    in_namespace(|| {
        for (rule, expected) in cases {
            assert_eq!(shown(Hook::Prerouting, rule), expected);
        }
        let output = Rule::new().output("eth0").accept();
        assert_eq!(shown(Hook::Output, output), r#"oifname "eth0" accept"#);
    });
}

#[test]
fn destinations_are_changed() {
    let nat = |rule| {
        let base = BaseChain {
            kind: ChainType::Nat,
            hook: Hook::Output,
            priority: -100,
        };
        let table = Table::new("test").chain(Chain::base("c", base).rule(rule));
        table.replace().unwrap();
        ruleset().pop().unwrap()
    };
    let address = |text: &str| text.parse().unwrap();
    in_namespace(|| {
        let tcp = |ipv6| Rule::new().family(ipv6).protocol(TransportProtocol::Tcp);
        assert_eq!(
            nat(tcp(false).destination_nat(address("172.17.0.2"), 80)),
            "meta nfproto 2 meta l4proto 6 dnat ip to 172.17.0.2:80"
        );
        assert_eq!(
            nat(tcp(true).destination_nat(address("fd00::2"), 80)),
            "meta nfproto 10 meta l4proto 6 dnat ip6 to [fd00::2]:80"
        );
    });
}

#[test]
fn a_table_is_replaced_whole() {
    in_namespace(|| {
        let table = |verdicts: Vec<(&'static str, Verdict)>| {
            Table::new("test")
                .set(Set::interface_verdicts("by-input", verdicts))
                .chain(Chain::regular("isolate").rule(Rule::new().drop()))
                .chain(
                    Chain::base("incoming", filter(Hook::Prerouting))
                        .rule(Rule::new().verdict_by_input("by-input")),
                )
        };
        table(vec![
            ("br-1", Verdict::Jump("isolate".into())),
            ("br-2", Verdict::Accept),
        ])
        .replace()
        .unwrap();
        let first = ruleset();
        assert!(
            first
                .iter()
                .any(|line| line.contains("hook prerouting priority -150; policy accept;")),
            "{first:?}"
        );
        assert!(
            first.contains(&"iifname vmap @by-input".to_owned()),
            "{first:?}"
        );
        assert!(
            first.iter().any(|line| line.contains(r#""br-2" : accept"#)),
            "{first:?}"
        );
        assert!(
            first
                .iter()
                .any(|line| line.contains(r#""br-1" : jump isolate"#)),
            "{first:?}"
        );

        table(vec![("br-3", Verdict::Drop)]).replace().unwrap();
        let second = ruleset();
        assert!(
            second.iter().any(|line| line.contains(r#""br-3" : drop"#)),
            "{second:?}"
        );
        assert!(
            !second.iter().any(|line| line.contains("br-1")),
            "{second:?}"
        );
    });
}

#[test]
fn a_refused_table_leaves_the_old_one_and_says_why() {
    in_namespace(|| {
        let good = Table::new("test").chain(Chain::base("c", filter(Hook::Prerouting)));
        good.replace().unwrap();
        let before = ruleset();
        let bad = Table::new("test")
            .chain(Chain::base("c", filter(Hook::Prerouting)).rule(Rule::new().jump("missing")));
        let error = bad.replace().unwrap_err();
        assert!(
            error
                .message
                .starts_with("cannot set up the packet filter `test`: rule 1 of chain `c`: "),
            "{}",
            error.message
        );
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn sets_hold_thousands_of_elements_and_overlapping_networks() {
    in_namespace(|| {
        let names: Vec<String> = (0..3000).map(|index| format!("veth{index}")).collect();
        let verdicts = names.iter().map(|name| (name.as_str(), Verdict::Accept));
        let network = |address: &str, prefix| Network {
            address: address.parse().unwrap(),
            prefix,
        };
        let networks = [
            network("10.0.0.0", 8),
            network("10.1.0.0", 16),
            network("224.0.0.0", 3),
            network("fd00::", 8),
        ];
        Table::new("test")
            .set(Set::interface_verdicts("names", verdicts))
            .set(Set::networks("four", false, &networks))
            .set(Set::networks("six", true, &networks))
            .replace()
            .unwrap();
        let shown = ruleset().join(" ");
        assert!(shown.contains("10.0.0.0/8, 224.0.0.0/3"), "{shown}");
        assert!(shown.contains("fd00::/8"));
        assert_eq!(shown.matches("\"veth").count(), names.len());
    });
}

proptest! {
    #[test]
    fn a_mask_has_as_many_bits_as_the_prefix(prefix in 0_u8..=128) {
        let mask = rule::mask(16, prefix);
        let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        prop_assert_eq!(ones, u32::from(prefix));
        // All ones come before all zeroes.
        let bits = u128::from_be_bytes(mask.try_into().unwrap());
        prop_assert_eq!(bits.leading_ones(), u32::from(prefix));
    }
}
