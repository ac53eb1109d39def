//! Landlock: no file can be opened, made or run any more.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// The newest landlock that this was written for; older kernels enforce the part
/// that they know.
const NEWEST: ABI = ABI::V6;

/// Takes the file system, TCP and other processes away from the calling thread and
/// those that it starts. All that stays is to remove files in
/// `socket_directories`, and to connect to unix sockets, which landlock leaves
/// alone. Returns whether the kernel enforces it.
pub(crate) fn restrict_file_system<'a>(
    socket_directories: impl Iterator<Item = &'a Path>,
) -> Result<bool, RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(socket_directories, AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
