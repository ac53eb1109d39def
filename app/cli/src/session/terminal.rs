//! The terminal that we run on: its size, and raw mode, which is undone on every
//! way out.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The modes to go back to, while the terminal is raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(rustix::stdio::stdin())
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    isatty(rustix::stdio::stdout())
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    isatty(rustix::stdio::stderr())
}

/// Rows and columns of the terminal, if there is one with a size.
pub(crate) fn size() -> Option<(u16, u16)> {
    [rustix::stdio::stdout(), rustix::stdio::stdin()]
        .into_iter()
        .filter_map(|descriptor| tcgetwinsize(descriptor).ok())
        .map(|size| (size.ws_row, size.ws_col))
        .find(|(rows, columns)| *rows > 0 && *columns > 0)
}

/// Columns of the terminal on standard error.
pub(crate) fn stderr_width() -> Option<usize> {
    let size = tcgetwinsize(rustix::stdio::stderr()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Columns of the terminal on standard output.
pub(crate) fn stdout_width() -> Option<usize> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Whether the terminal on standard input is still there: after a hang-up it
/// answers nothing.
pub(crate) fn is_gone() -> bool {
    tcgetattr(rustix::stdio::stdin()).is_err()
}

/// The terminal passes every key on, for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal on standard input raw.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let modes = tcgetattr(stdin)?;
        let mut raw = modes.clone();
        raw.make_raw();
        *saved() = Some(modes);
        if let Err(error) = tcsetattr(stdin, OptionalActions::Now, &raw) {
            *saved() = None;
            return Err(error.into());
        }
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal raw again after a shell has changed its modes while we
/// were stopped.
pub(crate) fn reenter_raw() {
    if saved().is_some() {
        let stdin = rustix::stdio::stdin();
        if let Ok(mut modes) = tcgetattr(stdin) {
            modes.make_raw();
            // A terminal that is gone has no modes; the session sees that itself.
            let _ = tcsetattr(stdin, OptionalActions::Now, &modes);
        }
    }
}

/// Puts the terminal back as it was. Harmless when it was not changed.
pub(crate) fn restore() {
    if let Some(modes) = saved().take() {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &modes);
    }
}

/// Restores the terminal before a panic is reported on it.
pub(crate) fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}
