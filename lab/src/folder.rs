//! Files that are written whole: under temporary names first, and then each gets its own.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use tempfile::{Builder, NamedTempFile, TempPath, tempfile_in};

use super::interruption::Interruption;

const TEMPORARY: &str = ".candle-optim-";
const LOCK: &str = ".candle-optim.lock";

/// Writes a file.
pub type Contents<'a> = dyn Fn(&mut dyn Write) -> Result<()> + 'a;

/// A CSV file; its header is written as a record.
pub fn csv_writer<W: Write>(out: W) -> csv::Writer<W> {
    csv::WriterBuilder::new().has_headers(false).from_writer(out)
}

/// A file, as the summary names it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    name: String,
    bytes: u64,
    crc32: String,
}

impl Entry {
    /// Whether the folder has this file, byte for byte.
    pub fn is_in(&self, folder: &Path) -> bool {
        let found = || -> io::Result<Self> {
            let mut file = open(&folder.join(&self.name))?;
            let mut sum = Checksum::of(io::sink());
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(sum.entry(&self.name)),
                    n => sum.write_all(&buffer[..n])?,
                }
            }
        };
        found().is_ok_and(|found| found == *self)
    }
}

/// Opens a file to read. A pipe or a device may never end.
pub fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() { File::open(path) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Counts what is written.
struct Checksum<W> {
    to: W,
    bytes: u64,
    crc32: Hasher,
}

impl<W: Write> Checksum<W> {
    fn of(to: W) -> Self {
        Self { to, bytes: 0, crc32: Hasher::new() }
    }

    fn entry(&self, name: &str) -> Entry {
        Entry { name: name.into(), bytes: self.bytes, crc32: format!("{:08x}", self.crc32.clone().finalize()) }
    }
}

impl<W: Write> Write for Checksum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        self.crc32.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A folder for results.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder, made if it does not exist. `names` are the files to come.
    ///
    /// # Errors
    /// No folder and cannot become one, not writable, or something that is not a file has one of the names.
    pub fn open(path: &Path, names: &[&str]) -> Result<Self> {
        let shown = path.display();
        ensure!(!path.exists() || path.is_dir(), "--out '{shown}' is a file; allowed: a folder, or a name not taken");
        for name in names {
            let path = path.join(name);
            ensure!(!path.is_dir(), "'{}' is a folder, where a result file is to be written", path.display());
        }
        let make = || -> Result<()> {
            fs::create_dir_all(path).with_context(|| format!("cannot make the output folder '{shown}'"))?;
            // Without a name where the system can do it, so that a kill leaves nothing.
            tempfile_in(path).with_context(|| format!("cannot write to the output folder '{shown}'"))?;
            Ok(())
        };
        // Somebody may remove it in between.
        make().or_else(|error| if path.exists() { Err(error) } else { make() })?;
        Ok(Self { path: path.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the right to write, and removes what a killed program left. `None` where files cannot be locked, and for
    /// an interruption.
    ///
    /// # Errors
    /// Somebody removed the folder, and it cannot be made again.
    pub fn lock(&self, interruption: &Interruption) -> Result<Option<Lock>> {
        fs::create_dir_all(&self.path)
            .with_context(|| format!("cannot make the output folder '{}'", self.path.display()))?;
        let lock = Lock::of(&self.path, interruption);
        if lock.is_some() {
            self.remove_stale();
        }
        Ok(lock)
    }

    /// Writes a file under a temporary name.
    ///
    /// # Errors
    /// The system's.
    pub fn stage(&self, name: &str, contents: &Contents) -> Result<(Staged, Entry)> {
        let path = self.path.join(name);
        let write = || -> Result<(TempPath, Entry)> {
            let file = self.temporary()?;
            let mut out = Checksum::of(BufWriter::with_capacity(1 << 16, file.as_file()));
            contents(&mut out)?;
            out.flush()?;
            let entry = out.entry(name);
            drop(out);
            file.as_file().sync_data()?;
            // Closed, so that many results do not take many open files.
            Ok((file.into_temp_path(), entry))
        };
        let staged = write();
        let (file, entry) = staged.with_context(|| format!("cannot write '{}'", path.display()))?;
        Ok((Staged { file, path }, entry))
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(TEMPORARY);
        // Results are ordinary files, subject to the umask, where a temporary file is its owner's alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(&self.path)
    }

    /// Removes what a killed program left: a live one has its temporary files only while it has the lock.
    fn remove_stale(&self) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file that is ready to get its name.
pub struct Staged {
    file: TempPath,
    path: PathBuf,
}

impl Staged {
    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is until then.
    pub fn temporary(&self) -> &Path {
        &self.file
    }

    /// Gives it its name, unless that is taken. Says whether it was free.
    ///
    /// # Errors
    /// The system's.
    pub fn persist_new(self) -> Result<bool> {
        match self.file.persist_noclobber(&self.path).map_err(|error| error.error) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot write '{}'", self.path.display())),
        }
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The system's.
    pub fn persist(self) -> Result<()> {
        let renamed = self.file.persist(&self.path).map_err(|error| error.error);
        renamed.with_context(|| format!("cannot write '{}'", self.path.display()))
    }
}

/// The right to write to a folder, of one program at a time.
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits until no other program has it. `None` where files cannot be locked, and for an interruption.
    fn of(folder: &Path, interruption: &Interruption) -> Option<Self> {
        const PAUSE: Duration = Duration::from_millis(5);
        let path = folder.join(LOCK);
        while !interruption.is_pending() {
            let file = File::options().create(true).append(true).open(&path).ok()?;
            match file.try_lock() {
                // The last holder may have removed the file since it was opened.
                Ok(()) if is_at(&file, &path) => return Some(Self { path, _file: file }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => identity(file) == identity(path),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
