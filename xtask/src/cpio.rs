//! Writes cpio archives in the "newc" format that the kernel unpacks as its
//! initial root (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Two archives of the same entries are the same bytes: owner, time and inode
//! numbers are fixed.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written.
pub(crate) struct Archive<W: Write> {
    output: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            written: 0,
            inode: 0,
        }
    }

    /// Adds a directory with permissions `mode`. Parents go first.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, DIRECTORY | mode, (0, 0), &[])
    }

    /// Adds a regular file with permissions `mode`.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, (0, 0), contents)
    }

    /// Adds a symbolic link to `target`.
    pub(crate) fn symbolic_link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMBOLIC_LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device with its major and minor number.
    pub(crate) fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE | mode, device, &[])
    }

    /// Ends the archive and returns what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        contents: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, path.to_owned()))?;
        let links = if mode & DIRECTORY == 0 { 1 } else { 2 };
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            links,
            0, // time of modification
            size,
            0, // device that the file is on
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, which this variant of the format leaves out
        ];
        self.inode += 1;
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08X}").as_bytes())?;
        }
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(contents)?;
        self.pad()
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..missing as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.output.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what [`Archive`] wrote: path, mode and contents of each entry.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&archive[6 + index * 8..14 + index * 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap() as usize
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let start = (110 + name).next_multiple_of(4);
            let path = String::from_utf8(archive[110..110 + name - 1].to_vec()).unwrap();
            if path == "TRAILER!!!" {
                return entries;
            }
            entries.push((path, mode as u32, archive[start..start + size].to_vec()));
            archive = &archive[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin", 0o755).unwrap();
        archive.file("bin/a", 0o755, b"12345").unwrap();
        archive.symbolic_link("bin/b", "a").unwrap();
        archive.file("empty", 0o644, b"").unwrap();
        archive.character_device("console", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(
            entries(&bytes),
            [
                ("bin".to_owned(), 0o040_755, vec![]),
                ("bin/a".to_owned(), 0o100_755, b"12345".to_vec()),
                ("bin/b".to_owned(), 0o120_777, b"a".to_vec()),
                ("empty".to_owned(), 0o100_644, vec![]),
                ("console".to_owned(), 0o020_600, vec![]),
            ]
        );
    }
}
