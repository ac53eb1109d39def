//! Seccomp profiles: Docker's JSON format, and the filters that it stands for.
//!
//! A [`Profile`] is read from what the user sent, or is the one that Docker gives
//! every container (`default.json`), and is compiled for the capabilities of one
//! container. The text is a stranger's. Nothing here installs a filter:
//! [`crate::runtime`] does, in the new process.
//!
//! Source: "Seccomp security profiles for Docker"; the OCI runtime specification's
//! `linux.seccomp`; seccomp(2).

mod calls;
mod format;

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use self::format::{Argument, Conditions, Entry, Text};

/// The longest profile that is read, in bytes.
const LONGEST: usize = 1024 * 1024;

/// The most rules that are compiled: each takes several of the 4096 instructions of
/// a filter.
const MOST_RULES: usize = 4096;

/// A system call has six arguments.
const ARGUMENTS: u32 = 6;

/// Arguments that the kernel reads as 32 bits, whatever is in the upper half: if all
/// 64 were compared, a caller could evade a rule.
const WORDS: &[(&str, &[u32])] = &[
    ("clone", &[0]),
    ("fcntl", &[1]),
    ("ioctl", &[1]),
    ("keyctl", &[0]),
    ("personality", &[0]),
    ("prctl", &[0]),
    ("setns", &[1]),
    ("socket", &[0, 1, 2]),
    ("socketpair", &[0, 1, 2]),
];

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("Decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the seccomp profile is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the seccomp profile has more than {MOST_RULES} rules")]
    TooManyRules,
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
         'architectures' or 'archMap'"
    )]
    BothArchitectures,
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    )]
    BothNames,
    #[error("string {0} is not a valid action for seccomp")]
    Action(String),
    #[error("the seccomp action {0} is not supported: nothing here could answer the notification")]
    Notify(String),
    #[error("string {0} is not a valid operator for seccomp")]
    Operator(String),
    #[error("string {0} is not a valid arch for seccomp")]
    Architecture(String),
    #[error("a rule about {call} has argument {index}: there are six, from 0 on")]
    Index { call: String, index: u32 },
    #[error("{0:?} is not a version of the kernel")]
    Kernel(String),
    #[error("cannot compile the seccomp profile: {0}")]
    Compile(#[from] seccompiler::BackendError),
}

/// For whom a profile is compiled.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// The capabilities in the container's bounding set, such as `CAP_CHOWN`.
    pub(crate) capabilities: &'a HashSet<String>,
    /// The kernel's version: 6 and 12.
    pub(crate) kernel: (u32, u32),
}

/// A seccomp profile.
#[derive(Debug)]
pub(crate) struct Profile(Text);

/// Docker's profile.
static DEFAULT: LazyLock<Result<Profile, ProfileError>> =
    LazyLock::new(|| Profile::parse(include_str!("default.json")));

impl Profile {
    /// The profile of every container that asks for no other.
    ///
    /// # Errors
    /// Never: the tests compile it.
    pub(crate) fn docker() -> Result<&'static Self, &'static ProfileError> {
        DEFAULT.as_ref()
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(json: &str) -> Result<Self, ProfileError> {
        if json.len() > LONGEST {
            return Err(ProfileError::TooLong);
        }
        let text: Text = serde_json::from_str(json)?;
        text.check()?;
        Ok(Self(text))
    }

    /// The filters for `subject`, to be installed in this order.
    ///
    /// There is one that tells calls with a rule from those without, and one more for
    /// each action that a rule can have. Of several filters' verdicts the kernel takes
    /// the strictest, so a call has that of its rule, or else the profile's.
    ///
    /// # Errors
    /// When it is too large or asks for what cannot be had.
    pub(crate) fn compile(&self, subject: &Subject<'_>) -> Result<Vec<BpfProgram>, ProfileError> {
        let otherwise = self.0.default_action()?;
        let mut with_rule = Rules::default();
        let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
        for entry in self.0.entries() {
            if !applies(entry, subject)? {
                continue;
            }
            let action = entry.action()?;
            if action == otherwise {
                continue;
            }
            with_rule.add(entry)?;
            if action == SeccompAction::Allow {
                continue;
            }
            let known = by_action.iter().position(|(known, _)| *known == action);
            let at = known.unwrap_or_else(|| {
                by_action.push((action, Rules::default()));
                by_action.len() - 1
            });
            if let Some((_, rules)) = by_action.get_mut(at) {
                rules.add(entry)?;
            }
        }
        let mut programs = Vec::new();
        for (action, rules) in by_action {
            programs.push(rules.compile(SeccompAction::Allow, action)?);
        }
        if otherwise != SeccompAction::Allow {
            programs.push(with_rule.compile(otherwise, SeccompAction::Allow)?);
        }
        Ok(programs)
    }
}

/// The rules of one filter, by the number of the call.
#[derive(Debug, Default)]
struct Rules {
    calls: BTreeMap<i64, Calls>,
    count: usize,
}

/// When a call is meant.
#[derive(Debug)]
enum Calls {
    All,
    Some(Vec<SeccompRule>),
}

impl Rules {
    fn add(&mut self, entry: &Entry) -> Result<(), ProfileError> {
        for name in entry.names() {
            let Some(number) = calls::number(name) else {
                // Another architecture's.
                continue;
            };
            let rules = rules_for(name, entry.arguments())?;
            self.count = self.count.saturating_add(rules.len().max(1));
            if self.count > MOST_RULES {
                return Err(ProfileError::TooManyRules);
            }
            let known = self.calls.entry(number).or_insert(Calls::Some(Vec::new()));
            match known {
                _ if rules.is_empty() => *known = Calls::All,
                Calls::All => {}
                Calls::Some(known) => known.extend(rules),
            }
        }
        Ok(())
    }

    fn compile(
        self,
        otherwise: SeccompAction,
        on_match: SeccompAction,
    ) -> Result<BpfProgram, ProfileError> {
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let rules = self
            .calls
            .into_iter()
            .map(|(number, calls)| match calls {
                // No condition: always.
                Calls::All => (number, Vec::new()),
                Calls::Some(rules) => (number, rules),
            })
            .collect();
        let filter = SeccompFilter::new(rules, otherwise, on_match, architecture)?;
        Ok(BpfProgram::try_from(filter)?)
    }
}

/// The rules that stand for the conditions of one entry, none if it has none. All of
/// them must hold, but of several about one argument any.
fn rules_for(call: &str, arguments: &[Argument]) -> Result<Vec<SeccompRule>, ProfileError> {
    let conditions = arguments
        .iter()
        .map(|argument| condition(call, argument))
        .collect::<Result<Vec<_>, _>>()?;
    let indexes: HashSet<u32> = arguments.iter().map(|argument| argument.index).collect();
    let rules = if conditions.is_empty() {
        Vec::new()
    } else if indexes.len() == arguments.len() {
        vec![conditions]
    } else {
        conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect()
    };
    rules
        .into_iter()
        .map(|conditions| Ok(SeccompRule::new(conditions)?))
        .collect()
}

fn condition(call: &str, argument: &Argument) -> Result<SeccompCondition, ProfileError> {
    let index = argument.index;
    let position = u8::try_from(index)
        .ok()
        .filter(|_| index < ARGUMENTS)
        .ok_or_else(|| ProfileError::Index {
            call: call.to_owned(),
            index,
        })?;
    let (operator, value) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, argument.value),
        "SCMP_CMP_LT" => (SeccompCmpOp::Lt, argument.value),
        "SCMP_CMP_LE" => (SeccompCmpOp::Le, argument.value),
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, argument.value),
        "SCMP_CMP_GE" => (SeccompCmpOp::Ge, argument.value),
        "SCMP_CMP_GT" => (SeccompCmpOp::Gt, argument.value),
        "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
        other => return Err(ProfileError::Operator(other.to_owned())),
    };
    let is_word = WORDS
        .iter()
        .any(|(word, indexes)| *word == call && indexes.contains(&index));
    let fits = [argument.value, argument.value_two]
        .iter()
        .all(|value| u32::try_from(*value).is_ok());
    let length = if is_word && fits {
        SeccompCmpArgLen::Dword
    } else {
        SeccompCmpArgLen::Qword
    };
    Ok(SeccompCondition::new(position, length, operator, value)?)
}

/// Whether an entry is meant for `subject`.
fn applies(entry: &Entry, subject: &Subject<'_>) -> Result<bool, ProfileError> {
    let excluded = match entry.excludes() {
        Some(conditions) => {
            is_here(conditions)
                || conditions
                    .capabilities()
                    .any(|name| subject.capabilities.contains(name))
                || conditions
                    .kernel()?
                    .is_some_and(|least| subject.kernel >= least)
        }
        None => false,
    };
    let included = match entry.includes() {
        Some(conditions) => {
            (conditions.architectures().next().is_none() || is_here(conditions))
                && conditions
                    .capabilities()
                    .all(|name| subject.capabilities.contains(name))
                && conditions
                    .kernel()?
                    .is_none_or(|least| subject.kernel >= least)
        }
        None => true,
    };
    Ok(included && !excluded)
}

/// Whether this architecture is named; in Go's words or the kernel's.
fn is_here(conditions: &Conditions) -> bool {
    let here = if cfg!(target_arch = "x86_64") {
        ["amd64", "x86_64"]
    } else {
        ["arm64", "aarch64"]
    };
    conditions
        .architectures()
        .any(|architecture| here.contains(&architecture))
}

#[cfg(test)]
mod tests;
