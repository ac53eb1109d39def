//! Signals by name and number, as users write them.

use guest_protocol::AgentError;
use rustix::process::Signal;

use crate::error::Result;

/// Names without `SIG`, by Linux's numbers on x86 and Arm.
const NAMES: &[(&str, i32)] = &[
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGIOT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

const REALTIME_MIN: i32 = 34;
const REALTIME_MAX: i32 = 64;

/// A signal that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalNumber(i32);

impl SignalNumber {
    /// `SIGKILL`.
    pub(crate) const KILL: Self = Self(libc::SIGKILL);

    /// Reads a name, with or without `SIG`, in any case, a number, or
    /// `RTMIN+n` and `RTMAX-n`.
    ///
    /// # Errors
    /// When there is no such signal.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::find(text).ok_or_else(|| {
            AgentError::invalid(match text.parse::<i32>() {
                Ok(1..) => format!("the linux daemon does not support signal {text}"),
                _ => format!("invalid signal: {text}"),
            })
        })
    }

    fn find(text: &str) -> Option<Self> {
        let upper = text.trim().to_ascii_uppercase();
        if let Ok(number) = upper.parse::<i32>() {
            return (1..=REALTIME_MAX).contains(&number).then_some(Self(number));
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match name.strip_prefix("RTM") {
            Some("IN") => REALTIME_MIN,
            Some("AX") => REALTIME_MAX,
            Some(offset) => {
                let number = if let Some(up) = offset.strip_prefix("IN+") {
                    REALTIME_MIN.checked_add(up.parse::<u8>().ok()?.into())?
                } else {
                    REALTIME_MAX - i32::from(offset.strip_prefix("AX-")?.parse::<u8>().ok()?)
                };
                (REALTIME_MIN..=REALTIME_MAX)
                    .contains(&number)
                    .then_some(number)?
            }
            None => NAMES.iter().find(|(known, _)| *known == name)?.1,
        };
        Some(Self(number))
    }

    /// As the kernel's interfaces take it.
    pub(crate) fn as_signal(self) -> Signal {
        // SAFETY: the number is from 1 to 64, all of which the kernel accepts, and
        // it is sent, never handled.
        unsafe { Signal::from_raw_unchecked(self.0) }
    }
}

impl std::fmt::Display for SignalNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in [
            ("SIGKILL", 9),
            ("term", 15),
            ("2", 2),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmax", 64),
        ] {
            assert_eq!(
                SignalNumber::parse(text).unwrap(),
                SignalNumber(number),
                "{text}"
            );
        }
        for text in [
            "",
            "0",
            "65",
            "-9",
            "NOPE",
            "SIGRTMIN+31",
            "RTMAX-40",
            "RTMIN+999",
        ] {
            assert!(SignalNumber::parse(text).is_err(), "{text}");
        }
    }
}
