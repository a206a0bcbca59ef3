//! Files that are written whole: first under temporary names, and then renamed.

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

/// Opens a file to read, but no pipe or device, which may never end.
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
    /// The path is not a folder and cannot become one, it is not writable, or one of the names is a folder.
    pub fn open(path: &Path, names: &[&str]) -> Result<Self> {
        let shown = path.display();
        ensure!(!path.exists() || path.is_dir(), "--out '{shown}' is a file; allowed: a folder, or a name not taken");
        for name in names {
            let path = path.join(name);
            ensure!(!path.is_dir(), "'{}' is a folder, where a result file is to be written", path.display());
        }
        let make = || -> Result<()> {
            fs::create_dir_all(path).with_context(|| format!("cannot make the output folder '{shown}'"))?;
            // The file has no name where the system allows that, so that a kill leaves nothing.
            tempfile_in(path).with_context(|| format!("cannot write to the output folder '{shown}'"))?;
            Ok(())
        };
        // Another program may remove the folder in between.
        make().or_else(|error| if path.exists() { Err(error) } else { make() })?;
        Ok(Self { path: path.into() })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the lock, and removes the files that a killed program left. `None`: files cannot be locked, or a
    /// signal is pending.
    ///
    /// # Errors
    /// The folder was removed and cannot be made again.
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
    /// An error of the system.
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
            // The file is closed, so that many results do not need many open files.
            Ok((file.into_temp_path(), entry))
        };
        let staged = write();
        let (file, entry) = staged.with_context(|| format!("cannot write '{}'", path.display()))?;
        Ok((Staged { file, path }, entry))
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(TEMPORARY);
        // Results are ordinary files, subject to the umask; a temporary file is accessible to its owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(&self.path)
    }

    /// Removes the files that a killed program left: a running program has temporary files only while it holds the
    /// lock.
    fn remove_stale(&self) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file that is ready to be renamed.
pub struct Staged {
    file: TempPath,
    path: PathBuf,
}

impl Staged {
    /// The final path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary path.
    pub fn temporary(&self) -> &Path {
        &self.file
    }

    /// Renames the file to its final name, unless that is taken. Returns whether it was free.
    ///
    /// # Errors
    /// An error of the system.
    pub fn persist_new(self) -> Result<bool> {
        match self.file.persist_noclobber(&self.path).map_err(|error| error.error) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot write '{}'", self.path.display())),
        }
    }

    /// Renames the file to its final name.
    ///
    /// # Errors
    /// An error of the system.
    pub fn persist(self) -> Result<()> {
        let renamed = self.file.persist(&self.path).map_err(|error| error.error);
        renamed.with_context(|| format!("cannot write '{}'", self.path.display()))
    }
}

/// The lock of a folder: one program at a time may write.
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits until no other program holds the lock. `None`: files cannot be locked, or a signal is pending.
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
