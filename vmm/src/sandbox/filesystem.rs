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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_can_be_opened_and_only_sockets_directories_be_cleared() {
        let sockets = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let paths = [&sockets, &elsewhere].map(|directory| directory.path().join("file"));
        for path in &paths {
            fs::write(path, b"x").unwrap();
        }
        // It holds for the thread.
        thread::scope(|scope| {
            scope.spawn(|| {
                if !restrict_file_system([sockets.path()].into_iter()).unwrap() {
                    eprintln!("skipped: this kernel has no landlock");
                    return;
                }
                for path in &paths {
                    let error = File::open(path).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                }
                assert!(File::create(sockets.path().join("new")).is_err());
                fs::remove_file(&paths[0]).unwrap();
                let error = fs::remove_file(&paths[1]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            });
        });
    }
}
