//! Images for other architectures: brings the machine an emulator that is installed
//! on this host.
//!
//! It is QEMU's user mode, a static executable: `qemu-aarch64-static` and its like,
//! of the folder that `DCTL_EMULATORS` names or else where distributions put it.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use guest_protocol::{
    AgentError, chunks,
    frame::{self, Reply},
    methods::{EmulatorInstall, LayerWanted},
};
use sha2::{Digest, Sha256};

use super::ImportError;
use crate::{
    agent::{Agent, CallError},
    registry::Platform,
};

/// Names the folder with emulators.
const FOLDER_VARIABLE: &str = "DCTL_EMULATORS";
/// Where distributions put them.
const FOLDERS: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/libexec/qemu-binfmt"];
/// The largest emulator, in bytes.
const MAX_SIZE: u64 = 128 * 1024 * 1024;

/// Makes the machine run programs of `platform`, if it does not by itself. Tells
/// whether it needs an emulator.
///
/// # Errors
/// [`ImportError::Platform`] when there is none, with what to do.
pub(crate) async fn emulate(agent: &Agent, platform: &Platform) -> Result<bool, ImportError> {
    let machine = Platform::of_machine();
    if platform.os() != machine.os() || machine.runs_natively(platform) {
        return Ok(false);
    }
    let architecture = platform.architecture().to_owned();
    let name = qemu_name(&architecture);
    let (program, digest) = tokio::task::spawn_blocking({
        let name = name.clone();
        move || find(&name)
    })
    .await
    .map_err(|error| ImportError::Invalid(error.to_string()))?
    .ok_or_else(|| {
        ImportError::Platform(format!(
            "the image is for {platform} and this machine is {machine}: to run it, install \
             {name} (Debian and Ubuntu: apt-get install qemu-user-static), or set \
             {FOLDER_VARIABLE} to a folder that has it"
        ))
    })?;
    let call = EmulatorInstall {
        architecture,
        digest,
    };
    let (wanted, mut guest) = agent.open(call).await?;
    if wanted == LayerWanted::Present {
        return Ok(true);
    }
    let broken = |source| CallError::connection("EmulatorInstall", source);
    let sent = async {
        chunks::write(&mut guest, &program).await?;
        chunks::end(&mut guest).await
    }
    .await;
    if let Err(error) = sent {
        tracing::warn!(%error, "the emulator was not taken");
    }
    let reply: Reply<()> = frame::read(&mut guest).await.map_err(broken)?;
    Result::<(), AgentError>::from(reply).map_err(CallError::from)?;
    Ok(true)
}

/// QEMU's name of the emulator.
fn qemu_name(architecture: &str) -> String {
    let word = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        "loong64" => "loongarch64",
        "mips64le" => "mips64el",
        other => other,
    };
    format!("qemu-{word}-static")
}

/// The emulator of this name, with its digest.
fn find(name: &str) -> Option<(Vec<u8>, String)> {
    let own = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    let folders: Vec<PathBuf> = match own {
        Some(folder) => vec![folder.into()],
        None => FOLDERS.iter().map(PathBuf::from).collect(),
    };
    folders.iter().find_map(|folder| read(&folder.join(name)))
}

fn read(path: &Path) -> Option<(Vec<u8>, String)> {
    let file = std::fs::File::open(path).ok()?;
    let mut program = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut program).ok()?;
    if !program.starts_with(b"\x7fELF") {
        tracing::warn!(path = %path.display(), "this is no emulator");
        return None;
    }
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&program)));
    Some((program, digest))
}
