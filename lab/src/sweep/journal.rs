//! The finished runs, in files that remain readable after a kill at any moment.
//!
//! Each process has a file of its own, to which it appends one line per run: the CRC-32 of the rest of the line, and a
//! record in CSV. The first line names the experiment and the version of the program. All processes read all files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use csv::{ReaderBuilder, StringRecord};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Key, Plan};
use super::runs::Outcome;
use super::training::Trained;
use crate::folder::csv_writer;
use crate::train::Epoch;

const PREFIX: &str = "journal-";
/// The work that a crash of the machine may lose.
const SYNC: Duration = Duration::from_secs(1);

/// The header of a journal: its program and its experiment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Header {
    /// The version of the program.
    pub version: String,
    /// SHA-256 of the experiment's text.
    pub experiment: String,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its outcome.
    pub outcome: Outcome,
    /// Time for training and evaluation.
    pub seconds: f64,
    /// The index of its journal, and where its line begins.
    at: (usize, u64),
}

/// All journals of a folder.
pub struct Journals {
    folder: PathBuf,
    header: Header,
    files: Vec<PathBuf>,
    /// The finished runs.
    pub records: HashMap<Key, Record>,
    own: Option<Own>,
}

/// The journal of this process.
struct Own {
    file: File,
    number: usize,
    length: u64,
    synced: Instant,
}

impl Journals {
    /// Reads all journals of a folder.
    ///
    /// # Errors
    /// A journal of another experiment, a damaged journal, or two that disagree.
    pub fn read(folder: &Path, header: Header, plan: &Plan) -> Result<Self> {
        let mut this = Self { folder: folder.into(), header, files: vec![], records: HashMap::new(), own: None };
        this.refresh(plan)?;
        Ok(this)
    }

    /// Reads what other processes have added.
    ///
    /// # Errors
    /// See [`Journals::read`].
    pub fn refresh(&mut self, plan: &Plan) -> Result<()> {
        for path in paths(&self.folder)? {
            let number = self.files.iter().position(|known| *known == path).unwrap_or_else(|| {
                self.files.push(path.clone());
                self.files.len() - 1
            });
            if self.own.as_ref().is_some_and(|own| own.number == number) {
                continue;
            }
            let read = self.read_one(number, &path, plan);
            read.with_context(|| format!("the journal '{}'", path.display()))?;
        }
        Ok(())
    }

    fn read_one(&mut self, number: usize, path: &Path, plan: &Plan) -> Result<()> {
        let file = match File::open(path) {
            // Another process has just finished the folder.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.context("cannot read it")?,
        };
        let (mut file, mut text, mut at) = (BufReader::new(file), vec![], 0);
        for line in 1.. {
            text.clear();
            let length = file.read_until(b'\n', &mut text).context("cannot read it")? as u64;
            // A kill or a full disk has cut a line without its end: its run is repeated.
            let Some((b'\n', bytes)) = text.split_last().map(|(last, rest)| (*last, rest)) else { return Ok(()) };
            let damaged = || format!("line {line} is damaged; remove the line, and its run is run again");
            let record = checked(bytes).with_context(damaged)?;
            if line == 1 {
                let header: Header = parsed(record).with_context(damaged)?;
                ensure!(
                    header.version == self.header.version,
                    "it is of version {} of the program, and this is {}; allowed: the same version, or another --out",
                    header.version,
                    self.header.version
                );
                ensure!(
                    header.experiment == self.header.experiment,
                    "it is of another experiment, with the SHA-256 {}, and this one has {}; allowed: another --out",
                    header.experiment,
                    self.header.experiment
                );
            } else {
                let (key, outcome, seconds): (Key, Outcome, f64) = parsed(record).with_context(damaged)?;
                ensure!(plan.has(key), "line {line} is of a run that the experiment does not have; remove the line");
                self.add(key, Record { outcome, seconds, at: (number, at) }).with_context(|| format!("line {line}"))?;
            }
            at += length;
        }
        Ok(())
    }

    /// Adds a record. Two records of a run must be equal, except for the time.
    fn add(&mut self, key: Key, record: Record) -> Result<()> {
        let Some(known) = self.records.get(&key) else {
            self.records.insert(key, record);
            return Ok(());
        };
        let other = self.files[known.at.0].display();
        ensure!(
            known.outcome == record.outcome,
            "{key} is not what '{other}' says of it; machines differ, or one of the files is damaged: remove one of them"
        );
        Ok(())
    }

    /// Writes a run to the journal of this process, which the first run creates.
    ///
    /// # Errors
    /// An error of the system, such as a full disk.
    pub fn append(&mut self, key: Key, trained: &Trained, task: usize) -> Result<()> {
        let Trained { outcome, epochs, seconds } = trained;
        if self.own.is_none() {
            self.own = Some(self.create(task)?);
        }
        let Some(own) = &mut self.own else { bail!("no journal") };
        let path = &self.files[own.number];
        let text = line(&(key, outcome, seconds, epochs))?;
        let written = own.file.write_all(&text).and_then(|()| {
            if own.synced.elapsed() < SYNC {
                return Ok(());
            }
            own.synced = Instant::now();
            own.file.sync_data()
        });
        if let Err(error) = written {
            let what = format!("cannot write the journal '{}'", path.display());
            // Its last line may be cut, and nothing may follow a cut line.
            self.own = None;
            return Err(error).context(what);
        }
        let record = Record { outcome: outcome.clone(), seconds: *seconds, at: (own.number, own.length) };
        own.length += text.len() as u64;
        self.add(key, record)
    }

    fn create(&mut self, task: usize) -> Result<Own> {
        let host = sysinfo::System::host_name().unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric()).take(32).collect();
        let make = || {
            let prefix = format!("{PREFIX}{task}-{host}-{}-", std::process::id());
            let mut builder = tempfile::Builder::new();
            builder.prefix(&prefix);
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let (mut file, kept) = builder
                .make_in(&self.folder, |path| File::options().append(true).create_new(true).open(path))?
                .keep()?;
            let text = line(&self.header)?;
            file.write_all(&text)?;
            // The same form of path as for the other journals; a temporary file's path can differ.
            let path = self.folder.join(kept.file_name().context("no name")?);
            anyhow::Ok((file, path, text.len() as u64))
        };
        let made = make();
        let (file, path, length) =
            made.with_context(|| format!("cannot write a journal in '{}'", self.folder.display()))?;
        self.files.push(path);
        Ok(Own { file, number: self.files.len() - 1, length, synced: Instant::now() })
    }

    /// Flushes the journal to disk, so that it survives a crash of the machine.
    ///
    /// # Errors
    /// An error of the system.
    pub fn sync(&self) -> Result<()> {
        let sync = self.own.as_ref().map_or(Ok(()), |own| own.file.sync_data());
        sync.with_context(|| format!("cannot write the journal in '{}'", self.folder.display()))
    }

    /// The epochs of a confirmation.
    ///
    /// # Errors
    /// A missing or changed journal.
    pub fn epochs(&self, key: Key) -> Result<Vec<Epoch>> {
        let Some(&Record { at: (number, at), .. }) = self.records.get(&key) else {
            bail!("{key} is not in any journal")
        };
        let read = || {
            let mut file = BufReader::new(File::open(&self.files[number])?);
            file.seek(SeekFrom::Start(at))?;
            let mut text = vec![];
            file.read_until(b'\n', &mut text)?;
            let record = checked(text.strip_suffix(b"\n").unwrap_or(&text))?;
            let (_, _, _, epochs): (Key, Outcome, f64, Vec<Epoch>) = parsed(record)?;
            anyhow::Ok(epochs)
        };
        read().with_context(|| format!("cannot read the journal '{}'", self.files[number].display()))
    }
}

/// The journals of a folder.
///
/// # Errors
/// An error of the system.
pub fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = vec![];
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    read().with_context(|| format!("cannot read the folder '{}'", folder.display()))
}

fn line(record: &impl Serialize) -> Result<Vec<u8>> {
    let mut writer = csv_writer(vec![]);
    writer.serialize(record)?;
    let record = writer.into_inner().map_err(|error| anyhow!("{error}"))?;
    let record = record.strip_suffix(b"\n").unwrap_or(&record);
    Ok([format!("{:08x},", crc32fast::hash(record)).as_bytes(), record, b"\n"].concat())
}

/// The record of a line without its end.
fn checked(line: &[u8]) -> Result<&[u8]> {
    let (sum, record) = line.split_at_checked(9).context("it is too short")?;
    ensure!(sum == format!("{:08x},", crc32fast::hash(record)).as_bytes(), "its checksum differs");
    Ok(record)
}

fn parsed<T: DeserializeOwned>(record: &[u8]) -> Result<T> {
    let mut reader = ReaderBuilder::new().has_headers(false).from_reader(record);
    let mut cells = StringRecord::new();
    ensure!(reader.read_record(&mut cells)?, "it is empty");
    Ok(cells.deserialize(None)?)
}
