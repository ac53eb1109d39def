//! Every call a host can make, with its reply and what follows it.
//!
//! [`Request`] is what travels; each method is a type of its own that knows its
//! reply ([`Method::Reply`]), so a caller cannot mix them up.

#[macro_use]
mod method;
mod replies;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    container::{Container, Exec, ExecConfig},
    docker::{
        ContainerConfig, ContainerUpdateBody, EndpointSettings, HostConfig, NetworkCreateRequest,
    },
    image::{
        Compression, Documents, Image, ImagesUsage, LayerBlob, LayerDescriptor, Origin, Removed,
    },
    machine,
    network::Network,
    port::{Forwarding, PublishedPort, Transport},
    stats::Sample,
    volume::{PathStat, Volume},
};

pub use self::method::Method;
pub use self::replies::{
    Attached, Committed, ContainerCreated, DiskUsage, ExecCreated, LayerArchive, LayerImported,
    LayerWanted, NetworkCreated, NewLayer, ProcessList, WaitCondition, WaitResult,
};

methods! {
    /// What the agent says of itself; also the way to see that it answers.
    MachineInfo {} -> machine::Info;

    /// Sets the guest's clock. The host calls it on every connect and after it
    /// has slept.
    SetTime {
        /// Unix time in nanoseconds.
        time: i64,
    } -> ();

    /// Grows the data disk's file system to its device, which the host made larger.
    DiskGrow {
        /// The device's new size in bytes; the agent waits until the kernel knows.
        size: u64,
    } -> ();

    /// The agent's log. After the reply: raw text until the end, or until the
    /// host closes when `follow`.
    MachineLogs {
        /// Go on with what is logged later.
        follow: bool,
        /// Only the last so many lines.
        tail: Option<u64>,
    } -> ();

    /// A shell in the agent's own namespaces, for diagnosis. After the reply the
    /// stream is that of [`ExecStart`]; its id serves [`ExecResize`] and
    /// [`ExecInspect`].
    MachineShell {
        /// What to run and how; an empty command is the guest's shell.
        config: ExecConfig,
    } -> ExecCreated;

    /// Of these layers, which are not on the data disk.
    LayersMissing {
        /// Digests of the layers' tars.
        diff_ids: Vec<String>,
    } -> Vec<String>;

    /// Brings one layer. The reply says whether the bytes are wanted. If so the
    /// host sends exactly `layer.size` bytes and reads a second reply, which is a
    /// [`Reply`](crate::frame::Reply) of [`LayerImported`], when the layer is
    /// unpacked, checked and on disk.
    LayerImport {
        /// The layer that comes.
        layer: LayerDescriptor,
    } -> LayerWanted;

    /// Makes an image of layers that are all there. One transaction: afterwards
    /// the image and its names exist, or nothing changed.
    ImageCreate {
        /// The image's configuration, byte for byte; its digest is the image's id.
        configuration: String,
        /// Media type of its manifest.
        manifest_media_type: String,
        /// Its manifest, byte for byte.
        manifest: String,
        /// Names to give it in familiar form: `busybox:latest`, `busybox@sha256:…`.
        references: Vec<String>,
        /// How it came to be.
        #[serde(default)]
        origin: Origin,
    } -> Image;

    /// All images.
    ImageList {} -> Vec<Image>;

    /// One image by name, digest, id or unambiguous prefix of its id.
    ImageInspect {
        /// How the user named it.
        reference: String,
    } -> Image;

    /// Gives an image one more name.
    ImageTag {
        /// How the user named the image.
        reference: String,
        /// The new name in familiar form.
        name: String,
    } -> ();

    /// Removes a name of an image; with its last name the image and the layers
    /// that nothing else uses.
    ImageRemove {
        /// How the user named it.
        reference: String,
        /// Also when stopped containers use it, or several names share its id.
        force: bool,
    } -> Vec<Removed>;

    /// The documents that an image is made of.
    ImageDocuments {
        /// How the user named it.
        reference: String,
    } -> Documents;

    /// Images as one archive, in the layouts of `docker save` and of OCI at once.
    /// After the reply: the archive in [`chunks`](crate::chunks), then a
    /// [`Reply`](crate::frame::Reply) of `()`.
    ImageSave {
        /// How the user named them. A name of a repository alone means all its tags.
        references: Vec<String>,
    } -> ();

    /// Makes images of an archive that [`ImageSave`], `docker save` or a tool that
    /// writes OCI layouts made. After the reply the host sends the archive in
    /// [`chunks`](crate::chunks); the agent sends a
    /// [`Reply`](crate::frame::Reply) of [`LoadStep`](crate::image::LoadStep) for
    /// each step, the last one `Done` or an error.
    ImageLoad {
        /// `os/architecture[/variant]`, normalised: what is taken of an index.
        platform: String,
    } -> ();

    /// A layer's tar, as it was before it was unpacked. After the reply: the tar in
    /// [`chunks`](crate::chunks), then a [`Reply`](crate::frame::Reply) of `()`,
    /// which is an error when the tar does not have its digest.
    LayerExport {
        /// Digest of the tar.
        diff_id: String,
    } -> LayerArchive;

    /// Remembers where layers are that are here.
    LayerBlobsKeep {
        /// The blobs.
        blobs: Vec<LayerBlob>,
    } -> ();

    /// Where these layers are known to be.
    LayerBlobs {
        /// Digests of the layers' tars.
        diff_ids: Vec<String>,
    } -> Vec<LayerBlob>;

    /// Notes that an image is in a registry. From now on it has this manifest.
    ImagePushed {
        /// How the user named it.
        reference: String,
        /// Its name with the manifest's digest: `localhost:5000/x@sha256:…`.
        name: String,
        /// Media type of the manifest.
        manifest_media_type: String,
        /// The manifest, byte for byte.
        manifest: String,
        /// Its layers as the registry has them.
        blobs: Vec<LayerBlob>,
    } -> ();

    /// What images take of the data disk.
    ImagesDiskUsage {} -> ImagesUsage;

    /// Brings a program that runs programs of another architecture. The reply says
    /// whether the bytes are wanted. If so the host sends them in
    /// [`chunks`](crate::chunks) and reads a second
    /// [`Reply`](crate::frame::Reply) of `()` when they are in use.
    EmulatorInstall {
        /// Docker's word for the architecture: `arm64`.
        architecture: String,
        /// Digest of the program, a static executable: `sha256:…`.
        digest: String,
    } -> LayerWanted;

    /// Makes a container.
    ContainerCreate {
        /// Its name; the agent invents one when there is none.
        name: Option<String>,
        /// The user's configuration, with `image` set; the agent merges the
        /// image's under it.
        config: Box<ContainerConfig>,
        /// What the user asks of the host.
        host_config: Box<HostConfig>,
        /// What it is to be in each network, by the network's name or id.
        #[serde(default)]
        networks: BTreeMap<String, EndpointSettings>,
    } -> ContainerCreated;

    /// Starts it. [`crate::ErrorKind::NotModified`] when it runs already.
    ContainerStart {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Notes which ports of the host lead to the container: those that are bound for
    /// its next run. They are kept with it.
    ContainerPorts {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// All of them.
        ports: Vec<PublishedPort>,
    } -> ();

    /// Notes that the host could not do its part of a start: as if the start itself
    /// had failed. Nothing, if the container runs all the same.
    ContainerStartFailed {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Why.
        message: String,
    } -> ();

    /// Connects to a port of a running container, in its network. After the reply, if
    /// it is [`Forwarding::Connected`]: for TCP the connection's bytes, raw, as
    /// `stream-relay` carries them; for UDP [`datagrams`](crate::datagrams) both ways,
    /// until the host closes.
    Forward {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Of which kind the port is.
        transport: Transport,
        /// The port.
        port: u16,
    } -> Forwarding;

    /// What containers listen on that share the machine's network. After the reply:
    /// one frame with all [`ListeningSocket`](crate::port::ListeningSocket)s now, and
    /// one with all of them each time that they change, bare rather than as replies,
    /// until the host closes.
    ListeningSockets {} -> ();

    /// Sends the stop signal, waits, then kills. Replies when it has ended;
    /// [`crate::ErrorKind::NotModified`] when it does not run.
    ContainerStop {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The signal by name or number, instead of its own stop signal.
        signal: Option<String>,
        /// Seconds before it is killed, instead of its own stop timeout; -1 for
        /// never.
        timeout: Option<i64>,
    } -> ();

    /// Stops it if it runs, and starts it.
    ContainerRestart {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// As for [`ContainerStop`].
        signal: Option<String>,
        /// As for [`ContainerStop`].
        timeout: Option<i64>,
    } -> ();

    /// Sends it a signal. After SIGKILL it replies when the container has ended.
    ContainerKill {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// By name, with or without `SIG`, or by number; empty for SIGKILL.
        signal: String,
    } -> ();

    /// Removes it.
    ContainerRemove {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Kill it first if it runs.
        force: bool,
        /// Also its anonymous volumes.
        volumes: bool,
    } -> ();

    /// Gives it another name.
    ContainerRename {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The new name.
        name: String,
    } -> ();

    /// One container.
    ContainerInspect {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> Container;

    /// All containers, newest first.
    ContainerList {} -> Vec<Container>;

    /// Waits for it. The first reply says that the wait is registered; a second,
    /// a [`Reply`](crate::frame::Reply) of [`WaitResult`], comes when the condition
    /// is met.
    ContainerWait {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to wait for.
        condition: WaitCondition,
    } -> ();

    /// Joins its stdio. After the reply the stream is Docker's: with a TTY raw
    /// bytes; otherwise host-bound bytes come in 8-byte-header frames
    /// (`[1|2,0,0,0,length]`). Guest-bound bytes are stdin, raw; the host's
    /// half-close ends stdin when the container has `StdinOnce`.
    /// Registered before the reply: a start that follows it loses nothing.
    ContainerAttach {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Carry stdin.
        stdin: bool,
        /// Carry stdout.
        stdout: bool,
        /// Carry stderr.
        stderr: bool,
        /// First what was logged so far.
        logs: bool,
        /// Then what comes; without it the stream ends after the logs.
        stream: bool,
        /// Key sequence that detaches, Docker's syntax; empty for the default.
        detach_keys: String,
    } -> Attached;

    /// Its log. After the reply the stream is as for [`ContainerAttach`].
    ContainerLogs {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Go on until it ends.
        follow: bool,
        /// Include stdout.
        stdout: bool,
        /// Include stderr.
        stderr: bool,
        /// From this Unix time in nanoseconds on; zero for the beginning.
        since: i64,
        /// Up to this Unix time in nanoseconds; zero for the end.
        until: i64,
        /// A timestamp before each line.
        timestamps: bool,
        /// Only the last so many lines.
        tail: Option<u64>,
        /// The attributes that were logged with it before each line.
        #[serde(default)]
        details: bool,
    } -> Attached;

    /// Sets the size of its terminal; kept for the next start when it does not
    /// run yet.
    ContainerResize {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    } -> ();

    /// Its processes: titles and rows, as `ps` gives them.
    ContainerTop {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Options of `ps`: which columns. Empty for `-ef`.
        #[serde(default)]
        options: String,
    } -> ProcessList;

    /// Freezes its processes.
    ContainerPause {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Lets its processes go on.
    ContainerUnpause {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Changes its limits and its restart policy, now if it runs. The reply is what
    /// was ignored, for the user to read.
    ContainerUpdate {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to change; zero, empty and missing fields stay as they are.
        change: Box<ContainerUpdateBody>,
    } -> Vec<String>;

    /// What it uses now.
    ContainerStats {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> Sample;

    /// What differs between its root file system and its image. After the reply:
    /// [`chunks`](crate::chunks) with a JSON array of Docker's `FilesystemChange`.
    ContainerChanges {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// How much disk containers take, by id.
    ContainerSizes {
        /// Name, id or unambiguous prefix of one; all without it.
        container: Option<String>,
    } -> BTreeMap<String, DiskUsage>;

    /// Prepares a command to run in a running container.
    ExecCreate {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to run and how.
        config: ExecConfig,
    } -> ExecCreated;

    /// Runs it. The reply says that it can be; after it the stream is as for
    /// [`ContainerAttach`], and ends when the command's output does. Why it does not
    /// run after all is its output then. With `detach` there is no stream, and the
    /// reply comes when it runs.
    ExecStart {
        /// The exec's id.
        exec: String,
        /// Do not carry its stdio.
        detach: bool,
        /// Terminal size, \[height, width\].
        console_size: Option<[u16; 2]>,
    } -> Attached;

    /// One exec.
    ExecInspect {
        /// The exec's id.
        exec: String,
    } -> Exec;

    /// Sets the size of its terminal.
    ExecResize {
        /// The exec's id.
        exec: String,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    } -> ();

    /// What a path in a container is. Links in its last component are not followed.
    ContainerPathStat {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The path, absolute or from the container's root on.
        path: String,
    } -> PathStat;

    /// A path in a container, volumes included, as a tar. After the reply: the tar in
    /// [`chunks`](crate::chunks), then a [`Reply`](crate::frame::Reply) of `()`.
    ContainerArchiveGet {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// As for [`ContainerPathStat`].
        path: String,
    } -> PathStat;

    /// Unpacks a tar into a folder of a container, volumes included. The first reply
    /// accepts; the host sends the tar in [`chunks`](crate::chunks) and reads a second
    /// [`Reply`](crate::frame::Reply) of `()`, which may come before it has sent all.
    ContainerArchivePut {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The folder, which must exist.
        path: String,
        /// Fail rather than replace a folder by something else, or something else by
        /// a folder.
        keep_folders: bool,
        /// Give what is unpacked to the container's user.
        chown: bool,
    } -> ();

    /// A container's root file system, without its volumes, as a tar. The stream is
    /// as for [`ContainerArchiveGet`].
    ContainerExport {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Makes a layer of what a container changed in its root file system. The layer
    /// is kept for a while, for an image to be made of it ([`ImageCreate`]).
    ContainerCommit {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Freeze its processes meanwhile.
        pause: bool,
    } -> Committed;

    /// Makes a layer of a tar whose digest nobody knows yet. The first reply accepts;
    /// then as for [`ContainerArchivePut`], with a second
    /// [`Reply`](crate::frame::Reply) of [`NewLayer`].
    LayerImportNew {
        /// How what comes is compressed.
        compression: Compression,
    } -> ();

    /// Makes a volume; one that exists with the same driver and options is as good.
    VolumeCreate {
        /// Its name; the agent makes one up when there is none.
        name: Option<String>,
        /// Its driver: `local`, or empty for it.
        driver: String,
        /// Options of the driver.
        options: BTreeMap<String, String>,
        /// Labels.
        labels: BTreeMap<String, String>,
    } -> Volume;

    /// All volumes, by name.
    VolumeList {} -> Vec<Volume>;

    /// One volume.
    VolumeInspect {
        /// Its name.
        name: String,
    } -> Volume;

    /// Bytes that the files of a volume take on the disk.
    VolumeUsage {
        /// Its name.
        name: String,
    } -> u64;

    /// Removes a volume that no container has.
    VolumeRemove {
        /// Its name.
        name: String,
        /// No error when there is none.
        force: bool,
    } -> ();

    /// A volume's files as a tar. The stream is as for [`ContainerArchiveGet`].
    VolumeBackup {
        /// Its name.
        name: String,
    } -> ();

    /// Puts what a tar holds in place of a volume's files, all or nothing; makes the
    /// volume when there is none. The stream is as for [`ContainerArchivePut`]. A
    /// [`crate::ErrorKind::Conflict`] while a container that has it runs.
    VolumeRestore {
        /// Its name.
        name: String,
    } -> ();

    /// Makes a network.
    NetworkCreate {
        /// What it is to be.
        request: Box<NetworkCreateRequest>,
    } -> NetworkCreated;

    /// All networks, by name.
    NetworkList {} -> Vec<Network>;

    /// One network.
    NetworkInspect {
        /// Name, id or unambiguous prefix of it.
        network: String,
    } -> Network;

    /// Removes a network that no running container is in.
    NetworkRemove {
        /// Name, id or unambiguous prefix of it.
        network: String,
    } -> ();

    /// Brings a container into a network: now if it runs, else when it is started.
    NetworkConnect {
        /// Name, id or unambiguous prefix of it.
        network: String,
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What it is to be there.
        settings: Box<EndpointSettings>,
    } -> ();

    /// Takes a container out of a network.
    NetworkDisconnect {
        /// Name, id or unambiguous prefix of it.
        network: String,
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// What happens. After the reply: one frame for each
    /// [`Event`](crate::container::Event), bare rather than as a reply, until the
    /// host closes.
    Events {
        /// First what happened from this Unix time in nanoseconds on, as far as it
        /// is remembered; only what is yet to happen without it.
        #[serde(default)]
        since: Option<i64>,
        /// End at this Unix time in nanoseconds.
        #[serde(default)]
        until: Option<i64>,
    } -> ();
}

#[cfg(test)]
mod tests;
