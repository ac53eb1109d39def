//! Values of options that are on or off: `--rm=false`, `-i=true`.
//!
//! Such an option is given without a value nearly always, and help shows it so. A line
//! that cannot be understood in that way is parsed by a [`command`] in which each may
//! have a value, as in Docker's client.

use clap::{ArgAction, Command, error::ErrorKind};

/// Whether `error` is what a value for such an option leads to.
pub(super) fn may_be_the_reason(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TooManyValues | ErrorKind::UnknownArgument
    )
}

/// `command`, and those below it, with a value for each such option that has none.
pub(super) fn command(command: Command) -> Command {
    command
        .mut_args(|argument| {
            if !matches!(argument.get_action(), ArgAction::SetTrue) {
                return argument;
            }
            let id = argument.get_id().clone();
            argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .overrides_with(id)
                .value_parser(parse)
        })
        .mut_subcommands(self::command)
}

/// As Go's `strconv.ParseBool`.
fn parse(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> clap::error::Result<[bool; 3]> {
        let flag = |name: &'static str, short| {
            clap::Arg::new(name)
                .long(name)
                .short(short)
                .action(ArgAction::SetTrue)
        };
        let run = Command::new("run")
            .args([flag("interactive", 'i'), flag("tty", 't'), flag("rm", 'r')])
            .arg(clap::Arg::new("image"));
        let matches = command(Command::new("dctl").subcommand(run))
            .try_get_matches_from([&["dctl", "run"], arguments].concat())?;
        let (_, matches) = matches.subcommand().unwrap();
        Ok(["interactive", "tty", "rm"].map(|name| matches.get_flag(name)))
    }

    #[test]
    fn options_have_values_or_none() {
        for (arguments, values) in [
            (&["x"][..], [false, false, false]),
            (&["-it", "--rm", "x"], [true, true, true]),
            (&["-it", "--rm=false", "x"], [true, true, false]),
            (&["-i=true", "-t=0", "--rm=T", "x"], [true, false, true]),
            (&["--rm", "--rm=false", "x"], [false, false, false]),
        ] {
            assert_eq!(line(arguments).unwrap(), values, "{arguments:?}");
        }
        let error = line(&["--rm=maybe", "x"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
        assert!(error.to_string().contains("invalid syntax"), "{error}");
    }

    #[test]
    fn every_option_that_is_on_or_off_may_have_a_value() {
        let command = || command(super::super::help::command());
        for line in [
            &["create", "-i=true", "--rm=false", "--privileged=true", "x"][..],
            &["run", "-d=true", "--read-only=false", "x", "echo", "-n=1"],
            &["exec", "-i=false", "-t=0", "x", "y"],
            &["ps", "-a=true"],
            &["rm", "--force=true", "x"],
        ] {
            let arguments = [&["dctl"], line].concat();
            command().try_get_matches_from(arguments).unwrap();
        }
    }
}
