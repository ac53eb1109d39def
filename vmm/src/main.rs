//! `dctl-vmm`: the monitor as a program of its own; see [`dctl_vmm::command`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dctl_vmm::command::main(std::env::args_os().skip(1))
}
