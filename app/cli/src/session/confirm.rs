//! Questions before something is removed for good, and for a name and a password.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::{self, Failure};

/// Asks for a yes on standard input. Its end is a no.
pub(crate) fn confirmed(warning: &str) -> Result<bool, Failure> {
    let answer = ask(&format!(
        "{warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line on standard input.
pub(crate) fn ask(question: &str) -> Result<String, Failure> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{question}")
        .and_then(|()| stdout.flush())
        .map_err(|error| failure::output(&error))?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("dctl: cannot read the answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// Asks for a line that the terminal does not show.
pub(crate) fn ask_secret(question: &str) -> Result<String, Failure> {
    let failed =
        |error: rustix::io::Errno| Failure::new(format!("dctl: cannot hide a password: {error}"));
    let stdin = rustix::stdio::stdin();
    let modes = tcgetattr(stdin).map_err(failed)?;
    let mut hidden = modes.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin, OptionalActions::Flush, &hidden).map_err(failed)?;
    let answer = ask(question);
    tcsetattr(stdin, OptionalActions::Flush, &modes).map_err(failed)?;
    failure::print_line("")?;
    answer
}
