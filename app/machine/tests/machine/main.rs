//! Machines for real: processes, sockets, QEMU and the embedded guest.
//!
//! The drivers start monitors by running this program with `vmm` or `qemu`, so it
//! answers to both as dctl does (and to `doctor`), and is a test runner otherwise.
//! Needs qemu-system-x86_64 and the guest (`cargo xtask build`). Boots are on the
//! driver that this host gets; `DCTL_DRIVER` forces one.

#![allow(
    clippy::unwrap_used,
    reason = "how a test fails; this runner has no #[test] that says so"
)]

mod boots;
mod failures;
mod home;
mod supervisor;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next() {
        Some(subcommand) if subcommand == "vmm" => return dctl_vmm::command::main(arguments),
        Some(subcommand) if subcommand == "doctor" => return failures::print_report(),
        Some(subcommand) if subcommand == "qemu" => {
            return dctl_machine::qemu_supervisor(arguments);
        }
        _ => {}
    }
    let trials = [boots::trials(), failures::trials(), supervisor::trials()];
    let mut arguments = Arguments::from_args();
    // Each boots a machine that keeps two CPUs busy; more at once only take longer.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A test that is an async function of a fresh home.
fn trial<F>(name: &str, test: fn(home::Home) -> F) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    let name_of_home = name.replace("::", "-");
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(test(home::Home::new(&name_of_home)));
        Ok(())
    })
}
