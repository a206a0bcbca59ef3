//! Result files: all of a run or none, and a summary that names them.
//!
//! Files are written whole under temporary names, and get their own one after the other. The summary is first without the
//! sections of the run, and with them at the end, so that a program that is killed at any moment leaves no summary that
//! speaks of files of another run.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGQUIT};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::emulate_default_handler};
use tempfile::{Builder, NamedTempFile, TempPath, tempfile_in};

use super::summary::Summary;

/// The summary's file.
pub const SUMMARY: &str = "summary.json";
const TEMPORARY: &str = ".candle-optim-";
const LOCK: &str = ".candle-optim.lock";

/// Writes a file.
pub type Contents = Box<dyn Fn(&mut dyn Write) -> Result<()>>;

/// What a run leaves.
pub struct Results {
    /// The section of the summary.
    pub section: &'static str,
    /// What stands in it, beside the files.
    pub summary: Map<String, Value>,
    /// The files, by name.
    pub files: Vec<(&'static str, Contents)>,
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
pub struct Output {
    folder: PathBuf,
}

impl Output {
    /// The folder for results, made if it does not exist. `names` are the files to come.
    ///
    /// # Errors
    /// No folder and cannot become one, not writable, something that is not a file has one of the names, or a summary that
    /// this program did not write.
    pub fn open(folder: &Path, names: &[&str]) -> Result<Self> {
        let shown = folder.display();
        ensure!(
            !folder.exists() || folder.is_dir(),
            "--out '{shown}' is a file; allowed: a folder, or a name not taken"
        );
        fs::create_dir_all(folder).with_context(|| format!("cannot make the output folder '{shown}'"))?;
        for name in names.iter().chain([&SUMMARY]) {
            let path = folder.join(name);
            ensure!(!path.is_dir(), "'{}' is a folder, where a result file is to be written", path.display());
        }
        // Without a name where the system can do it, so that a kill leaves nothing.
        tempfile_in(folder).with_context(|| format!("cannot write to the output folder '{shown}'"))?;
        Summary::read(&folder.join(SUMMARY))?;
        Ok(Self { folder: folder.into() })
    }

    /// Writes the results of a run. An interruption takes effect before the first of them has its name, or after the last.
    ///
    /// # Errors
    /// The system's. Earlier results are then unchanged, unless a file could not be renamed.
    pub fn write(&self, results: &[Results]) -> Result<()> {
        let interruption = Interruption::deferred()?;
        // Somebody may have removed it during the run.
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make the output folder '{}'", self.folder.display()))?;
        let lock = Lock::of(&self.folder, &interruption);
        if lock.is_some() {
            self.remove_stale();
        }

        let mut summary = Summary::read(&self.folder.join(SUMMARY)).unwrap_or_default();
        summary.keep(|entry| entry.is_in(&self.folder));
        for run in results {
            summary.remove(run.section);
        }
        let others = if summary.is_empty() { None } else { Some(self.stage_summary(&summary)?) };
        let mut staged = vec![];
        for run in results {
            let mut entries = vec![];
            for (name, contents) in &run.files {
                let (file, entry) = self.stage(name, contents)?;
                entries.push(entry);
                staged.push(file);
            }
            let mut section = run.summary.clone();
            section.insert("files".into(), json!(entries));
            summary.insert(run.section, &section)?;
        }
        staged.push(self.stage_summary(&summary)?);
        if interruption.is_pending() {
            bail!("interrupted; earlier results are unchanged");
        }

        match others {
            Some(others) => others.persist()?,
            None => match fs::remove_file(self.folder.join(SUMMARY)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let path = self.folder.join(SUMMARY);
                    return Err(error).with_context(|| format!("cannot replace '{}'", path.display()));
                }
                _ => {}
            },
        }
        staged.into_iter().try_for_each(Staged::persist)
    }

    /// Writes a file under a temporary name.
    fn stage(&self, name: &str, contents: &Contents) -> Result<(Staged, Entry)> {
        let path = self.folder.join(name);
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
        let (file, entry) =
            staged.with_context(|| format!("cannot write '{}'; earlier results are unchanged", path.display()))?;
        Ok((Staged { file, path }, entry))
    }

    fn stage_summary(&self, summary: &Summary) -> Result<Staged> {
        let text = summary.text()?;
        let contents: Contents = Box::new(move |out| Ok(out.write_all(text.as_bytes())?));
        Ok(self.stage(SUMMARY, &contents)?.0)
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(TEMPORARY);
        // Results are ordinary files, subject to the umask, where a temporary file is its owner's alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(&self.folder)
    }

    /// Removes what a killed program left: a live one has its temporary files only while it has the lock.
    fn remove_stale(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file that is ready to get its name.
struct Staged {
    file: TempPath,
    path: PathBuf,
}

impl Staged {
    fn persist(self) -> Result<()> {
        let renamed = self.file.persist(&self.path).map_err(|error| error.error);
        renamed.with_context(|| format!("cannot write '{}'", self.path.display()))
    }
}

/// The right to write to a folder, of one program at a time.
struct Lock {
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

/// The signals by which people end a program.
#[cfg(unix)]
const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Whether the caller has set a signal to be ignored, as `nohup` does. Only Linux says so without `unsafe`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

/// [`SIGNALS`], which wait until this is dropped; one that is ignored still is.
///
/// Before that, and so as long as the program computes, signals are the system's.
struct Interruption {
    pending: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Interruption {
    fn deferred() -> Result<Self> {
        let this = Self { pending: Arc::default(), over: Arc::default() };
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            let register = || {
                flag::register_usize(signal, this.pending.clone(), signal as usize)?;
                flag::register_conditional_default(signal, this.over.clone())
            };
            register().context("cannot wait for signals")?;
        }
        Ok(this)
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        match self.pending.load(Ordering::SeqCst) {
            0 => {}
            // Ends the program, as the signal would have.
            signal => drop(emulate_default_handler(signal as i32)),
        }
    }
}
