//! Volumes and other mounts: `--volume`, `--mount`, `--volumes-from`.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, Mount, MountBindOptions, MountTmpfsOptions, MountTypeEnum,
    MountVolumeOptions, MountVolumeOptionsDriverConfig,
};
use clap::Args;

use super::{bind, list};
use crate::options::resources;

/// Mounts of a new container.
#[derive(Debug, Args)]
pub(super) struct MountOptions {
    /// Attach a filesystem mount to the container: type=bind,source=PATH,target=PATH,
    /// type=volume,source=NAME,target=PATH and so on
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    mount: Vec<Mount>,
    /// Mount a volume, or a file or directory of this host
    #[arg(short, long, value_name = "[NAME|PATH:]PATH[:OPTIONS]", value_parser = bind::volume)]
    volume: Vec<String>,
    /// Mount volumes from the specified containers
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
}

impl MountOptions {
    /// Puts them into what is asked of the host.
    pub(super) fn put(&self, host: &mut HostConfig) {
        let binds: Vec<String> = self
            .volume
            .iter()
            .filter(|volume| !is_anonymous(volume))
            .cloned()
            .collect();
        host.binds = list(&binds);
        host.mounts = list(&self.mount);
        host.volumes_from = list(&self.volumes_from);
    }

    /// Puts volumes without a name where they are said, in the container itself.
    #[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
    pub(super) fn put_anonymous(&self, body: &mut ContainerCreateBody) {
        let paths: HashMap<_, _> = self
            .volume
            .iter()
            .filter(|volume| is_anonymous(volume))
            .map(|volume| (volume.clone(), HashMap::new()))
            .collect();
        if !paths.is_empty() {
            body.volumes = Some(paths);
        }
    }
}

fn is_anonymous(volume: &str) -> bool {
    !volume.contains(':')
}

/// `type=volume,source=name,target=/path,…`, as comma-separated values.
fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        typ: Some(MountTypeEnum::VOLUME),
        ..Mount::default()
    };
    let mut of_host = MountBindOptions::default();
    let mut volume = MountVolumeOptions::default();
    let mut driver = MountVolumeOptionsDriverConfig::default();
    let mut tmpfs = MountTmpfsOptions::default();
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), value.to_owned()),
            // Switches need no value.
            None => match field.to_ascii_lowercase().as_str() {
                key @ ("readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive") => {
                    (key.to_owned(), "true".to_owned())
                }
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        };
        let switch = || match value.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(format!("invalid value for {key}: {value}")),
        };
        match key.as_str() {
            "type" => {
                mount.typ = Some(match value.to_ascii_lowercase().as_str() {
                    "volume" => MountTypeEnum::VOLUME,
                    "tmpfs" => MountTypeEnum::TMPFS,
                    "bind" => MountTypeEnum::BIND,
                    "image" => MountTypeEnum::IMAGE,
                    "npipe" => MountTypeEnum::NPIPE,
                    "cluster" => MountTypeEnum::CLUSTER,
                    _ => return Err(format!("invalid mount type: {value}")),
                });
            }
            "source" | "src" => mount.source = Some(bind::source(&value)?),
            "target" | "dst" | "destination" => mount.target = Some(value),
            "readonly" | "ro" => mount.read_only = Some(switch()?),
            "consistency" => mount.consistency = Some(value.to_ascii_lowercase()),
            "volume-nocopy" => volume.no_copy = Some(switch()?),
            "volume-subpath" => volume.subpath = Some(value),
            "volume-driver" => driver.name = Some(value),
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((&value, ""));
                let labels = volume.labels.get_or_insert_default();
                labels.insert(name.to_owned(), value.to_owned());
            }
            "volume-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((&value, ""));
                let options = driver.options.get_or_insert_default();
                options.insert(name.to_owned(), value.to_owned());
            }
            "tmpfs-size" => tmpfs.size_bytes = Some(resources::bytes(&value)?),
            "tmpfs-mode" => {
                let mode = i64::from_str_radix(&value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs.mode = Some(mode);
            }
            key if bind::set(&mut of_host, key, &value)? => {}
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err("target is required".into());
    }
    if driver != MountVolumeOptionsDriverConfig::default() {
        volume.driver_config = Some(driver);
    }
    let (for_bind, for_volume, for_tmpfs) = (
        of_host != MountBindOptions::default(),
        volume != MountVolumeOptions::default(),
        tmpfs != MountTmpfsOptions::default(),
    );
    if for_bind && mount.typ != Some(MountTypeEnum::BIND) {
        return Err("cannot mix 'bind-*' options with another type of mount".into());
    }
    if for_volume && mount.typ != Some(MountTypeEnum::VOLUME) {
        return Err("cannot mix 'volume-*' options with another type of mount".into());
    }
    if for_tmpfs && mount.typ != Some(MountTypeEnum::TMPFS) {
        return Err("cannot mix 'tmpfs-*' options with another type of mount".into());
    }
    bind::check(&of_host, mount.read_only == Some(true))?;
    mount.bind_options = for_bind.then_some(of_host);
    mount.volume_options = for_volume.then_some(volume);
    mount.tmpfs_options = for_tmpfs.then_some(tmpfs);
    Ok(mount)
}

/// Comma-separated values; quotes keep commas, doubled ones stand for one.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(character),
        }
    }
    fields.push(field);
    if quoted {
        return Err(format!("invalid mount '{text}': a quote is not closed"));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_as_docker_does() {
        let mount =
            mount("type=volume,src=store,dst=/x,readonly,volume-nocopy,\"volume-opt=o=a,b\",volume-label=k=v,volume-subpath=s")
                .unwrap();
        assert_eq!(mount.source.as_deref(), Some("store"));
        assert_eq!(mount.target.as_deref(), Some("/x"));
        assert_eq!(mount.read_only, Some(true));
        let volume = mount.volume_options.unwrap();
        assert_eq!(volume.no_copy, Some(true));
        assert_eq!(volume.subpath.as_deref(), Some("s"));
        assert_eq!(volume.labels.unwrap()["k"], "v");
        assert_eq!(volume.driver_config.unwrap().options.unwrap()["o"], "a,b");
    }

    #[test]
    fn a_bind_mount_has_its_options() {
        let text = "type=bind,src=/a,dst=/x,ro,bind-propagation=RSLAVE,bind-nonrecursive";
        let mount = mount(text).unwrap();
        assert_eq!(mount.typ, Some(MountTypeEnum::BIND));
        let options = mount.bind_options.unwrap();
        assert_eq!(options.non_recursive, Some(true));
        assert_eq!(options.propagation.unwrap().to_string(), "rslave");
    }

    #[test]
    fn a_tmpfs_has_size_and_mode() {
        let mount = mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let tmpfs = mount.tmpfs_options.unwrap();
        assert_eq!(
            (tmpfs.size_bytes, tmpfs.mode),
            (Some(1 << 20), Some(0o1770))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "type=volume",
            "target",
            "type=what,target=/x",
            "target=/x,readonly=maybe",
            "target=/x,color=red",
            "target=/x,bind-propagation=shared",
            "type=bind,target=/x,bind-propagation=up",
            "type=bind,target=/x,bind-what=1",
            "type=tmpfs,target=/x,volume-nocopy",
            "target=/x,tmpfs-size=1m",
            "target=/x,\"open",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
