//! Every call a host can make, with its reply and what follows it.
//!
//! [`Request`] is what travels; each method is a type of its own that knows its
//! reply ([`Method::Reply`]), so a caller cannot mix them up. Each
//! module has those of one subject; what some of them answer with is in `replies`.

#[macro_use]
mod method;
mod containers;
mod files;
mod images;
mod machine;
mod networks;
mod ports;
mod replies;
mod stdio;
mod volumes;

use serde::{Deserialize, Serialize};

pub use self::method::Method;
pub use self::replies::{
    Attached, Committed, ContainerCreated, DiskUsage, ExecCreated, LayerArchive, LayerImported,
    LayerWanted, NetworkCreated, NewLayer, ProcessList, WaitCondition, WaitResult,
};

requests! {
    containers {
        ContainerCreate, ContainerStart, ContainerStop, ContainerRestart, ContainerKill,
        ContainerRemove, ContainerRename, ContainerInspect, ContainerList, ContainerWait,
        ContainerTop, ContainerPause, ContainerUnpause, ContainerUpdate, ContainerStats,
        ContainerChanges, ContainerSizes,
    }
    files {
        ContainerPathStat, ContainerArchiveGet, ContainerArchivePut, ContainerExport,
        ContainerCommit, LayerImportNew,
    }
    images {
        LayersMissing, LayerImport, ImageCreate, ImageList, ImageInspect, ImageTag,
        ImageRemove, ImageDocuments, ImageSave, ImageLoad, LayerExport, LayerBlobsKeep,
        LayerBlobs, ImagePushed, ImagesDiskUsage,
    }
    machine {
        MachineInfo, SetTime, DiskGrow, MachineLogs, MachineShell, EmulatorInstall, Events,
        Pruned,
    }
    networks {
        NetworkCreate, NetworkList, NetworkInspect, NetworkRemove, NetworkConnect,
        NetworkDisconnect,
    }
    ports {
        ContainerPorts, ContainerStartFailed, Forward, ListeningSockets,
    }
    stdio {
        ContainerAttach, ContainerLogs, ContainerResize, ExecCreate, ExecStart, ExecInspect,
        ExecResize,
    }
    volumes {
        VolumeCreate, VolumeList, VolumeInspect, VolumeUsage, VolumeRemove, VolumeBackup,
        VolumeRestore,
    }
}

#[cfg(test)]
mod tests;
