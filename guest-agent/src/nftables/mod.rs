//! Packet filters: tables of the kernel's `nf_tables`, written over netlink.
//!
//! Lives here: [`Table`] with its [`Chain`]s, [`Set`]s and [`Rule`]s, and what
//! puts a whole table in place or takes it away, in one transaction
//! ([`Table::replace`], [`remove`]). Who owns a table builds it anew from what it
//! knows, each time; nothing is ever changed in place, so nothing is left behind.
//!
//! It must not know what the rules are for, and runs no program.

mod constants;
mod expression;
mod rule;
mod set;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use expression::{Comparison, Reject, Verdict};
pub(crate) use rule::{Network, Rule, TransportProtocol, connection};
pub(crate) use set::{Key, Set};
pub(crate) use table::{BaseChain, Chain, ChainType, Hook, Table, remove};
