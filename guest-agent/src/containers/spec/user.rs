//! Who a container's process runs as: `--user` resolved with the container's own
//! `/etc/passwd` and `/etc/group`.

use std::io::Read;

use guest_protocol::AgentError;

use super::rootfs::Rootfs;
use crate::error::Result;

/// The largest user database that is read.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A user of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user` (`name|uid[:group|gid]`, empty for root) in `rootfs`; `add` are
/// further groups by name or id.
///
/// # Errors
/// When a name is not known there.
pub(crate) fn resolve(rootfs: &Rootfs, user: &str, add: &[String]) -> Result<User> {
    let passwd = read(rootfs, "etc/passwd");
    let group = read(rootfs, "etc/group");
    resolve_in(&passwd, &group, user, add)
}

/// A database that is missing or unreadable has no entries.
fn read(rootfs: &Rootfs, path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = rootfs.open(path) {
        // What could be read counts; the rest is as good as missing.
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn resolve_in(passwd: &str, group: &str, user: &str, add: &[String]) -> Result<User> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 4
                && (fields[0] == name
                    || (number.is_some() && fields[2].parse::<u32>().ok() == number))
        });
    let mut resolved = User {
        home: "/".to_owned(),
        ..User::default()
    };
    let mut login = None;
    match (entry, number) {
        (Some(fields), _) => {
            resolved.uid = fields[2].parse().map_err(|_| damaged("passwd", name))?;
            resolved.gid = fields[3].parse().map_err(|_| damaged("passwd", name))?;
            if let Some(home) = fields.get(5).filter(|home| !home.is_empty()) {
                (*home).clone_into(&mut resolved.home);
            }
            login = Some(fields[0].to_owned());
        }
        (None, Some(number)) => resolved.uid = number,
        (None, None) => {
            return Err(AgentError::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    }
    if let Some(group_name) = group_name {
        resolved.gid = find_group(group, group_name)?;
    } else if let Some(login) = login {
        // With a group of their own choice, users have no other groups; runc's rule.
        resolved.additional_gids = groups(group)
            .filter(|(_, _, members)| members.split(',').any(|member| member == login))
            .map(|(_, gid, _)| gid)
            .collect();
    }
    for name in add {
        resolved.additional_gids.push(find_group(group, name)?);
    }
    resolved.additional_gids.sort_unstable();
    resolved.additional_gids.dedup();
    Ok(resolved)
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    groups(group)
        .find(|(known, _, _)| *known == name)
        .map(|(_, gid, _)| gid)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| {
            AgentError::invalid(format!(
                "unable to find group {name}: no matching entries in group file"
            ))
        })
}

fn damaged(file: &str, name: &str) -> AgentError {
    AgentError::invalid(format!("the entry of {name} in the {file} file is damaged"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\nwheel:x:10:root\n";

    fn resolved(user: &str) -> Result<User> {
        resolve_in(PASSWD, GROUP, user, &[])
    }

    #[test]
    fn names_and_numbers_mean_the_same_user() {
        let app = User {
            uid: 1000,
            gid: 1001,
            additional_gids: vec![50],
            home: "/home/app".to_owned(),
        };
        assert_eq!(resolved("app").unwrap(), app);
        assert_eq!(resolved("1000").unwrap(), app);
        assert_eq!(resolved("").unwrap().additional_gids, [10]);
    }

    #[test]
    fn a_group_of_choice_and_unknown_numbers() {
        let user = resolved("app:staff").unwrap();
        assert_eq!((user.gid, user.additional_gids.len()), (50, 0));
        let user = resolved("4711:4712").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (4711, 4712, "/"));
        let user = resolve_in(PASSWD, GROUP, "app:app", &["wheel".into(), "7".into()]).unwrap();
        assert_eq!(user.additional_gids, [7, 10]);
    }

    #[test]
    fn unknown_names_are_named() {
        assert!(
            resolved("nobody")
                .unwrap_err()
                .message
                .contains("unable to find user nobody")
        );
        assert!(
            resolved("app:nogroup")
                .unwrap_err()
                .message
                .contains("unable to find group nogroup")
        );
    }

    proptest! {
        #[test]
        fn no_database_breaks_it(passwd in "[a-z0-9:\n]{0,200}", group in "[a-z0-9:,\n]{0,200}", user in "[a-z0-9:]{0,9}") {
            let _ = resolve_in(&passwd, &group, &user, &["a".into()]);
        }
    }
}
