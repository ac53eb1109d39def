//! What a kernel's `.config` says, and what fragments and lists demand of it.
//!
//! kconfig drops a symbol whose dependencies are not met without a word, so
//! asking for an option proves nothing: the result has to be read.

use std::collections::HashMap;

use anyhow::{Result, bail};

/// That a symbol has a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    symbol: String,
    value: Value,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    /// Exactly this: `y`, a number, a quoted string.
    Exactly(String),
    /// Built in, whatever the type.
    On,
    /// Not built.
    Off,
}

/// The demands of a fragment: each line that sets a symbol, and each that says
/// that one is not set.
pub(crate) fn fragment(text: &str) -> Vec<Demand> {
    let demand = |symbol: &str, value| Demand {
        symbol: symbol.to_owned(),
        value,
        reason: "a fragment asks for it".to_owned(),
    };
    text.lines()
        .filter_map(|line| {
            if let Some(symbol) = off(line) {
                return Some(demand(symbol, Value::Off));
            }
            let (symbol, value) = set(line)?;
            Some(demand(symbol, Value::Exactly(value.to_owned())))
        })
        .collect()
}

/// The demands of a `required` file: a symbol and its reason on each line, or
/// `SYMBOL=n`, and comments.
pub(crate) fn required(text: &str) -> Result<Vec<Demand>> {
    let mut demands = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((symbol, reason)) = line.split_once(char::is_whitespace) else {
            bail!("line {}: {line} has no reason", number + 1);
        };
        let (symbol, value) = match symbol.strip_suffix("=n") {
            Some(symbol) => (symbol, Value::Off),
            None => (symbol, Value::On),
        };
        demands.push(Demand {
            symbol: symbol.to_owned(),
            value,
            reason: reason.trim().to_owned(),
        });
    }
    Ok(demands)
}

/// One line for each demand that the `.config` does not meet.
pub(crate) fn lacking(config: &str, demands: &[Demand]) -> Vec<String> {
    let symbols: HashMap<_, _> = config.lines().filter_map(set).collect();
    demands
        .iter()
        .filter_map(|demand| {
            let present = symbols.get(demand.symbol.as_str()).copied();
            let wanted = match &demand.value {
                Value::Exactly(value) if present == Some(value) => return None,
                Value::On if present.is_some_and(|value| value != "n") => return None,
                Value::Off if present.is_none_or(|value| value == "n") => return None,
                Value::Exactly(value) => value,
                Value::On => "y",
                Value::Off => "n",
            };
            Some(format!(
                "CONFIG_{} is {} and should be {wanted} ({})",
                demand.symbol,
                present.unwrap_or("not set"),
                demand.reason
            ))
        })
        .collect()
}

fn set(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("CONFIG_")?.split_once('=')
}

fn off(line: &str) -> Option<&str> {
    line.strip_prefix("# CONFIG_")?.strip_suffix(" is not set")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
CONFIG_A=y
# CONFIG_B is not set
CONFIG_NR=64
CONFIG_NAME=\"x\"
";

    #[test]
    fn a_configuration_that_has_everything_lacks_nothing() {
        let demands =
            fragment("CONFIG_A=y\nCONFIG_NR=64\nCONFIG_NAME=\"x\"\n# CONFIG_B is not set\n");
        assert_eq!(demands.len(), 4);
        assert!(lacking(CONFIG, &demands).is_empty());
        let demands =
            required("# why\n\nA   reason\nNR  reason\nB=n reason\nC=n reason\n").unwrap();
        assert_eq!(demands.len(), 4);
        assert!(lacking(CONFIG, &demands).is_empty());
    }

    #[test]
    fn what_was_dropped_is_named_with_its_reason() {
        let mut demands = fragment("CONFIG_DROPPED=y\nCONFIG_NR=8\n# CONFIG_A is not set\n");
        demands.extend(required("B  bees\nA=n no A\n").unwrap());
        let lacking = lacking(CONFIG, &demands);
        assert_eq!(lacking.len(), 5, "{lacking:?}");
        assert!(lacking[0].starts_with("CONFIG_DROPPED is not set and should be y"));
        assert!(lacking[1].starts_with("CONFIG_NR is 64 and should be 8"));
        assert!(lacking[3].ends_with("(bees)"));
    }

    #[test]
    fn a_requirement_needs_a_reason() {
        assert!(required("NAKED\n").is_err());
    }

    #[test]
    fn text_in_comments_demands_nothing() {
        assert!(fragment("# HZ sets CONFIG_HZ=100\n\n# CONFIG_X=y\n").is_empty());
    }
}
