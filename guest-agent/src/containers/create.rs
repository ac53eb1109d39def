//! Making a container: the image's configuration under the user's, defaults,
//! a name, a record.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, ContainerState},
    docker::{ContainerConfig, EndpointSettings, HostConfig, RestartPolicyNameEnum},
    image::Image,
    methods::ContainerCreated,
};

use super::{
    Containers, Entry, Record, defaults, health, log_limits, names, networks::check_name_servers,
    signal::SignalNumber, spec, volumes::Attached,
};
use crate::{
    clock,
    error::{Context, Result},
    identity::new_id,
    volumes::Hold,
};

impl Containers {
    /// Makes a container.
    ///
    /// # Errors
    /// When the image is not there, the name is taken, or something that is asked
    /// for cannot be had.
    pub(crate) fn create(
        &self,
        name: Option<&str>,
        mut config: ContainerConfig,
        mut host: HostConfig,
        networks: BTreeMap<String, EndpointSettings>,
    ) -> Result<ContainerCreated> {
        let reference = config
            .image
            .clone()
            .filter(|image| !image.is_empty())
            .ok_or_else(|| AgentError::invalid("no image was given"))?;
        let image = self.shared.images.resolve(&reference)?;
        merge_image(&mut config, &image)?;
        defaults::check(&config, &host)?;
        let mut warnings = defaults::fill(&mut host);
        let (path, args) = command(&config)?;
        if let Some(signal) = &config.stop_signal {
            SignalNumber::parse(signal)?;
        }
        let folder = config.working_dir.as_deref().unwrap_or_default();
        if !folder.is_empty() && !folder.starts_with('/') {
            return Err(AgentError::invalid(format!(
                "the working directory '{folder}' is invalid, it needs to be an absolute path"
            )));
        }
        health::check(config.healthcheck.as_ref())?;
        check_restart_policy(&host)?;
        spec::check(&host)?;
        warnings.extend(spec::resources::weight_warning(&host));
        for (kind, mode) in spec::shared_namespaces(&host) {
            if let Some(other) = mode.strip_prefix("container:") {
                let other = self.find(other)?.container();
                if kind == "network" {
                    config.hostname = Some(spec::hostname(&other));
                    config.domainname = other.config.domainname;
                }
            }
        }
        check_name_servers(&host)?;
        self.check_links(&host)?;
        let networks = self.asked_networks(&host, networks)?;
        let mounts = spec::volumes::requests(&config, &host, |other| self.mounts_of(other))?;
        let mounts = self.attach_volumes(mounts)?;

        let platform = platform_of(&image.configuration);
        let id = new_id()?;
        let mut container = Container {
            created: clock::now(),
            image: reference,
            image_id: image.id,
            path,
            args,
            log_path: self.shared.paths.log(&id).to_string_lossy().into_owned(),
            platform: "linux".to_owned(),
            state: ContainerState::default(),
            config,
            host_config: host,
            networks,
            id,
            ..Container::default()
        };
        log_limits(&container).map_err(AgentError::invalid)?;
        container.config.hostname = Some(spec::first_hostname(&container));
        container.name = self.reserve_name(name, &container.id)?;
        let result = self.keep(container, mounts);
        match result {
            Ok((id, name)) => {
                tracing::info!("container {name} ({}) created", &id[..12]);
                Ok(ContainerCreated {
                    id,
                    warnings,
                    platform,
                })
            }
            Err((error, id, name)) => {
                self.index().names.remove(&name);
                self.delete_folder(&id);
                Err(error)
            }
        }
    }

    /// Makes the container's folder, and its record last.
    fn keep(
        &self,
        mut container: Container,
        mounts: Attached,
    ) -> std::result::Result<(String, String), (AgentError, String, String)> {
        let (id, name) = (container.id.clone(), container.name.clone());
        let folder = self.shared.paths.container(&id);
        let make = || -> Result<()> {
            container.mounts = mounts.points;
            std::fs::create_dir_all(&folder)
                .and_then(|()| spec::files::write_missing(&container, &folder))
                .context("cannot write the container's files")?;
            let record = Record {
                networks: container.networks.clone(),
                container,
                mount_details: mounts.details,
                ..Record::default()
            };
            self.keep_durably(&record, &folder, &mounts.holds)?;
            mounts.holds.iter().for_each(Hold::claimed);
            let entry = Entry::new(record);
            self.index().entries.insert(entry.id.clone(), entry.clone());
            self.tell(&entry, "create", &[]);
            Ok(())
        };
        match make() {
            Ok(()) => Ok((id, name)),
            Err(error) => Err((error, id, name)),
        }
    }

    /// Keeps the record of a new container, and the folders that it names: all of it
    /// is on disk when this returns.
    fn keep_durably(&self, record: &Record, folder: &Path, volumes: &[Hold]) -> Result<()> {
        let keep = || {
            self.shared.records.put_and(record, |transaction| {
                volumes
                    .iter()
                    .try_for_each(|volume| volume.claim_in(transaction))
            })
        };
        if record.container.host_config.auto_remove == Some(true) {
            // Gone after a power cut once it ran, and empty before.
            return keep();
        }
        // The folder was made last: what ext4 journaled before, its volumes and its
        // own name among them, is written with it. Beside the record rather than
        // before it: of a record that is there first, the next boot makes the folder.
        let sync = || std::fs::File::open(folder)?.sync_all();
        let (kept, synced) = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let synced = scope.spawn(sync);
                (keep(), synced.join())
            })
        });
        let synced = synced
            .unwrap_or_else(|_| Err(io::Error::other("the thread that writes it panicked")))
            .context("cannot write the container's folder");
        if kept.is_ok() && synced.is_err() {
            self.shared.records.remove(&record.container.id)?;
        }
        kept.and(synced)
    }

    /// Takes `wanted`, or a new name, for `id`.
    fn reserve_name(&self, wanted: Option<&str>, id: &str) -> Result<String> {
        let mut index = self.index();
        let name = match wanted.filter(|name| !name.is_empty()) {
            Some(name) => names::check(name)?.to_owned(),
            None => names::invent(|name| index.names.contains_key(name))?,
        };
        if let Some(owner) = index.names.get(&name) {
            return Err(name_conflict(&name, owner));
        }
        index.names.insert(name.clone(), id.to_owned());
        Ok(name)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When the name is taken or is none.
    pub(crate) async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let name = names::check(name)?.to_owned();
        let old = entry.record().container.name.clone();
        if old == name {
            return Err(AgentError::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        {
            let mut index = self.index();
            if let Some(owner) = index.names.get(&name) {
                return Err(name_conflict(&name, owner));
            }
            index.names.insert(name.clone(), entry.id.clone());
        }
        let kept = self.change(&entry, |record| record.container.name.clone_from(&name));
        self.index()
            .names
            .remove(if kept.is_ok() { &old } else { &name });
        kept?;
        self.shared.networks.rename(&entry.id, &name);
        self.tell(&entry, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}

fn name_conflict(name: &str, owner: &str) -> AgentError {
    AgentError::new(
        ErrorKind::Conflict,
        format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        ),
    )
}

/// Puts the image's configuration under the user's, by Docker's rules.
fn merge_image(config: &mut ContainerConfig, image: &Image) -> Result<()> {
    let under = match image.configuration.get("config") {
        Some(value) if !value.is_null() => serde_json::from_value::<ContainerConfig>(value.clone())
            .context(format_args!(
                "the configuration of image {} is not understood",
                image.id
            ))?,
        _ => ContainerConfig::default(),
    };
    fill(&mut config.user, under.user, String::is_empty);
    fill(&mut config.working_dir, under.working_dir, String::is_empty);
    fill(&mut config.stop_signal, under.stop_signal, String::is_empty);
    config.healthcheck = health::merge(config.healthcheck.take(), under.healthcheck);
    fill(&mut config.shell, under.shell, Vec::is_empty);
    merge(&mut config.exposed_ports, under.exposed_ports);
    merge(&mut config.volumes, under.volumes);
    merge(&mut config.labels, under.labels);

    let mut env = under.env.unwrap_or_default();
    spec::merge_environment(&mut env, config.env.iter().flatten());
    config.env = Some(env);

    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = under.cmd;
        }
        if config.entrypoint.is_none() {
            config.entrypoint = under.entrypoint;
        }
    }
    Ok(())
}

fn fill<T>(slot: &mut Option<T>, from: Option<T>, is_empty: impl Fn(&T) -> bool) {
    if slot.as_ref().is_none_or(is_empty) && from.is_some() {
        *slot = from;
    }
}

fn merge<T>(slot: &mut Option<HashMap<String, T>>, from: Option<HashMap<String, T>>) {
    if let Some(from) = from {
        let map = slot.get_or_insert_default();
        for (key, value) in from {
            map.entry(key).or_insert(value);
        }
    }
}

/// The program and its arguments.
fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let entrypoint = config.entrypoint.as_deref().unwrap_or_default();
    // `--entrypoint ""` takes the image's away.
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let mut all = entrypoint
        .iter()
        .chain(config.cmd.iter().flatten())
        .cloned();
    match all.next() {
        Some(program) => Ok((program, all.collect())),
        None => Err(AgentError::invalid("no command specified")),
    }
}

pub(super) fn check_restart_policy(host: &HostConfig) -> Result<()> {
    let Some(policy) = &host.restart_policy else {
        return Ok(());
    };
    let restarts = !matches!(
        policy.name,
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO)
    );
    if restarts && host.auto_remove == Some(true) {
        return Err(AgentError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    let retries = policy.maximum_retry_count.unwrap_or(0);
    if retries != 0 && policy.name != Some(RestartPolicyNameEnum::ON_FAILURE) {
        return Err(AgentError::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if retries < 0 {
        return Err(AgentError::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        ));
    }
    Ok(())
}

/// What an image was made for, by its configuration.
fn platform_of(configuration: &serde_json::Value) -> String {
    let parts: Vec<&str> = ["os", "architecture", "variant"]
        .iter()
        .filter_map(|key| configuration.get(key)?.as_str())
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn merged(user: &serde_json::Value, image: &serde_json::Value) -> ContainerConfig {
        let mut config = ContainerConfig::deserialize(user).unwrap();
        let image = Image {
            configuration: json!({ "config": image }),
            ..Image::default()
        };
        merge_image(&mut config, &image).unwrap();
        config
    }

    fn run(user: &serde_json::Value) -> Result<(String, Vec<String>)> {
        command(&merged(
            user,
            &json!({"Entrypoint": ["/entry"], "Cmd": ["a", "b"]}),
        ))
    }

    #[test]
    fn entrypoint_and_command_combine_as_in_docker() {
        let own = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            run(&json!({})).unwrap(),
            ("/entry".into(), own(&["a", "b"]))
        );
        assert_eq!(
            run(&json!({"Cmd": ["c"]})).unwrap(),
            ("/entry".into(), own(&["c"]))
        );
        assert_eq!(
            run(&json!({"Entrypoint": ["/x"]})).unwrap(),
            ("/x".into(), own(&[]))
        );
        assert_eq!(
            run(&json!({"Entrypoint": [""], "Cmd": ["c", "d"]})).unwrap(),
            ("c".into(), own(&["d"]))
        );
        assert!(run(&json!({"Entrypoint": [""]})).is_err());
    }

    #[test]
    fn the_users_configuration_lies_over_the_images() {
        let config = merged(
            &json!({"Env": ["A=user"], "Labels": {"x": "user"}, "User": ""}),
            &json!({"Env": ["A=image", "B=image"], "Labels": {"x": "image", "y": "image"},
                   "User": "app", "WorkingDir": "/srv"}),
        );
        assert_eq!(config.env.unwrap(), ["A=user", "B=image"]);
        assert_eq!(config.labels.unwrap()["x"], "user");
        assert_eq!(config.user.as_deref(), Some("app"));
        assert_eq!(config.working_dir.as_deref(), Some("/srv"));
    }
}
