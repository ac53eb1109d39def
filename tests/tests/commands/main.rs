//! The commands a user types, on one machine that all tests share.
//!
//! Tests run side by side; each names its containers itself and removes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod archives;
mod attach;
mod bind_mounts;
mod commit;
mod containers;
mod contexts;
mod contract;
mod copy;
mod egress;
mod exec;
mod flags;
mod image_space;
mod images;
mod lives;
mod machine;
mod machines;
mod networks;
mod packages;
mod ports;
mod registries;
mod run;
mod shared;
mod streams;
mod terminal;
mod usage;
mod user_namespaces;
mod volumes;
