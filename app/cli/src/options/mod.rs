//! Values as a user writes them on the command line, parsed the way Docker's
//! client parses them, with its messages. Pure: what they need from outside
//! (variables, the time) is given to them; only the files that options name are
//! read here.

pub(crate) mod detach_keys;
pub(crate) mod devices;
pub(crate) mod duration;
pub(crate) mod environment;
pub(crate) mod filter;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod timestamp;
