//! The init process of containers made with `--init`: it starts the container's
//! program, passes signals on to it, and collects orphans.
//!
//! This program is mounted into such containers as `/sbin/docker-init`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, WaitOptions, wait};

/// The name it is called by.
pub(crate) const NAME: &str = "docker-init";

/// Runs `-- PROGRAM ARGUMENTS…`, and ends with its exit code.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let command = match arguments {
        [dashes, command @ ..] if dashes == "--" => command,
        command => command,
    };
    let [program, arguments @ ..] = command else {
        eprintln!("{NAME}: no command specified");
        return ExitCode::from(127);
    };
    // Blocked before the child is there, so that none is lost.
    let signals = block_signals();
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    // SAFETY: `sigprocmask` may be called between fork and exec, and the set that it
    // reads is a copy of its own.
    unsafe {
        command.pre_exec(move || {
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const signals, std::ptr::null_mut());
            Ok(())
        });
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{NAME}: exec {}: {error}", program.to_string_lossy());
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            return ExitCode::from(if missing { 127 } else { 126 });
        }
    };
    let child_pid = child.id() as i32;
    // With a terminal, what is typed is for the program.
    give_terminal_to(child_pid);
    loop {
        let mut number = 0;
        // SAFETY: both point to valid objects of their types.
        if unsafe { libc::sigwait(&raw const signals, &raw mut number) } != 0 {
            continue;
        }
        if matches!(number, libc::SIGTTIN | libc::SIGTTOU) {
            // Meant for this process, which has no business with the terminal.
            continue;
        }
        if number != libc::SIGCHLD {
            // SAFETY: kill has no memory effects. The child may be gone, which is
            // noticed below.
            unsafe { libc::kill(child_pid, number) };
            continue;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == Pid::from_raw(child_pid) {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                if let Some(code) = code {
                    return ExitCode::from(code as u8);
                }
            }
        }
    }
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: `sigfillset` initialises the set before it is read; the others take
    // valid pointers to it.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigfillset(&raw mut signals);
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGABRT,
        ] {
            libc::sigdelset(&raw mut signals, fault);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        signals
    }
}

fn give_terminal_to(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // Without a terminal there is none to give.
        let _ = rustix::termios::tcsetpgrp(std::io::stdin(), group);
    }
}
