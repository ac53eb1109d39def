//! The monitor's command line, for `dctl-vmm` and for `dctl`'s hidden subcommand
//! `vmm`.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::exit::Reason;
use crate::{monitor, probe};

const USAGE: &str = "usage: --config FILE   run the virtual machine that FILE describes
       --probe         tell, as JSON, whether this host's KVM is usable";

/// Runs the command that `arguments` (without the program's name) give.
///
/// `--config FILE` ends when the virtual machine does, with a line on standard
/// error and the exit code of [`Reason`]. `--probe` writes a
/// [`probe::Verdict`] to standard output.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match arguments.as_slice() {
        [option, file] if option == "--config" => run(Path::new(file)),
        [option] if option == "--probe" => print_probe(),
        _ => {
            eprintln!("{USAGE}");
            Reason::BadConfiguration.into()
        }
    }
}

fn run(file: &Path) -> ExitCode {
    let outcome = monitor::run_file(file);
    // The line may go to a pipe that nobody reads any more.
    let _ = writeln!(std::io::stderr(), "{outcome}");
    outcome.reason.into()
}

fn print_probe() -> ExitCode {
    let verdict = probe::probe();
    let written = serde_json::to_string(&verdict)
        .map_err(std::io::Error::other)
        .and_then(|line| writeln!(std::io::stdout(), "{line}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cannot write the verdict: {error}");
            Reason::Failed.into()
        }
    }
}
