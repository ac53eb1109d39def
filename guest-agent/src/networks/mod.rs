//! Networks of containers.
//!
//! [`namespace`] runs code in a container's network namespace: whoever needs a socket,
//! an interface or a table of rules in there goes through it. No thread of the agent
//! but those that it makes is ever in another namespace than the agent's own.

pub(crate) mod namespace;
