//! `--change` of commit and import: Dockerfile instructions that change an image's
//! configuration.
//!
//! Source: the Dockerfile reference; of its instructions those that Docker takes here.

use std::collections::HashMap;

use guest_protocol::docker::{ContainerConfig, HealthConfig};

/// Applies instructions in order.
///
/// # Errors
/// A message that names the instruction.
#[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
pub(crate) fn apply(config: &mut ContainerConfig, changes: &[String]) -> Result<(), String> {
    let mut command_set = false;
    for line in changes.iter().flat_map(|change| change.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = name.to_ascii_uppercase();
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(format!("{name} requires at least one argument"));
        }
        match name.as_str() {
            "CMD" => {
                config.cmd = Some(command(rest, config));
                command_set = true;
            }
            "ENTRYPOINT" => {
                config.entrypoint = Some(command(rest, config));
                if !command_set {
                    config.cmd = None;
                }
            }
            "ENV" => {
                let env = config.env.get_or_insert_default();
                for (key, value) in pairs(&name, rest)? {
                    let start = format!("{key}=");
                    let variable = format!("{start}{value}");
                    match env.iter_mut().find(|known| known.starts_with(&start)) {
                        Some(known) => *known = variable,
                        None => env.push(variable),
                    }
                }
            }
            "LABEL" => config
                .labels
                .get_or_insert_default()
                .extend(pairs(&name, rest)?),
            "EXPOSE" => {
                let ports = config.exposed_ports.get_or_insert_default();
                for port in words(rest)? {
                    ports.insert(expose(&port)?, HashMap::new());
                }
            }
            "ONBUILD" => {
                let trigger = rest.split_whitespace().next().unwrap_or_default();
                match trigger.to_ascii_uppercase().as_str() {
                    "ONBUILD" => {
                        return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into());
                    }
                    "FROM" | "MAINTAINER" => {
                        return Err(format!("{trigger} isn't allowed as an ONBUILD trigger"));
                    }
                    _ => {}
                }
                config
                    .on_build
                    .get_or_insert_default()
                    .push(rest.to_owned());
            }
            "USER" => config.user = Some(rest.to_owned()),
            "VOLUME" => {
                let paths = match json_list(rest) {
                    Some(paths) => paths,
                    None => words(rest)?,
                };
                let volumes = config.volumes.get_or_insert_default();
                for path in paths {
                    if path.trim().is_empty() {
                        return Err("VOLUME specified can not be an empty string".into());
                    }
                    volumes.insert(path, HashMap::new());
                }
            }
            "WORKDIR" => config.working_dir = Some(workdir(config.working_dir.as_deref(), rest)),
            "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
            "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
            "SHELL" => {
                let shell = json_list(rest)
                    .filter(|shell| !shell.is_empty())
                    .ok_or("SHELL requires the arguments to be in JSON form")?;
                config.shell = Some(shell);
            }
            _ => return Err(format!("{name} is not a valid change command")),
        }
    }
    Ok(())
}

/// `["a", "b"]`, or a line for the shell.
fn command(text: &str, config: &ContainerConfig) -> Vec<String> {
    json_list(text).unwrap_or_else(|| {
        let mut line = config
            .shell
            .clone()
            .filter(|shell| !shell.is_empty())
            .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        line.push(text.to_owned());
        line
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Words between blanks; quotes keep blanks, a backslash whatever follows it.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                if let Some(next) = characters.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(format!(
            "unexpected end of statement while looking for a matching quote: {text}"
        ));
    }
    words.extend(word);
    Ok(words)
}

/// `key=value key=value`, or one `key value`.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{name} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{name} names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            )),
        })
        .collect()
}

/// `80`, `80/udp`, as the key of a map.
fn expose(port: &str) -> Result<String, String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let valid = number
        .split('-')
        .all(|number| number.parse::<u16>().is_ok_and(|number| number > 0))
        && number.split('-').count() <= 2
        && matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
    if valid {
        Ok(format!("{number}/{protocol}"))
    } else {
        Err(format!("invalid containerPort: {port}"))
    }
}

fn workdir(current: Option<&str>, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let current = current.filter(|path| !path.is_empty()).unwrap_or("/");
    format!("{}/{path}", current.trim_end_matches('/'))
}

/// `[OPTIONS] CMD command`, or `NONE`.
fn healthcheck(text: &str) -> Result<HealthConfig, String> {
    let mut health = HealthConfig::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or("HEALTHCHECK needs CMD or NONE")?;
        rest = after.trim_start();
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("Missing a value on flag: --{option}"))?;
        match name {
            "interval" => health.interval = Some(duration(value)?),
            "timeout" => health.timeout = Some(duration(value)?),
            "start-period" => health.start_period = Some(duration(value)?),
            "start-interval" => health.start_interval = Some(duration(value)?),
            "retries" => {
                let retries = value.parse().map_err(|_| {
                    format!("HEALTHCHECK: --retries must be a number, not {value:?}")
                })?;
                health.retries = Some(retries);
            }
            _ => return Err(format!("unknown flag: --{name}")),
        }
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command_text = command_text.trim();
    health.test = Some(match kind.to_ascii_uppercase().as_str() {
        "NONE" if command_text.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" if command_text.is_empty() => {
            return Err("Missing command after HEALTHCHECK CMD".into());
        }
        "CMD" => {
            let (kind, rest) = match json_list(command_text) {
                Some(list) => ("CMD", list),
                None => ("CMD-SHELL", vec![command_text.to_owned()]),
            };
            std::iter::once(kind.to_owned()).chain(rest).collect()
        }
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    });
    Ok(health)
}

/// Go's durations, in nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    crate::api::duration(text)
        .filter(|duration| *duration >= 0)
        .ok_or_else(|| format!("time: invalid duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applied(changes: &[&str]) -> Result<ContainerConfig, String> {
        let mut config = ContainerConfig {
            cmd: Some(vec!["old".into()]),
            env: Some(vec!["A=old".into(), "B=2".into()]),
            working_dir: Some("/srv".into()),
            ..ContainerConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn every_instruction_changes_its_field() {
        let config = applied(&[
            "ENTRYPOINT [\"/run\", \"it\"]",
            "env A=new C=\"with blank\"",
            "ENV D one two",
            "LABEL x=y \"long name\"='a b'",
            "EXPOSE 80 53/udp",
            "USER app:staff",
            "VOLUME /data [\"/no\"]",
            "WORKDIR sub",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN make",
            "HEALTHCHECK --interval=5s --retries=2 CMD true",
        ])
        .unwrap();
        assert_eq!(config.entrypoint.unwrap(), ["/run", "it"]);
        assert_eq!(config.cmd, None);
        assert_eq!(
            config.env.unwrap(),
            ["A=new", "B=2", "C=with blank", "D=one two"]
        );
        assert_eq!(config.labels.unwrap()["long name"], "a b");
        let mut ports: Vec<_> = config.exposed_ports.unwrap().into_keys().collect();
        ports.sort();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.user.as_deref(), Some("app:staff"));
        assert!(config.volumes.unwrap().contains_key("/data"));
        assert_eq!(config.working_dir.as_deref(), Some("/srv/sub"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.on_build.unwrap(), ["RUN make"]);
        let health = config.healthcheck.unwrap();
        assert_eq!(health.test.unwrap(), ["CMD-SHELL", "true"]);
        assert_eq!(
            (health.interval, health.retries),
            (Some(5_000_000_000), Some(2))
        );
    }

    #[test]
    fn commands_are_lists_or_lines_for_the_shell() {
        let config = applied(&["CMD echo \"a  b\""]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo \"a  b\""]);
        let config = applied(&["CMD [\"a\"]", "ENTRYPOINT [\"b\"]"]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["a"]);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for change in [
            "RUN true",
            "CMD",
            "ENV x",
            "ENV a=1 b",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "LABEL \"open",
            "ONBUILD ONBUILD x",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK x",
        ] {
            assert!(applied(&[change]).is_err(), "{change}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}", name in "(CMD|ENV|LABEL|VOLUME|HEALTHCHECK|EXPOSE) ") {
            let _ = applied(&[&text]);
            let _ = applied(&[&format!("{name}{text}")]);
        }
    }
}
