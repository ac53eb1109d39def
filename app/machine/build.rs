//! Embeds the guest: writes `embedded.rs` with the bytes and digests of what
//! `cargo xtask build` left in `$DCTL_ASSETS` (`target/assets` by default).
//! Without them the crate compiles all the same, and booting says what to do.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// (field, embedded file, name in SHA256SUMS)
const ASSETS: [(&str, &str, &str); 3] = [
    ("kernel", "vmlinux.zst", "vmlinux"),
    ("initramfs", "initramfs.cpio.zst", "initramfs.cpio"),
    ("starter_image", "starter-image.tar", "starter-image.tar"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DCTL_ASSETS");
    let directory = env::var_os("DCTL_ASSETS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/assets"),
        PathBuf::from,
    );
    // Cargo takes a path that is not there as changed, each time; an empty
    // directory it can watch.
    if let Err(error) = fs::create_dir_all(&directory) {
        println!(
            "cargo::error=cannot create {}: {error}",
            directory.display()
        );
        return;
    }
    println!("cargo::rerun-if-changed={}", directory.display());

    let source = match fs::canonicalize(&directory)
        .map_err(|error| format!("cannot use {}: {error}", directory.display()))
        .and_then(|directory| generate(&directory))
    {
        Ok(source) => source,
        Err(problem) => {
            println!("cargo::error={problem}; run `cargo xtask build` again");
            return;
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("embedded.rs");
    if let Err(error) = fs::write(&out, source) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

fn generate(directory: &Path) -> Result<String, String> {
    let sums_path = directory.join("SHA256SUMS");
    if !sums_path.exists() {
        return Ok("static GUEST: Option<Embedded> = None;\n".to_owned());
    }
    let sums = fs::read_to_string(&sums_path)
        .map_err(|error| format!("cannot read {}: {error}", sums_path.display()))?;
    let mut fields = String::new();
    for (field, file, name) in ASSETS {
        let path = directory.join(file);
        if !path.exists() {
            return Err(format!("{} is missing", path.display()));
        }
        println!("cargo::rerun-if-changed={}", path.display());
        let digest = digest_of(&sums, name)
            .ok_or_else(|| format!("{} has no digest of {name}", sums_path.display()))?;
        let path = path
            .to_str()
            .ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        let _ = writeln!(
            fields,
            "    {field}: Blob {{ name: {name:?}, bytes: include_bytes!({path:?}), sha256: {digest:?} }},",
        );
    }
    Ok(format!(
        "static GUEST: Option<Embedded> = Some(Embedded {{\n{fields}}});\n"
    ))
}

/// The digest of `name` in the output of sha256sum(1).
fn digest_of<'a>(sums: &'a str, name: &str) -> Option<&'a str> {
    sums.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, file)| file.trim_start_matches([' ', '*']) == name)
        .map(|(digest, _)| digest)
        .filter(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}
