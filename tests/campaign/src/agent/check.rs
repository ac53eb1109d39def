//! What is there after a kill, compared with the models.

mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use guest_protocol::{
    container::Container,
    image::Image,
    methods::{
        ContainerList, ContainerRemove, ImageList, ImageRemove, LayerExport, VolumeList,
        VolumeRemove,
    },
};

use super::{
    call::{CallError, Caller, receive_chunks},
    images::{Images, digest},
    model::{Made, Model, Slot},
    process::Agent,
    work::{anonymous_volumes, ended},
};
use crate::findings::Findings;

/// What goes away in the background has so long.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);
/// What an empty data folder may take beside the database, in bytes.
const EMPTY: u64 = 256 * 1024;
/// How a container ends that was running when the agent was killed.
const LOST: i64 = 137;

fn answered<T>(result: Result<T, CallError>) -> Result<T> {
    result.map_err(|error| match error {
        CallError::Refused(error) => anyhow!("the agent refuses to tell: {}", error.message),
        CallError::CutOff => anyhow!("the agent died by itself"),
    })
}

/// Compares what the agent says and what is in its data folder, and takes what is
/// there into the models.
pub(crate) fn check(
    agent: &Agent,
    images: &Images,
    models: &mut [Model],
    findings: &mut Findings,
) -> Result<()> {
    let caller = Caller::agent(&agent.socket());
    let listed = answered(caller.call(ImageList {}))?;
    let containers = answered(caller.call(ContainerList {}))?;
    check_tags(&listed, models, findings);
    check_containers(&containers, models, findings);
    volumes::check(&caller, models, findings)?;
    let committed: BTreeSet<String> = models
        .iter()
        .flat_map(|model| model.committed.iter().cloned())
        .collect();
    check_layers(agent, images, &committed, &listed, &containers, findings)?;
    check_folders(&agent.data(), &containers, models, findings);
    for model in models {
        model.forget_pending();
    }
    Ok(())
}

/// Compares what an agent says whose data folder is out of reach: in a machine.
/// Layers are read back and have their digests.
pub(crate) fn check_inside(
    caller: &Caller,
    models: &mut [Model],
    findings: &mut Findings,
) -> Result<()> {
    let listed = answered(caller.call(ImageList {}))?;
    let containers = answered(caller.call(ContainerList {}))?;
    check_tags(&listed, models, findings);
    check_containers(&containers, models, findings);
    volumes::check(caller, models, findings)?;
    for diff_id in diff_ids(&listed) {
        if let Some(wrong) = read_back(caller, diff_id)? {
            findings.add(format!("layer {diff_id}: {wrong}"));
        }
    }
    for model in models {
        model.forget_pending();
    }
    Ok(())
}

/// The layers of images.
fn diff_ids(listed: &[Image]) -> BTreeSet<&str> {
    listed
        .iter()
        .filter_map(|image| image.configuration["rootfs"]["diff_ids"].as_array())
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .collect()
}

/// Says what is wrong with a layer's tar, if something is.
fn read_back(caller: &Caller, diff_id: &str) -> Result<Option<String>> {
    let export = || {
        let (_, mut stream) = caller.open(LayerExport {
            diff_id: diff_id.to_owned(),
        })?;
        receive_chunks(&mut stream)
    };
    match export() {
        Ok(bytes) if digest(&bytes) == diff_id => Ok(None),
        Ok(_) => Ok(Some("its tar is another".to_owned())),
        Err(CallError::Refused(error)) => Ok(Some(error.message)),
        Err(CallError::CutOff) => Err(anyhow!("the agent died by itself")),
    }
}

fn check_tags(listed: &[Image], models: &mut [Model], findings: &mut Findings) {
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    for image in listed {
        for tag in &image.repo_tags {
            if let Some(other) = found.insert(tag, &image.id) {
                findings.add(format!("{tag} names {other} and {}", image.id));
            }
        }
    }
    for model in models {
        let now = |tag: &str| found.get(tag).map(|id| (*id).to_owned());
        let together: BTreeSet<bool> = model
            .together
            .iter()
            .filter_map(|tag| Some(model.tags.get(tag)?.pending == Some(now(tag))))
            .collect();
        if together.len() > 1 {
            findings.add(format!(
                "half of an image's names exist: {:?}",
                model.together
            ));
        }
        for (tag, slot) in &mut model.tags {
            let now = now(tag);
            if !slot.allows(&now) {
                findings.add(format!("{tag} is {now:?}, and was {slot:?}"));
            }
            slot.settle(now);
            owned.insert(tag.clone());
        }
    }
    for (tag, id) in found.into_iter().filter(|(tag, _)| !owned.contains(*tag)) {
        findings.add(format!("{tag}, {id}, is nobody's"));
    }
}

fn check_containers(containers: &[Container], models: &mut [Model], findings: &mut Findings) {
    let mut found: BTreeMap<&str, &Container> = containers
        .iter()
        .map(|container| (container.name.as_str(), container))
        .collect();
    for model in models {
        if let Some((from, to)) = &model.renamed
            && found.contains_key(from.as_str()) == found.contains_key(to.as_str())
        {
            findings.add(format!("of {from}, renamed {to}, one should exist"));
        }
        for (name, slot) in &mut model.containers {
            let now = found.remove(name.as_str());
            check_container(
                name,
                slot,
                now,
                model.running.as_ref() == Some(name),
                findings,
            );
            let made = now.map(|container| {
                model.ids.insert(container.id.clone());
                Made {
                    id: Some(container.id.clone()),
                    image: container.image_id.clone(),
                    exit_code: ended(container),
                    volumes: Some(anonymous_volumes(container)),
                    named: container
                        .mounts
                        .iter()
                        .find(|mount| mount.destination.as_deref() == Some("/named"))
                        .and_then(|mount| mount.name.clone()),
                }
            });
            slot.settle(made);
        }
    }
    for name in found.keys() {
        findings.add(format!("container {name} is nobody's"));
    }
}

fn check_container(
    name: &str,
    slot: &Slot<Option<Made>>,
    now: Option<&Container>,
    running: bool,
    findings: &mut Findings,
) {
    let allowed = [Some(&slot.known), slot.pending.as_ref()];
    let Some(container) = now else {
        if !allowed.contains(&Some(&None)) {
            findings.add(format!("container {name} is gone, and was {slot:?}"));
        }
        return;
    };
    let matching = allowed.into_iter().flatten().flatten().find(|made| {
        made.image == container.image_id && made.id.as_ref().is_none_or(|id| *id == container.id)
    });
    let Some(made) = matching else {
        findings.add(format!(
            "container {name} is {} of {}, and was {slot:?}",
            container.id, container.image_id
        ));
        return;
    };
    let exit_code = ended(container);
    if running {
        let label = container.config.labels.as_ref();
        let wanted = label.and_then(|labels| labels.get("exit")?.parse().ok());
        let fine = exit_code == made.exit_code
            || exit_code == Some(LOST)
            || exit_code.is_some() && exit_code == wanted;
        if !fine {
            findings.add(format!(
                "container {name}, killed with the agent: {exit_code:?}"
            ));
        }
    } else if exit_code != made.exit_code {
        findings.add(format!(
            "container {name} ended with {:?}, and now says {exit_code:?}",
            made.exit_code
        ));
    }
    if container.state.is_running() {
        findings.add(format!("container {name} runs, after its machine died"));
    }
}

/// Layers are those of images and of containers' images that were removed by force,
/// and each is as it was sent.
fn check_layers(
    agent: &Agent,
    images: &Images,
    committed: &BTreeSet<String>,
    listed: &[Image],
    containers: &[Container],
    findings: &mut Findings,
) -> Result<()> {
    let data = agent.data();
    let wanted = diff_ids(listed);
    // What an image that is not listed any more is made of is not told.
    let hidden = containers
        .iter()
        .any(|container| !listed.iter().any(|image| image.id == container.image_id));
    for diff_id in &wanted {
        let unpacked = data
            .join("layers")
            .join(diff_id.replace(':', "-"))
            .join("fs");
        let wrong = match images.by_diff_id(diff_id) {
            Some(layer) => layer.compare(&unpacked),
            None if committed.contains(*diff_id) => {
                read_back(&Caller::agent(&agent.socket()), diff_id)?
            }
            None => Some("nobody brought it".to_owned()),
        };
        if let Some(wrong) = wrong {
            findings.add(format!("layer {diff_id}: {wrong}"));
        }
    }
    let expected: BTreeSet<String> = wanted
        .iter()
        .map(|diff_id| diff_id.replace(':', "-"))
        .collect();
    let more = |name: &String| {
        let diff_id = name.replacen('-', ":", 1);
        hidden && (images.by_diff_id(&diff_id).is_some() || committed.contains(&diff_id))
    };
    check_names(&data.join("layers"), &expected, more, findings);
    check_names(&data.join("trash"), &BTreeSet::new(), |_| false, findings);
    Ok(())
}

fn check_folders(
    data: &Path,
    containers: &[Container],
    models: &mut [Model],
    findings: &mut Findings,
) {
    let ids = containers
        .iter()
        .map(|container| container.id.clone())
        .collect();
    check_names(&data.join("containers"), &ids, |_| false, findings);
    let trash = data.join("containers-trash");
    check_names(&trash, &BTreeSet::new(), |_| false, findings);
    let volumes: BTreeSet<String> = containers
        .iter()
        .flat_map(anonymous_volumes)
        .chain(models.iter().flat_map(|model| model.kept.iter().cloned()))
        .chain(models.iter().flat_map(volumes::there))
        .collect();
    let doubtful: BTreeSet<String> = models
        .iter()
        .flat_map(|model| model.doubtful.iter().chain(model.tokens.keys()).cloned())
        .collect();
    let folder = data.join("volumes");
    check_names(&folder, &volumes, |name| doubtful.contains(name), findings);
    for model in models {
        for volume in std::mem::take(&mut model.doubtful) {
            let has_container = containers
                .iter()
                .any(|container| anonymous_volumes(container).contains(&volume));
            if !has_container && folder.join(&volume).exists() {
                model.kept.insert(volume);
            }
        }
    }
}

/// A folder holds `expected`, may hold what `more` says, and nothing else: at once
/// what is expected, and the rest gone before long.
fn check_names(
    folder: &Path,
    expected: &BTreeSet<String>,
    more: impl Fn(&String) -> bool,
    findings: &mut Findings,
) {
    let found = names(folder);
    for missing in expected.difference(&found) {
        findings.add(format!("{missing} is missing in {}", folder.display()));
    }
    let deadline = Instant::now() + CLEARED_WITHIN;
    loop {
        let left: Vec<_> = names(folder)
            .into_iter()
            .filter(|name| !expected.contains(name) && !more(name))
            .collect();
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            for name in left {
                findings.add(format!("{name} is left in {}", folder.display()));
                // Told once.
                let _ = fs::remove_dir_all(folder.join(name));
            }
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes everything, and looks whether the space comes back.
pub(crate) fn nothing_is_left(agent: &Agent, findings: &mut Findings) -> Result<()> {
    let caller = Caller::agent(&agent.socket());
    for container in answered(caller.call(ContainerList {}))? {
        answered(caller.call(ContainerRemove {
            container: container.id,
            force: true,
            volumes: true,
        }))?;
    }
    for image in answered(caller.call(ImageList {}))? {
        answered(caller.call(ImageRemove {
            reference: image.id,
            force: true,
        }))?;
    }
    let data = agent.data();
    for volume in answered(caller.call(VolumeList {}))? {
        answered(caller.call(VolumeRemove {
            name: volume.name,
            force: false,
        }))?;
    }
    for folder in [
        "containers",
        "containers-trash",
        "trash",
        "volumes",
        "volumes-trash",
    ] {
        check_names(&data.join(folder), &BTreeSet::new(), |_| false, findings);
    }
    // Layers that a pull which was cut off brought may be wanted for its image.
    for name in names(&data.join("layers")) {
        if !name.starts_with("sha256-") {
            findings.add(format!("{name} is left in the layers"));
        }
    }
    let mut size = 0;
    for name in names(&data) {
        if !["state.redb", "layers", "volumes"].contains(&name.as_str()) {
            size += size_of(&data.join(name));
        }
    }
    if size > EMPTY {
        findings.add(format!("{size} bytes are left when all is removed"));
    }
    Ok(())
}

/// Bytes in all files below a folder.
fn size_of(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_of(&entry.path())).sum()
}
