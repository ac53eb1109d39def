//! `dctl-vmm`: the monitor as a program of its own.

fn main() {}
