//! `report.html`: the results of a folder in one file that needs no network.
//!
//! The page is made of the folder's files alone, so that `report DIR` makes it again to the byte.
//! The page depends on the folder's files alone, so `report DIR` reproduces it byte for byte.
//! | module | what |
//! |---|---|
//! | `figure` | what a figure shows |
//! | `look` | names and looks of optimizers |
//! | `curves` | losses and accuracies by epoch |
//! | `networks` | predictions, the surface of the loss, norms |
//! | `training`, `minimization` | the sections of those commands; that of a comparison is in `sweep` |
//! | `overlay` | the curves of another run |
//! | `page` | the file |

pub mod curves;
pub mod figure;
pub mod look;
mod minimization;
pub mod networks;
mod overlay;
mod page;
mod training;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use serde_json::Value;

use crate::output::SUMMARY;
use crate::plot::{Panels, Picture};
use crate::shown::{shown, shown_path};
use crate::summary::{MINIMIZE, TRAIN};
use crate::sweep;
use figure::Section;
pub use overlay::Overlay;

/// The page's name.
pub const REPORT: &str = "report.html";
/// The page and the pictures that are drawn with it.
pub const NAMES: [&str; 11] = [
    REPORT,
    "predictions.png",
    "predictions.svg",
    "surface.png",
    "surface.svg",
    "norms.png",
    "norms.svg",
    "minimize.png",
    "minimize.svg",
    "path.png",
    "path.svg",
];
/// The picture that a training or a comparison draws itself.
pub const COMPARISON: &str = "comparison";
/// The most bytes of a page that mail and chat usually accept.
const MOST: usize = 2_000_000;

/// The files of a folder.
pub struct Files<'a> {
    path: &'a dyn Fn(&str) -> PathBuf,
}

impl<'a> Files<'a> {
    /// The files at the paths that `path` gives for their names.
    pub fn new(path: &'a dyn Fn(&str) -> PathBuf) -> Self {
        Self { path }
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        (self.path)(name)
    }

    /// Whether a file of this name exists.
    pub fn has(&self, name: &str) -> bool {
        (self.path)(name).is_file()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file does not exist, or is malformed; the message has its name.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let open = || File::open((self.path)(name)).map_err(anyhow::Error::from);
        open().and_then(|file| read(&mut BufReader::new(file))).with_context(|| format!("'{name}'"))
    }

    /// Reads the summary.
    ///
    /// # Errors
    /// See [`Files::read`].
    pub fn summary(&self) -> Result<Value> {
        self.read(SUMMARY, |file| Ok(serde_json::from_reader(file)?))
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// See [`Files::read`].
    pub fn text(&self, name: &str) -> Result<String> {
        self.read(name, |file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        })
    }
}

/// The page of a folder's files, and its pictures. If there are many optimizers, the lines have fewer points, so that
/// the page stays small.
///
/// # Errors
/// Files that the program did not write, or an overlay that does not match.
pub fn drawings(files: &Files, overlay: Option<&Overlay>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut points = curves::POINTS;
    loop {
        let sections = sections(files, overlay, points)?;
        let page = page::page(&sections)?;
        if page.len() <= MOST || points < 20 {
            let mut drawings = pictures(&sections)?;
            drawings.push((REPORT.into(), page));
            return Ok(drawings);
        }
        points /= 2;
    }
}

/// The pictures beside the page, except those that the command itself has drawn.
fn pictures(sections: &[Section]) -> Result<Vec<(String, Vec<u8>)>> {
    let figures = sections.iter().flat_map(|section| section.figures.iter().map(move |figure| (section, figure)));
    let all: Vec<_> =
        figures.filter_map(|(section, figure)| Some((section, figure, figure.picture.as_ref()?))).collect();
    let files = all.into_par_iter().filter(|(.., name)| *name != COMPARISON).map(|(section, figure, name)| {
        let picture = Panels::new(&section.title, figure, &section.optimizers);
        Ok([(format!("{name}.png"), picture.png()?), (format!("{name}.svg"), picture.svg()?.into_bytes())])
    });
    Ok(files.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Removes the page and the pictures of a folder: its files are about to change.
pub fn remove(folder: &Path) {
    for name in NAMES {
        let _ = std::fs::remove_file(folder.join(name));
    }
}

fn sections(files: &Files, overlay: Option<&Overlay>, points: usize) -> Result<Vec<Section>> {
    let summary = files.summary()?;
    if sweep::is_comparison(&summary) {
        ensure!(overlay.is_none(), "--overlay is for a training, and this is a comparison");
        return sweep::sections(&summary, files, points);
    }
    let mut sections = vec![];
    if let Some(section) = summary.get(TRAIN) {
        sections.push(training::section(section, files, overlay, points)?);
    }
    if let Some(section) = summary.get(MINIMIZE) {
        sections.push(minimization::section(section, files, points)?);
    }
    ensure!(overlay.is_none() || summary.get(TRAIN).is_some(), "--overlay is for a training, and there is none");
    ensure!(!sections.is_empty(), "'{SUMMARY}' has no results");
    Ok(sections)
}

/// Writes the page of a folder again. Returns its path.
///
/// # Errors
/// A folder without results, files that have changed, or a page that cannot be written.
pub fn report(folder: &Path, overlay: Option<&Path>) -> Result<PathBuf> {
    let named = || format!("'{}'", shown_path(folder));
    ensure!(folder.is_dir(), "{} is no folder; allowed: one with the results of train, minimize or sweep", named());
    if !folder.join(SUMMARY).is_file() {
        if folder.join(sweep::EXPERIMENT).is_file() {
            bail!("the comparison in {} is not complete; `candle-optim run` or `merge` completes it", named());
        }
        bail!("{} has no {SUMMARY}; allowed: a folder with the results of train, minimize or sweep", named());
    }
    let overlay = overlay.map(Overlay::open).transpose()?;
    crate::output::redraw(folder, overlay.as_ref()).with_context(|| format!("the report of {}", named()))?;
    Ok(folder.join(REPORT))
}

/// A configuration as keys and values.
pub fn facts(configuration: &Value, versions: &Value) -> Vec<(String, String)> {
    let mut facts = vec![];
    flatten("", configuration, &mut facts);
    flatten("version", versions, &mut facts);
    facts
}

fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let name = if name.is_empty() { key.clone() } else { format!("{name} {key}") };
                flatten(&name, value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => into.push((name.replace('_', " "), shown(text))),
        Value::Array(items) => {
            let text = |item: &Value| item.as_str().map_or_else(|| item.to_string(), shown);
            let items = items.iter().take(12).map(text).collect::<Vec<_>>().join(", ");
            into.push((name.replace('_', " "), shown(&items)));
        }
        other => into.push((name.replace('_', " "), other.to_string())),
    }
}
