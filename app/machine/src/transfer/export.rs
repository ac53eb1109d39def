//! Writing a machine to a stream.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::{CHUNK, DIGEST, DISK, Digest, HEADER, Header, Progress, SETTINGS, VERSION};
use crate::{Error, Machine, Result, blocking::blocking, state::Inner};

/// Compresses as fast as disks are read, to about a third.
const COMPRESSION: i32 = 3;

impl Machine {
    /// Writes the machine to `output`; it stays off meanwhile.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::NoSuchMachine`], [`Error::Io`].
    pub async fn export<W: Write + Send + 'static>(
        &self,
        output: W,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<W> {
        let inner = Arc::clone(&self.inner);
        blocking(move || export(&inner, output, progress)).await
    }
}

fn export<W: Write>(inner: &Inner, output: W, mut progress: impl FnMut(Progress)) -> Result<W> {
    if !inner.files.directory().is_dir() {
        return Err(Error::NoSuchMachine(inner.name.clone()));
    }
    let _off = inner.hold_off()?;
    let (path, settings) = (inner.files.disk(), inner.files.settings());
    let reading = |error: io::Error| Error::io("read the disk", &path, error);
    let disk = open_if_there(&path).map_err(reading)?;
    let settings = match fs::read(&settings) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        result => result.map_err(|error| Error::io("read", &settings, error))?,
    };
    let (disk_bytes, pieces) = match &disk {
        Some(disk) => (
            disk.metadata().map_err(reading)?.len(),
            data(disk).map_err(reading)?,
        ),
        None => (0, Vec::new()),
    };
    let total = pieces.iter().map(|piece| piece.length).sum();
    let header = Header {
        version: VERSION,
        name: inner.name.clone(),
        disk_bytes,
        data_bytes: total,
    };
    let writing = |error: io::Error| Error::Transfer(format!("cannot write it: {error}"));
    let mut archive = Archive::new(output).map_err(writing)?;
    let header = serde_json::to_vec(&header).map_err(|error| writing(error.into()))?;
    archive.add(HEADER, &header).map_err(writing)?;
    archive.add(SETTINGS, &settings).map_err(writing)?;
    let mut done = 0;
    let mut buffer = vec![0; CHUNK];
    for (disk, piece) in disk
        .iter()
        .flat_map(|disk| pieces.iter().map(move |piece| (disk, piece)))
    {
        let mut at = piece.offset;
        let end = piece.offset + piece.length;
        while at < end {
            let length = (end - at).min(CHUNK as u64) as usize;
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            disk.read_exact_at(chunk, at).map_err(reading)?;
            archive
                .add(&format!("{DISK}{at:016x}"), chunk)
                .map_err(writing)?;
            at += length as u64;
            done += length as u64;
            progress(Progress { done, total });
        }
    }
    archive.finish().map_err(writing)
}

fn open_if_there(path: &std::path::Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a file has data.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: u64,
}

/// All places where a file has data; the rest are holes and read as zeros.
fn data(file: &File) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        let offset = match seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(pieces),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(offset))?;
        pieces.push(Piece {
            offset,
            length: at - offset,
        });
    }
}

struct Archive<W: Write> {
    tar: tar::Builder<zstd::stream::write::Encoder<'static, W>>,
    digest: Digest,
}

impl<W: Write> Archive<W> {
    fn new(output: W) -> io::Result<Self> {
        let encoder = zstd::stream::write::Encoder::new(output, COMPRESSION)?;
        Ok(Self {
            tar: tar::Builder::new(encoder),
            digest: Digest::default(),
        })
    }

    fn add(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.digest.add(name, contents);
        append(&mut self.tar, name, contents)
    }

    fn finish(mut self) -> io::Result<W> {
        let digest = self.digest.finish();
        append(&mut self.tar, DIGEST, digest.as_bytes())?;
        self.tar.into_inner()?.finish()
    }
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o600);
    header.set_size(contents.len() as u64);
    header.set_cksum();
    tar.append(&header, contents)
}
