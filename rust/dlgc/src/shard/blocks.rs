//! Files that are written in blocks; large ones past the copy of files that the system keeps in memory.
//!
//! What is written has to be on the disk before it has its name. A copy of it in memory costs time, and takes the room of
//! what was read and may be read again. Where a file system knows no other way than through that copy, it is written that
//! way.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How much is written at once.
const SIZE: usize = 1 << 20;
/// What is written past the system's copy begins and ends, in the file and in memory, at multiples of this.
const UNIT: usize = 1 << 12;

/// A file, and its last bytes that are not written yet.
pub(super) struct Blocks {
    file: File,
    path: PathBuf,
    /// What waits: so many bytes from a place on that is a multiple of the unit in memory.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where in the file they belong; there it is written next.
    at: u64,
    /// Whether it is written past the system's copy.
    is_direct: bool,
}

#[cfg(target_os = "linux")]
fn create_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn create_direct(_: &Path) -> Option<File> {
    None
}

impl Blocks {
    /// A new file; a large one is written past the system's copy.
    pub(super) fn create(path: &Path, is_large: bool) -> io::Result<Self> {
        match if is_large { create_direct(path) } else { None } {
            Some(file) => Ok(Self { is_direct: true, ..Self::of(file, path, 0) }),
            None => Ok(Self::of(File::create(path)?, path, 0)),
        }
    }

    /// A file that goes on at a place, where it is.
    pub(super) fn of(file: File, path: &Path, at: u64) -> Self {
        let buffer = vec![0; SIZE + UNIT];
        let start = buffer.as_ptr().align_offset(UNIT).min(UNIT);
        Self { file, path: path.to_owned(), buffer, start, filled: 0, at, is_direct: false }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether what is written is on the disk once it is.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Writes the first bytes that wait. Some file systems say only here that they cannot do it past their copy.
    fn put(&mut self, length: usize) -> io::Result<()> {
        let bytes = &self.buffer[self.start..self.start + length];
        match self.file.write_all(bytes) {
            Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                self.file = File::options().write(true).open(&self.path)?;
                self.file.seek(SeekFrom::Start(self.at))?;
                self.is_direct = false;
                self.file.write_all(bytes)
            }
            done => done,
        }
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(SIZE - self.filled);
        let at = self.start + self.filled;
        self.buffer[at..at + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        if self.filled == SIZE {
            self.put(SIZE)?;
            self.at += SIZE as u64;
            self.filled = 0;
        }
        Ok(count)
    }

    /// Writes what waits. Of a large file the last unit is filled up, cut to its length, and written again with what
    /// follows.
    fn flush(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let unit = if self.is_direct { UNIT } else { 1 };
        let (padded, whole) = (self.filled.next_multiple_of(unit), self.filled / unit * unit);
        self.buffer[self.start + self.filled..self.start + padded].fill(0);
        self.put(padded)?;
        if padded > self.filled {
            self.file.set_len(self.at + self.filled as u64)?;
        }
        self.buffer.copy_within(self.start + whole..self.start + self.filled, self.start);
        self.at += whole as u64;
        self.filled -= whole;
        self.file.seek(SeekFrom::Start(self.at)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    /// Writes numbers in pieces of all lengths, and flushes now and then; what is in the file then is what was written.
    fn write(mut blocks: Blocks, path: &Path, mut written: Vec<u8>) {
        let mut draw = Draw(3);
        let mut random = |most: u64| draw.below(most);
        for turn in 0..60 {
            let length = [1, 300, UNIT as u64, 3 * SIZE as u64][turn % 4];
            let piece: Vec<u8> = (0..=random(length)).map(|_| random(256) as u8).collect();
            blocks.write_all(&piece).expect("written");
            written.extend(piece);
            if random(3) == 0 {
                blocks.flush().expect("written");
                assert!(std::fs::read(path).expect("read") == written, "{turn}");
            }
        }
        blocks.flush().expect("written");
        blocks.file().sync_all().expect("on the disk");
        assert!(std::fs::read(path).expect("read") == written);
    }

    #[test]
    fn a_file_holds_what_was_written_however_it_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        for is_large in [false, true] {
            write(Blocks::create(&path, is_large).expect("a file"), &path, Vec::new());
        }
        std::fs::write(&path, b"begun").expect("written");
        let mut begun = File::options().write(true).open(&path).expect("a file");
        begun.seek(SeekFrom::End(0)).expect("its end");
        write(Blocks::of(begun, &path, 5), &path, b"begun".to_vec());
    }

    #[test]
    fn what_cannot_be_written_past_the_copy_of_the_system_is_written_through_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let mut blocks = Blocks::create(&path, true).expect("a file");
        blocks.start = 1; // no system takes it from there
        write(blocks, &path, Vec::new());
    }
}
