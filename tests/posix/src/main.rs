//! Runs the checks in the directory that is the only argument, and prints what failed:
//! all of them as root, else those for anybody.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(place) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: posix-checks DIRECTORY");
        return ExitCode::from(2);
    };
    let checks = if rustix::process::geteuid().is_root() {
        posix_checks::all()
    } else {
        posix_checks::for_anybody()
    };
    let mut failed = 0;
    for check in &checks {
        match posix_checks::run(check, &place) {
            Ok(()) => println!("ok: {}", check.name),
            Err(error) => {
                failed += 1;
                println!("FAILED: {}: {error:#}", check.name);
            }
        }
    }
    println!("{} checks, {failed} failed", checks.len());
    ExitCode::from(u8::from(failed > 0))
}
