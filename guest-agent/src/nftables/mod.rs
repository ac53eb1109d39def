//! Packet filters: tables of the kernel's `nf_tables`, written over netlink.
//!
//! Lives here: [`Table`] with its [`Chain`]s, [`Set`]s and [`Rule`]s, and what
//! puts a whole table in place, in one transaction ([`Table::replace`]). Who owns a
//! table builds it anew from what it knows, each time; nothing is ever changed in
//! place, so nothing is left behind. It speaks of what the agent's tables need, no more.
//!
//! It must not know what the rules are for, and runs no program.

mod constants;
mod expression;
mod rule;
mod set;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use expression::Verdict;
pub(crate) use rule::{Network, Rule, TransportProtocol};
pub(crate) use set::Set;
pub(crate) use table::{BaseChain, Chain, ChainType, Hook, Table};
