//! What `rmi` may do: Docker's rules, and its words, which clients match on.
//!
//! A decision on what is known; nothing is changed here. Source: Docker Engine
//! API, `DELETE /images/{name}`, and the engine's documented behaviour: a name is
//! only a name, an image goes with its last one, and who uses it can object.

use guest_protocol::{AgentError, ErrorKind, reference::Reference};

use super::ImageUser;

/// Digits of an id in a message.
const SHORT_ID: usize = 12;

/// What is asked, and what is known of the image.
pub(super) struct Removal<'a> {
    /// How the user named the image.
    pub(super) text: &'a str,
    /// The name that this is; `None` when it is an id or the beginning of one.
    pub(super) reference: Option<&'a Reference>,
    pub(super) id: &'a str,
    /// All the image's names.
    pub(super) names: &'a [Reference],
    /// Containers made of it.
    pub(super) users: &'a [ImageUser],
    pub(super) force: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    /// Names to drop.
    pub(super) untag: Vec<&'a Reference>,
    /// Whether the image goes, too.
    pub(super) delete: bool,
}

impl<'a> Removal<'a> {
    /// What is to be done, or why nothing can be.
    pub(super) fn plan(&self) -> Result<Plan<'a>, AgentError> {
        match self.reference {
            Some(reference) => self.by_name(reference),
            None => self.by_id(),
        }
    }

    fn by_name(&self, reference: &Reference) -> Result<Plan<'a>, AgentError> {
        if !self.force
            && is_single(self.names)
            && let Some(user) = self.users.first()
        {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!(
                    "conflict: unable to remove repository reference {:?} (must force) - \
                     container {} is using its referenced image {}",
                    self.text,
                    short(&user.container_id),
                    short(self.id),
                ),
            ));
        }
        let mut untag: Vec<&Reference> = self
            .names
            .iter()
            .filter(|name| *name == reference)
            .collect();
        let last_tag = !is_by_digest(reference)
            && !self.names.iter().any(|name| {
                name != reference
                    && !is_by_digest(name)
                    && name.repository() == reference.repository()
            });
        if last_tag {
            // Digests alone would keep an image that its owner meant to remove.
            untag.extend(
                self.names.iter().filter(|name| {
                    is_by_digest(name) && name.repository() == reference.repository()
                }),
            );
        }
        let used = self.users.iter().any(|user| user.running || !self.force);
        let delete = untag.len() == self.names.len() && !used;
        Ok(Plan { untag, delete })
    }

    fn by_id(&self) -> Result<Plan<'a>, AgentError> {
        let object = |forceable: bool, reason: &str| {
            let remedy = if forceable {
                "must be forced"
            } else {
                "cannot be forced"
            };
            let id = short(self.id);
            AgentError::new(
                ErrorKind::Conflict,
                format!("conflict: unable to delete {id} ({remedy}) - {reason}"),
            )
        };
        if let Some(user) = self.users.iter().find(|user| user.running) {
            let reason = format!(
                "image is being used by running container {}",
                short(&user.container_id)
            );
            return Err(object(false, &reason));
        }
        if !self.force {
            if !self.names.is_empty() && !is_single(self.names) {
                return Err(object(true, "image is referenced in multiple repositories"));
            }
            if let Some(user) = self.users.first() {
                let reason = format!(
                    "image is being used by stopped container {}",
                    short(&user.container_id)
                );
                return Err(object(true, &reason));
            }
        }
        Ok(Plan {
            untag: self.names.iter().collect(),
            delete: true,
        })
    }
}

/// Whether an image has one name: at most one tag, and digests only of the same
/// repository.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| !is_by_digest(name)).count();
    let one_repository = names
        .windows(2)
        .all(|pair| pair[0].repository() == pair[1].repository());
    !names.is_empty() && tags <= 1 && one_repository
}

fn is_by_digest(name: &Reference) -> bool {
    name.digest().is_some()
}

/// The beginning of an id, as messages show it.
fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT_ID).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn names(texts: &[&str]) -> Vec<Reference> {
        texts
            .iter()
            .map(|text| {
                Reference::parse(&text.replace("@d", &format!("@{ID}")))
                    .unwrap()
                    .or_latest()
            })
            .collect()
    }

    fn user(running: bool) -> ImageUser {
        ImageUser {
            container_id: "fedcba9876543210".into(),
            running,
        }
    }

    /// Number of names dropped and whether the image goes, or the message.
    fn plan(
        text: &str,
        all: &[&str],
        users: &[ImageUser],
        force: bool,
    ) -> Result<(usize, bool), String> {
        let all = names(all);
        let reference =
            (!text.starts_with("sha256:")).then(|| Reference::parse(text).unwrap().or_latest());
        Removal {
            text,
            reference: reference.as_ref(),
            id: ID,
            names: &all,
            users,
            force,
        }
        .plan()
        .map(|plan| (plan.untag.len(), plan.delete))
        .map_err(|error| error.message)
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        assert_eq!(plan("a", &["a"], &[], false), Ok((1, true)));
        assert_eq!(plan("a", &["a", "b"], &[], false), Ok((1, false)));
        assert_eq!(plan("a", &["a", "a@d"], &[], false), Ok((2, true)));
        assert_eq!(plan("a", &["a", "a:2", "a@d"], &[], false), Ok((1, false)));
        assert_eq!(plan("a", &["a", "a@d", "b"], &[], false), Ok((2, false)));
    }

    #[test]
    fn an_id_removes_all_names_of_one_repository() {
        assert_eq!(plan(ID, &["a", "a@d"], &[], false), Ok((2, true)));
        assert_eq!(plan(ID, &[], &[], false), Ok((0, true)));
        assert_eq!(
            plan(ID, &["a", "b"], &[], false),
            Err("conflict: unable to delete 0123456789ab (must be forced) - image is referenced in multiple repositories".into())
        );
        assert_eq!(plan(ID, &["a", "b"], &[], true), Ok((2, true)));
    }

    #[test]
    fn containers_object() {
        assert_eq!(
            plan("a", &["a"], &[user(false)], false),
            Err("conflict: unable to remove repository reference \"a\" (must force) - container fedcba987654 is using its referenced image 0123456789ab".into())
        );
        assert_eq!(plan("a", &["a"], &[user(false)], true), Ok((1, true)));
        assert_eq!(plan("a", &["a"], &[user(true)], true), Ok((1, false)));
        assert_eq!(plan("a", &["a", "b"], &[user(true)], false), Ok((1, false)));
        assert_eq!(
            plan(ID, &["a"], &[user(false)], false),
            Err("conflict: unable to delete 0123456789ab (must be forced) - image is being used by stopped container fedcba987654".into())
        );
        assert_eq!(
            plan(ID, &["a"], &[user(true)], true),
            Err("conflict: unable to delete 0123456789ab (cannot be forced) - image is being used by running container fedcba987654".into())
        );
        assert_eq!(plan(ID, &["a"], &[user(false)], true), Ok((1, true)));
    }
}
