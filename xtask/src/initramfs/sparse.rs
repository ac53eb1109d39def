//! Writes a file system image without its empty parts, in the format that the
//! agent reads (`guest-agent/src/boot/seed.rs` documents it).

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

const MAGIC: &[u8; 8] = b"DCTLSEED";
const BLOCK: usize = 4096;

/// A piece is kept in memory until it ends, or is this long.
const LONGEST_PIECE: usize = 1 << 20;

/// Writes what there is in the image `from`, whose length is a multiple of 4 KiB,
/// to `to`.
pub(super) fn write(from: &Path, to: &Path) -> io::Result<()> {
    let image = File::open(from)?;
    let length = image.metadata()?.len();
    let mut output = BufWriter::new(File::create(to)?);
    encode(
        BufReader::with_capacity(1 << 20, image),
        length,
        &mut output,
    )?;
    output.flush()
}

fn encode(mut image: impl Read, length: u64, output: &mut impl Write) -> io::Result<()> {
    if !length.is_multiple_of(BLOCK as u64) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the image's length is not a multiple of 4 KiB",
        ));
    }
    output.write_all(MAGIC)?;
    output.write_all(&length.to_le_bytes())?;
    let mut block = [0; BLOCK];
    let mut piece = Vec::new();
    let mut place = 0;
    while place < length {
        image.read_exact(&mut block)?;
        // The first block is a piece whatever is in it.
        let empty = place > 0 && block == [0; BLOCK];
        if empty || piece.len() == LONGEST_PIECE {
            put_piece(output, place, &mut piece)?;
        }
        if !empty {
            piece.extend_from_slice(&block);
        }
        place += BLOCK as u64;
    }
    put_piece(output, place, &mut piece)?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(&0_u64.to_le_bytes())
}

/// Writes the piece that ends at `end`, if there is one.
fn put_piece(output: &mut impl Write, end: u64, piece: &mut Vec<u8>) -> io::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    let length = piece.len() as u64;
    output.write_all(&(end - length).to_le_bytes())?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(piece)?;
    piece.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_with_something_in_them_are_written() {
        let mut image = vec![0; 6 * BLOCK];
        image[2 * BLOCK..4 * BLOCK].fill(7);
        image[6 * BLOCK - 1] = 9;
        let mut output = Vec::new();
        encode(image.as_slice(), image.len() as u64, &mut output).unwrap();

        let mut expected = MAGIC.to_vec();
        expected.extend(24576_u64.to_le_bytes());
        for (start, end) in [(0, 1), (2, 4), (5, 6)] {
            expected.extend(((start * BLOCK) as u64).to_le_bytes());
            expected.extend((((end - start) * BLOCK) as u64).to_le_bytes());
            expected.extend(&image[start * BLOCK..end * BLOCK]);
        }
        expected.extend(24576_u64.to_le_bytes());
        expected.extend(0_u64.to_le_bytes());
        assert!(output == expected);
    }

    #[test]
    fn an_image_that_ends_early_is_an_error() {
        assert!(encode([1; BLOCK].as_slice(), 2 * BLOCK as u64, &mut io::sink()).is_err());
        assert!(encode([1; 100].as_slice(), 100, &mut io::sink()).is_err());
    }
}
