//! What volumes hold, as the agent backs them up.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use anyhow::{Context, Result, anyhow};
use guest_protocol::{
    ErrorKind,
    methods::{VolumeBackup, VolumeList},
    volume::Volume,
};

use super::answered;
use crate::{
    agent::{
        call::{CallError, Caller, receive_chunks},
        model::{Model, Slot},
        work::{TOKEN, volumes::files},
    },
    findings::Findings,
};

/// Compares all volumes with the models.
pub(super) fn check(caller: &Caller, models: &mut [Model], findings: &mut Findings) -> Result<()> {
    let listed = answered(caller.call(VolumeList {}))?;
    let mut nobodys: BTreeSet<&str> = listed
        .iter()
        // Whose those are, their folders tell.
        .filter(|volume| !volume.is_anonymous())
        .map(|volume: &Volume| volume.name.as_str())
        .collect();
    for model in models {
        for (name, slot) in &mut model.tokens {
            nobodys.remove(name.as_str());
            // Made, and not written to yet, is as good as not made.
            let now = backup(caller, name)?
                .and_then(|files| text(files.get(TOKEN)?))
                .filter(|text| !text.is_empty());
            settle(name, slot, now, findings);
        }
        for (name, slot) in &mut model.volumes {
            nobodys.remove(name.as_str());
            let now = backup(caller, name)?.map(|found| {
                let token = found
                    .get(TOKEN)
                    .and_then(|contents| text(contents))
                    .unwrap_or_default();
                if found != files(&token) {
                    findings.add(format!("volume {name}, {token:?}, is not whole"));
                }
                token
            });
            settle(name, slot, now, findings);
        }
    }
    for name in nobodys {
        findings.add(format!("volume {name} is nobody's"));
    }
    Ok(())
}

/// The volumes without containers that there are.
pub(super) fn there(model: &Model) -> impl Iterator<Item = String> {
    model
        .volumes
        .iter()
        .filter(|(_, slot)| slot.known.is_some())
        .map(|(name, _)| name.clone())
}

fn settle(
    name: &str,
    slot: &mut Slot<Option<String>>,
    now: Option<String>,
    findings: &mut Findings,
) {
    if !slot.allows(&now) {
        findings.add(format!("volume {name} holds {now:?}, and held {slot:?}"));
    }
    slot.settle(now);
}

fn text(contents: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(contents).ok()?;
    Some(text.trim().to_owned())
}

/// The regular files of a volume by name; `None` when there is no such volume.
fn backup(caller: &Caller, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let archive = caller
        .open(VolumeBackup {
            name: name.to_owned(),
        })
        .and_then(|((), mut stream)| receive_chunks(&mut stream));
    let archive = match archive {
        Ok(archive) => archive,
        Err(CallError::Refused(error)) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(CallError::Refused(error)) => {
            return Err(anyhow!("volume {name} is not backed up: {}", error.message));
        }
        Err(CallError::CutOff) => return Err(anyhow!("the agent died by itself")),
    };
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive.as_slice()).entries()? {
        let mut entry = entry.with_context(|| format!("the backup of {name}"))?;
        if entry.header().entry_type().is_file() {
            let path = entry.path()?.to_string_lossy().into_owned();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents)?;
            files.insert(path.trim_start_matches("./").to_owned(), contents);
        }
    }
    Ok(Some(files))
}
