//! What keeps the agent busy: one random call after the other, each noted in the
//! model before it is made and settled when it is acknowledged. Here are containers;
//! [`images`] and [`volumes`] have the rest.

mod images;
pub(crate) mod volumes;

use std::collections::BTreeMap;

use guest_protocol::{
    AgentError, ErrorKind,
    container::Status,
    docker::{ContainerConfig, HostConfig},
    methods::{
        ContainerCreate, ContainerInspect, ContainerRemove, ContainerRename, ContainerStart,
        ContainerWait, WaitCondition, WaitResult,
    },
};

use super::{
    call::{CallError, Called, Caller, receive},
    images::Images,
    model::{Made, Model, Slot},
};

/// Tags, containers and named volumes of a worker.
const TAGS: u32 = 4;
const CONTAINERS: u32 = 4;
const VOLUMES: u32 = 2;
/// Where a container has its anonymous and its named volume.
const ANONYMOUS: &str = "/anonymous";
const NAMED: &str = "/named";
/// What a container writes into its named volume.
pub(crate) const TOKEN: &str = "token";

/// Makes calls.
pub(crate) struct Worker<'a> {
    caller: Caller,
    images: &'a Images,
    model: &'a mut Model,
    random: fastrand::Rng,
    report: Report,
}

/// What came of a worker's calls.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) acknowledged: u64,
    pub(crate) cut_off: bool,
    /// Refusals that nothing explains.
    pub(crate) unexpected: Vec<String>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        caller: Caller,
        images: &'a Images,
        model: &'a mut Model,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            caller,
            images,
            model,
            random,
            report: Report::default(),
        }
    }

    pub(crate) fn report(self) -> Report {
        self.report
    }

    /// One step of work; false when the agent is gone.
    pub(crate) fn step(&mut self) -> bool {
        self.model.ran = None;
        let result = match self.random.u32(..18) {
            0 | 1 => self.pull(),
            2 => self.load(),
            3 => self.commit(),
            4 => self.tag(),
            5 => self.remove_image(),
            6..=8 => self.create(),
            9 | 10 => self.run(),
            11 => self.rename(),
            12 | 13 => self.remove(),
            14 => self.create_volume(),
            15 | 16 => self.restore_volume(),
            _ => self.remove_volume(),
        };
        match result {
            Ok(()) => {
                self.report.acknowledged += 1;
                self.model.settled();
                true
            }
            Err(CallError::Refused(error)) => {
                self.model.forget_pending();
                if !is_expected(&error) {
                    let finding = format!("refused: {:?} {}", error.kind, error.message);
                    self.report.unexpected.push(finding);
                }
                true
            }
            Err(CallError::CutOff) => {
                self.report.cut_off = true;
                false
            }
        }
    }

    fn name(&mut self, what: &str, most: u32) -> String {
        format!("{what}{}-{}", self.model.number, self.random.u32(..most))
    }

    fn tag_name(&mut self) -> String {
        self.name("image", TAGS) + ":latest"
    }

    /// A container that is there, by its name.
    fn some_container(&mut self) -> Option<(String, Made)> {
        let there: Vec<_> = self
            .model
            .containers
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.known.clone()?)))
            .collect();
        let chosen = self.random.usize(..there.len().max(1));
        there.into_iter().nth(chosen)
    }

    /// A tag that is there, and its image.
    fn some_tag(&mut self) -> Option<(String, String)> {
        let there: Vec<_> = self
            .model
            .tags
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.known.clone()?)))
            .collect();
        let chosen = self.random.usize(..there.len().max(1));
        there.into_iter().nth(chosen)
    }

    fn create(&mut self) -> Called<()> {
        let Some((tag, image)) = self.some_tag() else {
            return Ok(());
        };
        let name = self.name("container", CONTAINERS);
        let named = self.random.bool().then(|| self.name("volume", VOLUMES));
        if let Some(volume) = &named {
            let slot = self.model.tokens.entry(volume.clone());
            slot.or_insert_with(|| Slot::new(None));
        }
        let made = Made {
            image,
            named: named.clone(),
            ..Made::default()
        };
        let slot = self.model.containers.entry(name.clone());
        let slot = slot.or_insert_with(|| Slot::new(None));
        if slot.known.is_none() {
            slot.pending = Some(Some(made.clone()));
        }
        let exit_code = self.random.u8(..100);
        let token = self.model.next();
        let write = named.as_ref().map_or_else(String::new, |_| {
            format!(
                "echo {token:08} | dd of={NAMED}/{TOKEN} conv=notrunc,fsync 2> /dev/null \
                 || exit 101; "
            )
        });
        // Docker's notation of a set.
        let volumes = if self.random.bool() {
            serde_json::from_value(serde_json::json!({ ANONYMOUS: {} })).ok()
        } else {
            None
        };
        let created = self.caller.call(ContainerCreate {
            name: Some(name.clone()),
            config: Box::new(ContainerConfig {
                image: Some(tag),
                cmd: Some(vec![
                    "sh".to_owned(),
                    "-c".to_owned(),
                    // A commit has something to keep.
                    format!("{write}echo {token:08} > /changed; exit {exit_code}"),
                ]),
                volumes,
                labels: Some(
                    [
                        ("exit".to_owned(), exit_code.to_string()),
                        ("token".to_owned(), format!("{token:08}")),
                    ]
                    .into(),
                ),
                ..ContainerConfig::default()
            }),
            host_config: Box::new(HostConfig {
                binds: named.map(|volume| vec![format!("{volume}:{NAMED}")]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            networks: BTreeMap::new(),
        })?;
        self.model.ids.insert(created.id.clone());
        let mut made = Made {
            id: Some(created.id.clone()),
            ..made
        };
        self.settle_container(&name, Some(made.clone()));
        let container = self.caller.call(ContainerInspect {
            container: created.id,
        })?;
        // The tag may have moved between the look and the call.
        made.image.clone_from(&container.image_id);
        made.volumes = Some(anonymous_volumes(&container));
        self.settle_container(&name, Some(made));
        Ok(())
    }

    fn settle_container(&mut self, name: &str, made: Option<Made>) {
        let slot = self.model.containers.entry(name.to_owned());
        slot.or_insert_with(|| Slot::new(None)).settle(made);
    }

    /// Starts a container and waits for its end, which is as it was told to be.
    fn run(&mut self) -> Called<()> {
        let Some((name, mut made)) = self.some_container() else {
            return Ok(());
        };
        let container = self.caller.call(ContainerInspect {
            container: name.clone(),
        })?;
        let label = |label: &str| {
            let labels = container.config.labels.as_ref();
            labels
                .and_then(|labels| labels.get(label))
                .cloned()
                .unwrap_or_default()
        };
        self.model.running = Some(name.clone());
        self.model.ran = Some(name.clone());
        let token = made.named.clone();
        if let Some(slot) = token
            .as_ref()
            .and_then(|name| self.model.tokens.get_mut(name))
        {
            slot.pending = Some(Some(label("token")));
        }
        let ((), mut wait) = self.caller.open(ContainerWait {
            container: name.clone(),
            condition: WaitCondition::NextExit,
        })?;
        if let Err(error) = self.caller.call(ContainerStart {
            container: name.clone(),
        }) {
            if matches!(error, CallError::Refused(_)) {
                // A start that failed is kept as an end, as Docker does.
                let container = self.caller.call(ContainerInspect {
                    container: name.clone(),
                })?;
                made.exit_code = ended(&container);
                self.settle_container(&name, Some(made));
            }
            return Err(error);
        }
        let result: WaitResult = receive(&mut wait)?;
        if result.exit_code.to_string() != label("exit") {
            self.report.unexpected.push(format!(
                "container {name} ended with {} instead of {}: {:?} {}",
                result.exit_code,
                label("exit"),
                result.error,
                std::fs::read_to_string(&container.log_path).unwrap_or_default()
            ));
        } else if let Some(slot) = token.and_then(|name| self.model.tokens.get_mut(&name)) {
            slot.settle(Some(label("token")));
        }
        made.exit_code = Some(result.exit_code);
        self.settle_container(&name, Some(made));
        Ok(())
    }

    fn rename(&mut self) -> Called<()> {
        let Some((from, made)) = self.some_container() else {
            return Ok(());
        };
        let to = self.name("container", CONTAINERS);
        if to == from {
            return Ok(());
        }
        let target = self.model.containers.entry(to.clone());
        let target = target.or_insert_with(|| Slot::new(None));
        if target.known.is_none() {
            target.pending = Some(Some(made.clone()));
            if let Some(slot) = self.model.containers.get_mut(&from) {
                slot.pending = Some(None);
            }
            self.model.renamed = Some((from.clone(), to.clone()));
        }
        self.caller.call(ContainerRename {
            container: from.clone(),
            name: to.clone(),
        })?;
        self.settle_container(&from, None);
        self.settle_container(&to, Some(made));
        Ok(())
    }

    fn remove(&mut self) -> Called<()> {
        let Some((name, made)) = self.some_container() else {
            return Ok(());
        };
        let Some(anonymous) = made.volumes else {
            return Ok(());
        };
        let volumes = self.random.bool();
        if let Some(slot) = self.model.containers.get_mut(&name) {
            slot.pending = Some(None);
        }
        if !volumes {
            self.model.doubtful.extend(anonymous.iter().cloned());
        }
        self.caller.call(ContainerRemove {
            container: name.clone(),
            force: self.random.bool(),
            volumes,
        })?;
        if !volumes {
            self.model.kept.extend(anonymous);
        }
        self.model.doubtful.clear();
        self.settle_container(&name, None);
        Ok(())
    }
}

/// The exit code of a container that ran.
pub(crate) fn ended(container: &guest_protocol::container::Container) -> Option<i64> {
    (container.state.status == Status::Exited).then_some(container.state.exit_code)
}

/// Names of a container's volumes that the agent invented.
pub(crate) fn anonymous_volumes(container: &guest_protocol::container::Container) -> Vec<String> {
    container
        .mounts
        .iter()
        .filter(|mount| mount.destination.as_deref() == Some(ANONYMOUS))
        .filter_map(|mount| mount.name.clone())
        .collect()
}

/// Whether a worker that knows what it does can be told this: others remove images
/// under it, and names are taken.
fn is_expected(error: &AgentError) -> bool {
    matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound)
}
