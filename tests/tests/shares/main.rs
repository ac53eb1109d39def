//! Folders of this host in containers, as people use them: what POSIX promises, a
//! database that crashes, git, npm, Vite; and what goes wrong with them. Over both transports,
//! each with a machine of its own that all tests share.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod database;
mod development;
mod machine;
mod posix;
mod reload;
mod trouble;
