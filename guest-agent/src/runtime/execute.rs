//! Executes a program in place of the calling process.
//!
//! Called by [`super::executor`] as its last step. The standard library would do it
//! as execvp(3) does, which hands a file of unknown format to `/bin/sh`: Docker
//! refuses one, and passes the environment on exactly as it was given.

use std::{
    ffi::{CString, NulError, c_char},
    io, mem, ptr,
};

/// Executes `program`, a path. Returns only if that fails, with the reason.
pub(super) fn execute(program: &str, args: &[String], env: &[String]) -> io::Error {
    match prepare(program, args, env) {
        Ok((program, args, env)) => replace(&program, &args, &env),
        Err(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
    }
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

fn prepare(program: &str, args: &[String], env: &[String]) -> Result<Prepared, NulError> {
    let strings = |list: &[String]| {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok((CString::new(program)?, strings(args)?, strings(env)?))
}

fn replace(program: &CString, args: &[CString], env: &[CString]) -> io::Error {
    if let Err(error) = reset_signals() {
        return error;
    }
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: a string and two arrays of strings that end with null, all of which
    // outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Undoes what a Rust program begins with and a new program would inherit: an
/// ignored `SIGPIPE`; and blocks no signal.
fn reset_signals() -> io::Result<()> {
    // SAFETY: the default action is no handler, so no code is involved.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut none = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given, and
    // `pthread_sigmask` only reads it.
    let error = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_is_said_so() {
        let error = execute("/nonexistent", &["x".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = execute("/bin/true", &["with\0nul".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
