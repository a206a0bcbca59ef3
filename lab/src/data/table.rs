//! A table read from a CSV file.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::Rows;
use crate::unknown;

/// A table of numbers with a class each.
pub(super) struct Table {
    pub(super) features: usize,
    pub(super) classes: Vec<String>,
    pub(super) rows: Rows,
}

/// Reads a file whose first line names the columns; `target` is the class, all others are numbers.
///
/// Classes are numbered in ascending order, numbers by value and words by spelling, as `numpy.unique` does.
pub(super) fn read(path: &Path, target: &str) -> Result<Table> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the data file '{name}'"))?;
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0')) else {
        bail!("the data file '{name}' is not text; allowed: a CSV file in UTF-8")
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    ensure!(!text.trim().is_empty(), "the data file '{name}' is empty");

    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers()?.iter().map(Into::into).collect();
    check_header(&columns, &name.to_string())?;
    if !columns.iter().any(|column| column == target) {
        bail!("{name}, line 1: {}", unknown("target column", target, columns))
    }

    let (mut x, mut labels) = (vec![], vec![]);
    for record in reader.records() {
        let record = record.map_err(|error| ragged(&error, &name.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        for (column, cell) in columns.iter().zip(&record) {
            if column == target {
                ensure!(!cell.is_empty(), "{name}, line {line}, column '{column}': the class is missing");
                labels.push(cell.to_owned());
            } else {
                match cell.parse::<f64>() {
                    Ok(number) if number.is_finite() => x.push(number),
                    _ => bail!("{name}, line {line}, column '{column}': '{cell}' is not a finite number"),
                }
            }
        }
    }
    ensure!(!labels.is_empty(), "the data file '{name}' has a header but no rows");
    let (classes, y) = number_classes(&labels);
    ensure!(
        classes.len() >= 2,
        "column '{target}' of '{name}' has the single class '{}'; allowed: two classes or more",
        classes[0]
    );
    for (class, label) in classes.iter().enumerate() {
        let members = y.iter().filter(|&&member| member == class).count();
        ensure!(
            members >= 2,
            "column '{target}' of '{name}' has class '{label}' once; a stratified split needs each class at least twice"
        );
    }
    Ok(Table { features: columns.len() - 1, classes, rows: Rows { x, y } })
}

fn check_header(columns: &[String], name: &str) -> Result<()> {
    ensure!(
        columns.len() >= 2,
        "the data file '{name}' has the single column '{}'; allowed: columns separated by commas",
        columns[0]
    );
    let numbers = columns.iter().all(|column| column.parse::<f64>().is_ok());
    ensure!(!numbers, "{name}, line 1: all cells are numbers; the first line must name the columns");
    let mut seen = HashSet::new();
    for column in columns {
        ensure!(seen.insert(column), "{name}, line 1: the column '{column}' stands twice");
    }
    Ok(())
}

fn ragged(error: &csv::Error, name: &str) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            anyhow::anyhow!("{name}, line {line}: {len} cells, but the first line names {expected_len} columns")
        }
        _ => anyhow::anyhow!("{name}: {error}"),
    }
}

/// Names of the classes in ascending order, and the class of each label.
fn number_classes(labels: &[String]) -> (Vec<String>, Vec<usize>) {
    let mut classes: Vec<&String> = BTreeMap::from_iter(labels.iter().map(|label| (label, ()))).into_keys().collect();
    if let Ok(mut numbers) = classes
        .iter()
        .map(|label| Ok((label.parse::<f64>()?, *label)))
        .collect::<Result<Vec<_>, std::num::ParseFloatError>>()
    {
        numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
        classes = numbers.into_iter().map(|(_, label)| label).collect();
    }
    let number: BTreeMap<&String, usize> = classes.iter().enumerate().map(|(class, label)| (*label, class)).collect();
    let y = labels.iter().map(|label| number[label]).collect();
    (classes.into_iter().cloned().collect(), y)
}

#[cfg(test)]
mod tests {
    use super::number_classes;

    #[test]
    fn classes_are_numbered_by_value_or_by_spelling() {
        let classes = |labels: &[&str]| number_classes(&labels.iter().map(|&s| s.into()).collect::<Vec<_>>());
        assert_eq!(classes(&["10", "9", "10", "-1"]), (vec!["-1".into(), "9".into(), "10".into()], vec![2, 1, 2, 0]));
        assert_eq!(classes(&["b", "a10", "a9"]), (vec!["a10".into(), "a9".into(), "b".into()], vec![2, 0, 1]));
    }
}
