//! Result files: all of a run or none, and a summary that names them.
//!
//! Files are written whole under temporary names, and are then renamed one after the other. The summary is first
//! written without the sections of the run, and with them at the end. So a program that is killed at any moment leaves
//! no summary that lists files of another run.
//!
//! The report and its pictures are made of all files of the folder. They are removed first and written last.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::folder::{Contents, Folder, Staged};
use super::interruption::Interruption;
use super::report::{self, Files, Overlay};
use super::summary::Summary;
use super::sweep;

/// The summary's file.
pub const SUMMARY: &str = "summary.json";

const UNCHANGED: &str = "earlier results are unchanged";

/// The results of a run.
pub struct Results {
    /// The section of the summary.
    pub section: &'static str,
    /// The contents of that section, except the files.
    pub summary: Map<String, Value>,
    /// The files, by name.
    pub files: Vec<(&'static str, Box<Contents<'static>>)>,
}

/// Whether and how the results are drawn.
pub enum Drawing<'a> {
    /// The results are not drawn.
    Skipped,
    /// On a page, beside the curves of another run if there are any.
    Page(Option<&'a Overlay>),
}

/// A folder for the results of runs, with a summary.
pub struct Output {
    folder: Folder,
}

impl Output {
    /// The folder for results, made if it does not exist. `names` are the files to come.
    ///
    /// # Errors
    /// See [`Folder::open`], or a summary that this program did not write.
    pub fn open(folder: &Path, names: &[&str]) -> Result<Self> {
        let folder = Folder::open(folder, &[names, &report::NAMES, &[SUMMARY]].concat())?;
        Summary::read(&folder.path().join(SUMMARY))?;
        Ok(Self { folder })
    }

    /// Writes the results of a run. An interruption takes effect before the first file is renamed, or after the last.
    ///
    /// # Errors
    /// An error of the system. Earlier results are then unchanged, unless a file could not be renamed. A report that
    /// cannot be drawn or written is also an error, but the results are then written.
    pub fn write(&self, results: &[Results], drawing: Drawing) -> Result<()> {
        let interruption = Interruption::deferred()?;
        let _lock = self.folder.lock(&interruption)?;

        let path = self.folder.path().join(SUMMARY);
        let mut summary = Summary::read(&path).unwrap_or_default();
        summary.keep(|entry| entry.is_in(self.folder.path()));
        for run in results {
            summary.remove(run.section);
        }
        let others = if summary.is_empty() { None } else { Some(self.stage_summary(&summary)?) };
        let mut staged = vec![];
        for run in results {
            let mut entries = vec![];
            for (name, contents) in &run.files {
                let (file, entry) = self.folder.stage(name, contents).context(UNCHANGED)?;
                entries.push(entry);
                staged.push(file);
            }
            let mut section = run.summary.clone();
            section.insert("files".into(), json!(entries));
            summary.insert(run.section, &section)?;
        }
        staged.push(self.stage_summary(&summary)?);
        let drawn = match drawing {
            Drawing::Skipped => Ok(vec![]),
            Drawing::Page(overlay) => {
                let path = |name: &str| {
                    let own = self.folder.path().join(name);
                    staged.iter().find(|file| file.path() == own).map_or(own, |file| file.temporary().into())
                };
                stage_drawings(&self.folder, &Files::new(&path), overlay)
            }
        };
        if interruption.is_pending() {
            bail!("interrupted; {UNCHANGED}");
        }

        report::remove(self.folder.path());
        match others {
            Some(others) => others.persist()?,
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot replace '{}'", path.display()));
                }
                _ => {}
            },
        }
        staged.into_iter().try_for_each(Staged::persist)?;
        // A long training is worth more than its pictures: results are written first.
        drawn
            .and_then(|drawn| drawn.into_iter().try_for_each(Staged::persist))
            .context("the results are written, but not their report")
    }

    fn stage_summary(&self, summary: &Summary) -> Result<Staged> {
        let text = summary.text()?;
        Ok(self.folder.stage(SUMMARY, &|out| Ok(out.write_all(text.as_bytes())?)).context(UNCHANGED)?.0)
    }
}

/// The drawings of some files, ready to be renamed.
///
/// # Errors
/// Files that the program did not write, or an error of the system.
pub fn stage_drawings(folder: &Folder, files: &Files, overlay: Option<&Overlay>) -> Result<Vec<Staged>> {
    let stage = |(name, bytes): (String, Vec<u8>)| Ok(folder.stage(&name, &|out| Ok(out.write_all(&bytes)?))?.0);
    report::drawings(files, overlay)?.into_iter().map(stage).collect()
}

/// Draws the files of a folder again.
///
/// # Errors
/// Files that do not match the summary, or drawings that cannot be written.
pub fn redraw(folder: &Path, overlay: Option<&Overlay>) -> Result<()> {
    let interruption = Interruption::deferred()?;
    let folder = Folder::open(folder, &report::NAMES)?;
    let _lock = folder.lock(&interruption)?;
    let path = |name: &str| folder.path().join(name);
    let files = Files::new(&path);
    if sweep::is_comparison(&files.summary()?) {
        let staged = stage_drawings(&folder, &files, overlay)?;
        return staged.into_iter().try_for_each(Staged::persist);
    }
    let mut summary = Summary::read(&folder.path().join(SUMMARY))?;
    let sections = summary.names();
    summary.keep(|entry| entry.is_in(folder.path()));
    let missing: Vec<String> = sections.into_iter().filter(|name| !summary.names().contains(name)).collect();
    ensure!(
        missing.is_empty(),
        "the files of '{}' are not those that {SUMMARY} names; run that command again",
        missing.join("' and '")
    );
    let staged = stage_drawings(&folder, &files, overlay)?;
    if interruption.is_pending() {
        bail!("interrupted; the earlier report is unchanged");
    }
    report::remove(folder.path());
    staged.into_iter().try_for_each(Staged::persist)
}
