//! Why a monitor ended: its exit code, and what its guest's console or its own log
//! say beyond that.

use std::path::Path;

use dctl_vmm::exit::Reason;

use crate::{
    Error,
    console::{last_line, panic_line, read_tail},
    monitor::process::Exit,
    paths::MachineFiles,
};

/// Why a monitor ended before the guest was ready.
pub(crate) fn failed(files: &MachineFiles, exit: Exit) -> Error {
    Error::BootFailed {
        reason: exit.to_string(),
        detail: detail(files, exit),
        console_log: files.console_log(),
        monitor_log: files.monitor_log(),
    }
}

/// How a monitor ended, with what is known beyond the reason.
pub(crate) fn describe(files: &MachineFiles, exit: Exit) -> String {
    match detail(files, exit) {
        Some(detail) => format!("{exit}: {detail}"),
        None => exit.to_string(),
    }
}

fn detail(files: &MachineFiles, exit: Exit) -> Option<String> {
    // An answer without the details is better than none.
    let read = |path: &Path| read_tail(path).unwrap_or_default();
    match exit.reason() {
        Some(Reason::PoweredOff | Reason::Forced) => None,
        _ => panic_line(&read(&files.console_log())).or_else(|| {
            let reason = exit.to_string();
            let line = last_line(&read(&files.monitor_log()))?;
            // The monitor's last line is its reason with the details.
            match line.strip_prefix(&reason) {
                Some("") => None,
                Some(rest) => Some(rest.trim_start_matches([':', ' ']).to_owned()),
                None => Some(line),
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Paths, paths::create_private};

    fn failure(console: &str, log: &str, reason: Reason) -> String {
        let home = tempfile::tempdir().unwrap();
        let files = Paths::under(home.path()).machine("default").unwrap();
        create_private(files.runtime()).unwrap();
        fs::write(files.console_log(), console).unwrap();
        fs::write(files.monitor_log(), log).unwrap();
        let error = failed(&files, Exit::Code(reason.code().into())).to_string();
        assert!(error.contains("console.log") && error.contains("monitor.log"));
        error.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_told_with_its_line() {
        assert_eq!(
            failure(
                "[    0.1] Kernel panic - not syncing: No working init found.\n[ 0.2] more\n",
                "the guest's kernel panicked: ...\n",
                Reason::GuestPanic
            ),
            "the machine did not start: the guest's kernel panicked: \
             Kernel panic - not syncing: No working init found."
        );
    }

    #[test]
    fn otherwise_the_monitors_last_line_says_why() {
        assert_eq!(
            failure("", "noise\nthe monitor failed: no space\n", Reason::Failed),
            "the machine did not start: the monitor failed: no space"
        );
        assert_eq!(
            failure("", "something else\n", Reason::KvmInternalError),
            "the machine did not start: KVM could not run the guest any further: something else"
        );
        assert_eq!(
            failure("", "the machine powered off\n", Reason::PoweredOff),
            "the machine did not start: the machine powered off"
        );
    }
}
