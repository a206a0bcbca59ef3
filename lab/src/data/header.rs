//! The header of a table: the names of its columns, and the role of each.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::cells::{Cell, Records, line_of};
use super::number::{Point, number};
use crate::shown::{look, shown, trim};
use crate::{unknown, unknown_column};

/// The roles of the columns of a file.
#[derive(Clone, Debug)]
pub struct Columns {
    /// The column that is predicted.
    pub target: String,
    /// What it contains.
    pub task: TaskType,
    /// The columns of numbers that are the features.
    pub features: Features,
}

/// What is predicted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TaskType {
    /// A class.
    #[default]
    Classification,
    /// A number.
    Regression,
}

impl TaskType {
    const ALL: [Self; 2] = [Self::Classification, Self::Regression];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Regression => "regression",
        }
    }
}

impl FromStr for TaskType {
    type Err = candle_optim::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|task| task.name() == text);
        found.ok_or_else(|| unknown("task type", text, Self::ALL.map(Self::name)))
    }
}

/// Columns of numbers. One text may name several, separated by commas.
#[derive(Clone, Debug)]
pub enum Features {
    /// All but the target and these columns.
    AllBut(Vec<String>),
    /// Only these columns.
    Only(Vec<String>),
}

impl Columns {
    /// The target is a class, and all other columns are numbers.
    pub fn with_target(target: &str) -> Self {
        Self { target: target.into(), task: TaskType::Classification, features: Features::AllBut(vec![]) }
    }
}

/// The first line that is not empty, and the roles of the columns below it.
pub struct Header {
    /// Names of all columns; an empty name for a column without one.
    pub names: Vec<String>,
    /// The column that is predicted.
    pub target: usize,
    /// The columns of numbers.
    pub features: Vec<usize>,
}

impl Header {
    /// Reads the header; nothing if all lines are empty.
    ///
    /// # Errors
    /// Names that are numbers, missing or duplicates, or chosen columns that do not exist.
    pub fn read(records: &mut Records, text: &str, columns: &Columns, notes: &mut Vec<String>) -> Result<Option<Self>> {
        let mut cells = vec![];
        let at = loop {
            match records.next(&mut cells)? {
                Some(_) if cells.len() == 1 && cells[0].is_empty() => {}
                Some(at) => break at,
                None => return Ok(None),
            }
        };
        let names: Vec<String> = cells.iter().map(|cell| cell.text.to_string()).collect();
        let header = Self::of(names, columns, notes).with_context(|| format!("line {}", line_of(text, at)))?;
        Ok(Some(header))
    }

    fn of(names: Vec<String>, columns: &Columns, notes: &mut Vec<String>) -> Result<Self> {
        let named: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        ensure!(!named.is_empty(), "no column has a name; the first line must name the columns");
        ensure!(
            names.len() >= 2,
            "the single column '{}'; allowed: columns separated by commas, semicolons or tabs",
            shown(named[0])
        );
        // A name is also accepted as messages show it, so that it can be copied from them.
        let find = |name: &str| {
            let all = || names.iter().enumerate().filter(|(_, other)| !other.is_empty());
            let mut alike = all().filter(|(_, other)| shown(other) == trim(name));
            let exact = all().find(|(_, other)| *other == trim(name));
            exact.or_else(|| alike.next().filter(|_| alike.next().is_none())).map(|(column, _)| column)
        };
        let target = find(&columns.target);
        let is_number = |name: &&str| number(&name.replace(',', "."), Point::Dot).is_some();
        let numbers = named.iter().copied().filter(is_number).count();
        ensure!(
            numbers < named.len() && (target.is_some() || 2 * numbers < named.len()),
            "{numbers} of {} names are numbers; the first line must name the columns",
            named.len()
        );
        let mut seen = HashMap::new();
        for name in &named {
            if let Some(other) = seen.insert(look(name), name) {
                ensure!(other != name, "the column '{}' stands twice", shown(name));
                bail!("the columns '{}' and '{}' look the same", shown(other), shown(name))
            }
        }
        let unnamed: Vec<usize> = (0..names.len()).filter(|&column| names[column].is_empty()).collect();
        match unnamed.as_slice() {
            [] => {}
            [column] => notes.push(format!("column {} has no name and is left out", column + 1)),
            [first, .., last] => notes.push(format!(
                "{} columns between {} and {} have no name and are left out",
                unnamed.len(),
                first + 1,
                last + 1
            )),
        }

        let target = target.ok_or_else(|| unknown_column("target column", &columns.target, &named))?;
        let features = |option: &str, texts: &[String]| -> Result<HashSet<usize>> {
            // A name may contain a comma; otherwise the text is a list.
            let listed = |text| if find(text).is_some() { vec![text] } else { text.split(',').collect() };
            let others = || named.iter().copied().filter(|name| *name != names[target]).collect::<Vec<_>>();
            let what = format!("column of {option}");
            let column = |name: &str| find(name).ok_or_else(|| unknown_column(&what, name, &others()));
            let found =
                texts.iter().map(String::as_str).flat_map(listed).map(column).collect::<Result<HashSet<_>, _>>()?;
            ensure!(
                !found.contains(&target),
                "{option} has the target '{}'; allowed: other columns",
                shown(&names[target])
            );
            Ok(found)
        };
        let others = (0..names.len()).filter(|column| *column != target && !names[*column].is_empty());
        let features: Vec<usize> = match &columns.features {
            Features::AllBut(texts) => {
                let dropped = features("--drop", texts)?;
                others.filter(|column| !dropped.contains(column)).collect()
            }
            Features::Only(texts) => {
                let kept = features("--features", texts)?;
                others.filter(|column| kept.contains(column)).collect()
            }
        };
        ensure!(!features.is_empty(), "no column is left besides the target; allowed: one column of numbers or more");
        Ok(Self { names, target, features })
    }

    /// Checks that a row has a cell for each column. Unnamed columns at the end may be absent, and empty cells may
    /// follow.
    pub fn check_length(&self, cells: &[Cell]) -> Result<()> {
        let named = self.names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let extra = cells.get(self.names.len()..).unwrap_or_default();
        let fits = extra.iter().all(Cell::is_empty);
        let quotes = if fits { "" } else { "; a cell with a separator in it needs quotes" };
        ensure!(
            cells.len() >= named && fits,
            "{} cells, but the first line names {} columns{quotes}",
            cells.len(),
            self.names.len()
        );
        Ok(())
    }
}
