//! The help of `dctl` itself: commands by group, as Docker's client shows them.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use super::Arguments;

/// The groups, in order.
const GROUPS: [(&str, &[&str]); 3] = [
    (
        "Common commands",
        &[
            "run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version",
            "info",
        ],
    ),
    (
        "Management commands",
        &[
            "container",
            "context",
            "image",
            "machine",
            "manifest",
            "network",
            "system",
            "volume",
        ],
    ),
    (
        "Commands",
        &[
            "attach",
            "commit",
            "completion",
            "cp",
            "create",
            "diff",
            "doctor",
            "env",
            "events",
            "export",
            "history",
            "import",
            "inspect",
            "kill",
            "load",
            "logs",
            "pause",
            "port",
            "rename",
            "restart",
            "rm",
            "rmi",
            "save",
            "start",
            "stats",
            "stop",
            "tag",
            "top",
            "unpause",
            "update",
            "wait",
        ],
    ),
];

/// The whole command line, with grouped help.
pub(super) fn command() -> Command {
    let command = Arguments::command();
    // Writing to a string cannot fail.
    let mut groups = String::new();
    for (heading, names) in GROUPS {
        let _ = writeln!(groups, "\n{heading}:");
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            let _ = writeln!(groups, "  {name:<11} {about}");
        }
    }
    let template = format!(
        "{{about}}\n\nUsage: dctl [OPTIONS] COMMAND\n{groups}\nOptions:\n{{options}}\n\nRun 'dctl COMMAND --help' for more information on a command.\n"
    );
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<_> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        grouped.sort_unstable();
        let command = command();
        let mut known: Vec<_> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(Command::get_name)
            .collect();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn help_is_as_it_was() {
        let command = || command().term_width(100);
        insta::assert_snapshot!("dctl", command().render_help());
        for name in ["run", "exec", "ps", "logs", "machine"] {
            let mut command = command();
            command.build();
            let command = command.find_subcommand_mut(name).unwrap();
            insta::assert_snapshot!(name, command.render_help());
        }
    }
}
