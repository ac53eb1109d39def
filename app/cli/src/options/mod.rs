//! Values as a user writes them on the command line, parsed the way Docker's
//! client parses them, with its messages. Pure: what they need from outside
//! (variables, the time) is given to them.

pub(crate) mod detach_keys;
pub(crate) mod environment;
pub(crate) mod filter;
pub(crate) mod resources;
pub(crate) mod timestamp;
