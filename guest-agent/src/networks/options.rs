//! Options of the bridge driver: Docker's names for them, which values make sense, and
//! what a network's record says of each.

use std::collections::BTreeMap;

use guest_protocol::AgentError;

use super::records::Record;
use crate::error::Result;

/// The bridge's name in the machine.
pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Whether its containers may talk to each other.
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";

/// The largest packet, in bytes.
pub(super) const MTU: &str = "com.docker.network.driver.mtu";

/// What names of interfaces in containers begin with.
pub(super) const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// Options that are true or false. Masquerading means nothing here, since there is
/// nothing behind the machine's own addresses, but files that people have set it.
const FLAGS: [&str; 2] = [ICC, "com.docker.network.bridge.enable_ip_masquerade"];

/// Names of interfaces have 15 bytes at most (`IFNAMSIZ`).
const LONGEST_INTERFACE: usize = 15;

/// Refuses values that the driver could not use; options that it does not know pass.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    let refuse = |name: &str, value: &str, why: &str| {
        Err(AgentError::invalid(format!(
            "failed to parse {name} value: {value:?} ({why})"
        )))
    };
    for (name, value) in options {
        match name.as_str() {
            flag if FLAGS.contains(&flag) && parse_flag(value).is_none() => {
                return refuse(name, value, "it is neither true nor false");
            }
            // The smallest that IPv4 allows, and the largest of a virtual interface.
            MTU if !value
                .parse()
                .is_ok_and(|mtu: u32| (68..=65535).contains(&mtu)) =>
            {
                return refuse(name, value, "it is not from 68 to 65535");
            }
            BRIDGE_NAME | INTERFACE_PREFIX => {
                let room = if name == BRIDGE_NAME { 0 } else { 3 };
                let valid = (1..=LONGEST_INTERFACE - room).contains(&value.len())
                    && value.bytes().all(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
                    })
                    && !matches!(value.as_str(), "." | ".." | "lo");
                if !valid {
                    return refuse(name, value, "it is no interface's name");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// The bridge's name in the machine.
pub(super) fn bridge(record: &Record) -> String {
    record
        .options
        .get(BRIDGE_NAME)
        .cloned()
        .unwrap_or_else(|| format!("br-{}", record.id.get(..12).unwrap_or_default()))
}

/// Whether containers in it are kept from each other.
pub(super) fn isolates_containers(record: &Record) -> bool {
    let icc = record.options.get(ICC).map(String::as_str);
    icc.and_then(parse_flag) == Some(false)
}

/// The largest packet, in bytes, if the kernel's default is not to be it.
pub(super) fn mtu(record: &Record) -> Option<u32> {
    record.options.get(MTU)?.parse().ok()
}

/// What the names of its interfaces in containers begin with.
pub(super) fn interface_prefix(record: &Record) -> &str {
    record
        .options
        .get(INTERFACE_PREFIX)
        .map_or("eth", String::as_str)
}
