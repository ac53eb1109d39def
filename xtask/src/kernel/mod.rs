//! The guest's kernel: Debian's source, the patches and fragments in
//! `guest-kernel-config/`, and a build that gives the same bytes for the same inputs.
//!
//! A configuration takes seconds, a build minutes; both are cached by the hash of
//! the source, the patches, the fragments, the tools and this recipe.

mod config;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache::{Key, Places};
use crate::process;

/// Debian's package of the source. The next series is a change to review, so
/// the name says which.
const SOURCE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// Changes when what this file does to the same inputs changes.
const RECIPE: &str = "1";

/// The kernel says who built it, where and when; these are fixed.
const IDENTITY: [(&str, &str); 4] = [
    ("KBUILD_BUILD_USER", "dctl"),
    ("KBUILD_BUILD_HOST", "dctl"),
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 2026"),
    ("SOURCE_DATE_EPOCH", "1767225600"),
];

/// A guest's architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Its name, which is its folder's in `guest-kernel-config/`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The kernel's own name of it.
    fn kernel_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// The prefix of the tools that build for it.
    fn tools(self) -> &'static str {
        if self.name() == std::env::consts::ARCH {
            return "";
        }
        match self {
            Self::X86_64 => "x86_64-linux-gnu-",
            Self::Aarch64 => "aarch64-linux-gnu-",
        }
    }

    /// What is built, as a path in the build's directory.
    fn image(self) -> &'static str {
        match self {
            Self::X86_64 => "vmlinux",
            Self::Aarch64 => "arch/arm64/boot/Image",
        }
    }
}

/// A kernel's complete configuration.
pub(crate) struct Configuration {
    /// The `.config`.
    pub(crate) text: String,
    /// Where it is kept.
    pub(crate) path: PathBuf,
}

/// The configuration that the fragments lead to.
pub(crate) fn configuration(places: &Places, arch: Arch) -> Result<Configuration> {
    let entry = places.entry("kernel-config", &key(places, arch)?, |work| {
        let tree = Tree::unpack(places)?;
        let build = tree.directory.path().join("build");
        tree.configure(places, arch, &build)?;
        fs::copy(build.join(".config"), work.join("config"))?;
        Ok(())
    })?;
    let path = entry.join("config");
    let text = fs::read_to_string(&path)?;
    Ok(Configuration { text, path })
}

/// Fails unless the configuration has all that the fragments ask for and all
/// that `required` demands; names each symbol that it lacks.
pub(crate) fn check(places: &Places, arch: Arch) -> Result<()> {
    let configuration = configuration(places, arch)?;
    let directory = places.repository.join("guest-kernel-config");
    let mut demands = Vec::new();
    for fragment in fragments(places, arch)? {
        demands.extend(config::fragment(&read(&fragment)?));
    }
    for list in [
        directory.join("required"),
        directory.join(arch.name()).join("required"),
    ] {
        demands.extend(
            config::required(&read(&list)?)
                .with_context(|| format!("{} cannot be read", list.display()))?,
        );
    }
    let lacking = config::lacking(&configuration.text, &demands);
    if !lacking.is_empty() {
        bail!(
            "the {} kernel's configuration ({}) is not what was asked for:\n  {}",
            arch.name(),
            configuration.path.display(),
            lacking.join("\n  ")
        );
    }
    println!(
        "{}: {} options as asked for and as required",
        arch.name(),
        demands.len()
    );
    Ok(())
}

/// Builds the kernel, or takes it from the cache.
pub(crate) fn build(places: &Places, arch: Arch) -> Result<PathBuf> {
    let key = key(places, arch)?;
    let entry = places.entry("kernel", &key, |work| {
        check(places, arch)?;
        eprintln!(
            "xtask: building the guest's {} kernel (some minutes, once)",
            arch.name()
        );
        let tree = Tree::unpack(places)?;
        let build = tree.directory.path().join("build");
        tree.configure(places, arch, &build)?;
        let log = work.join("build.log");
        let output = fs::File::create(&log)?;
        let jobs = std::thread::available_parallelism()?.to_string();
        let outcome = process::run(
            tree.make(arch, &build)
                .args(["-j", &jobs, image_target(arch)])
                .stdout(output.try_clone()?)
                .stderr(output),
        );
        if let Err(error) = outcome {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            return Err(error.context(tail.join("\n")));
        }
        let image = build.join(arch.image());
        let installed = work.join(image.file_name().context("an image has a name")?);
        if arch == Arch::X86_64 {
            // The symbol table is for debuggers; System.map beside it serves them.
            let strip = format!("{}strip", arch.tools());
            process::run(
                Command::new(strip)
                    .arg("-s")
                    .arg("-o")
                    .args([&installed, &image]),
            )?;
        } else {
            fs::copy(&image, &installed)?;
        }
        fs::copy(build.join("System.map"), work.join("System.map"))?;
        fs::copy(build.join(".config"), work.join("config"))?;
        Ok(())
    })?;
    let name = Path::new(arch.image())
        .file_name()
        .context("an image has a name")?;
    Ok(entry.join(name))
}

fn image_target(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "vmlinux",
        Arch::Aarch64 => "Image",
    }
}

/// The unpacked source, gone when dropped.
struct Tree {
    directory: tempfile::TempDir,
    source: PathBuf,
}

impl Tree {
    fn unpack(places: &Places) -> Result<Self> {
        // On the cache's disk: the tree is 1.5 GB, too much for a /tmp in memory.
        let directory = tempfile::Builder::new()
            .prefix(".kernel-tree-")
            .tempdir_in(&places.cache)?;
        process::run(
            Command::new("tar")
                .args(["--extract", "--strip-components=1", "--file", SOURCE])
                .arg("--directory")
                .arg(directory.path()),
        )?;
        for patch in patches(places)? {
            // No fuzz: a patch whose surroundings changed is one to review.
            process::run(
                Command::new("patch")
                    .args([
                        "--strip=1",
                        "--fuzz=0",
                        "--silent",
                        "--force",
                        "--directory",
                    ])
                    .arg(directory.path())
                    .arg("--input")
                    .arg(&patch),
            )
            .with_context(|| format!("{} does not apply to {SOURCE}", patch.display()))?;
        }
        let source = directory.path().to_path_buf();
        Ok(Self { directory, source })
    }

    fn make(&self, arch: Arch, build: &Path) -> Command {
        let mut command = Command::new("make");
        command
            .arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", build.display()))
            .arg(format!("ARCH={}", arch.kernel_name()))
            .arg(format!("CROSS_COMPILE={}", arch.tools()))
            .envs(IDENTITY)
            .env("LC_ALL", "C")
            .env_remove("MAKEFLAGS")
            .env_remove("CARGO_MAKEFLAGS");
        command
    }

    fn configure(&self, places: &Places, arch: Arch, build: &Path) -> Result<()> {
        fs::create_dir_all(build)?;
        let mut all = String::new();
        for fragment in fragments(places, arch)? {
            all.push_str(&read(&fragment)?);
        }
        let asked = build.join("asked.config");
        fs::write(&asked, all)?;
        // allnoconfig, where a symbol that a fragment names has the fragment's value.
        process::run(
            self.make(arch, build)
                .arg(format!("KCONFIG_ALLCONFIG={}", asked.display()))
                .args(["-s", "allnoconfig"])
                .stdout(Stdio::null()),
        )
    }
}

fn key(places: &Places, arch: Arch) -> Result<Key> {
    let source = Path::new(SOURCE);
    if !source.exists() {
        bail!("{SOURCE} is not there; run `cargo xtask setup`");
    }
    let mut key = Key::new(RECIPE)
        .with("arch", arch.name().as_bytes())
        .with_file("source", source)?;
    for patch in patches(places)? {
        key = key.with("patch", read(&patch)?.as_bytes());
    }
    for fragment in fragments(places, arch)? {
        key = key.with("fragment", read(&fragment)?.as_bytes());
    }
    for tool in ["gcc", "ld"] {
        let version = process::output(
            Command::new(format!("{}{tool}", arch.tools()))
                .arg("--version")
                .env("LC_ALL", "C"),
        )
        .context("the tools that build a kernel are missing; run `cargo xtask setup`")?;
        key = key.with(tool, version.as_bytes());
    }
    for (name, value) in IDENTITY {
        key = key.with(name, value.as_bytes());
    }
    Ok(key)
}

/// The fragments for `arch`, in a fixed order.
fn fragments(places: &Places, arch: Arch) -> Result<Vec<PathBuf>> {
    let directory = places.repository.join("guest-kernel-config");
    let mut fragments = Vec::new();
    for folder in [directory.join("common"), directory.join(arch.name())] {
        fragments.append(&mut files(&folder, "config")?);
    }
    Ok(fragments)
}

/// What is changed of Debian's source, for every architecture, in a fixed order.
fn patches(places: &Places) -> Result<Vec<PathBuf>> {
    files(
        &places.repository.join("guest-kernel-config/patches"),
        "patch",
    )
}

/// The files of a folder that end in `.extension`, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|it| it == extension));
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
