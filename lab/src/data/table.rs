//! A table of numbers with a class or a number each, from the bytes of a CSV file.

use anyhow::{Context, Result, bail, ensure};

use super::cells::{Cell, Records, line_ends, line_of};
use super::classes::Labels;
use super::decode::decode;
use super::header::{Columns, Features, Header, TaskType};
use super::number::{Point, number, ungrouped, why_not};
use super::{Rows, Targets};
use crate::shown::{shown, trim};

/// A table of finite numbers, with a class or a number each to predict.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns of numbers.
    pub columns: Vec<String>,
    /// The name of the column that is predicted.
    pub target: String,
    /// Names of the classes; none if numbers are predicted.
    pub classes: Vec<String>,
    /// All rows, in the order of the file.
    pub rows: Rows,
    /// The line of each row, as an editor shows it.
    pub lines: Vec<usize>,
    /// What the reader decided and the user may want to know, one line each.
    pub notes: Vec<String>,
}

/// Reads a CSV file whose first line names the columns.
///
/// # Errors
/// Bytes that are not a table of numbers with a class or a number each. The message is one line that names the line and
/// the column.
pub fn read(bytes: &[u8], columns: &Columns) -> Result<Table> {
    let text = decode(bytes)?;
    let mut notes = vec![];
    let (separator, begin) = declared_separator(&text).unwrap_or_else(|| (separator(&text), 0));
    if separator != b',' {
        let name = if separator == b';' { "semicolons" } else { "tabs" };
        notes.push(format!("cells are separated by {name}"));
    }
    let mut records = Records::new(&text, separator).from(begin);
    let Some(header) = Header::read(&mut records, &text, columns, &mut notes)? else { bail!("the file is empty") };

    let (at, mut cells) = (records.at(), vec![]);
    let (point, dotted) =
        if separator == b',' { (Point::Dot, None) } else { point(&mut records, &text, &header, &mut notes) };
    let mut records = records.from(at);
    let (mut x, mut labels, mut numbers, mut lines) = (vec![], Labels::default(), vec![], vec![]);
    let (mut line, mut counted) = (line_of(&text, at), at);
    while let Some(at) = records.next(&mut cells)? {
        if cells.iter().all(Cell::is_empty) {
            continue;
        }
        line += line_ends(&text, counted, at);
        counted = at;
        header.check_length(&cells).with_context(|| format!("line {line}"))?;
        let number_in = |column: usize| {
            let cell = &cells[column];
            number(&cell.text, point).with_context(|| {
                let line = line_of(&text, cell.at);
                let is_target = column == header.target;
                let or = if is_target { "take --task-type classification" } else { "leave the column out by --drop" };
                let why = why_not(&cell.text, point, or);
                let dotted = dotted.iter().filter(|_| number(&cell.text, Point::Comma).is_some());
                let dotted: String = dotted.map(|dotted| format!("; {dotted} has a point")).collect();
                format!("line {line}, column '{}': {why}{dotted}", shown(&header.names[column]))
            })
        };
        for &column in &header.features {
            x.push(number_in(column)?);
        }
        lines.push(line);
        if columns.task == TaskType::Regression {
            numbers.push(number_in(header.target)?);
            continue;
        }
        let label = &cells[header.target].text;
        let why = if label.is_empty() {
            Some("the class is missing; allowed: a word or a number in every row".into())
        } else if label.contains(['\n', '\r']) {
            Some(format!("a line break is in '{}'; a quote is missing, or one too many", shown(label)))
        } else {
            None
        };
        if let Some(why) = why {
            bail!("line {line}, column '{}': {why}", shown(&header.names[header.target]))
        }
        labels.push(label, line);
    }
    ensure!(!lines.is_empty(), "the file has a header but no rows");

    let target = || format!("column '{}'", shown(&header.names[header.target]));
    let (classes, y) = match columns.task {
        TaskType::Classification => {
            let (classes, y) = labels.classes(point).with_context(target)?;
            (classes, Targets::Classes(y))
        }
        TaskType::Regression => {
            let differ = numbers.iter().any(|x| *x != numbers[0]);
            ensure!(differ, "{}: every row has the number {}; allowed: numbers that differ", target(), numbers[0]);
            (vec![], Targets::Numbers(numbers))
        }
    };
    let (width, names) = (header.features.len(), header.features.iter().map(|&column| &header.names[column]));
    for (i, name) in names.clone().enumerate().filter(|_| matches!(columns.features, Features::AllBut(_))) {
        if (width + i..x.len()).step_by(width).all(|below| x[below] - x[below - width] == 1.) {
            notes.push(format!("column '{0}' counts the rows; --drop '{0}' leaves it out", shown(name)));
        }
    }
    let columns = names.cloned().collect();
    let target = header.names[header.target].clone();
    Ok(Table { columns, target, classes, rows: Rows { x, y }, lines, notes })
}

/// The separator that a first line `sep=;` declares, as Excel writes and reads it, and the end of that declaration.
fn declared_separator(text: &str) -> Option<(u8, usize)> {
    match text.as_bytes() {
        [b's', b'e', b'p', b'=', separator @ (b',' | b';' | b'\t'), b'\r' | b'\n', ..] => Some((*separator, 5)),
        _ => None,
    }
}

/// The most frequent separator of the header outside quotes.
fn separator(text: &str) -> u8 {
    let mut header = text;
    while let Some((line, rest)) = header.split_once(['\r', '\n'])
        && trim(line).is_empty()
    {
        header = rest;
    }
    let (mut quoted, mut begins) = (false, true);
    let mut counts = [(b'\t', 0), (b';', 0), (b',', 0)];
    for byte in header.bytes() {
        // A quote opens only at the beginning of a cell, and again right after a closing quote.
        let quote = byte == b'"' && (quoted || begins);
        quoted ^= quote;
        begins = quote || matches!(byte, b'\t' | b';' | b',') || begins && byte == b' ';
        if !quoted && matches!(byte, b'\r' | b'\n') {
            break;
        }
        counts.iter_mut().filter(|(separator, _)| !quoted && *separator == byte).for_each(|(_, count)| *count += 1);
    }
    // `max_by_key` takes the last of equal counts: the comma.
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(b',', |(separator, _)| separator)
}

/// The decimal point of the numbers: a comma if a number has one and none has a dot. Also returns a number with a dot.
fn point(records: &mut Records, text: &str, header: &Header, notes: &mut Vec<String>) -> (Point, Option<String>) {
    let (mut cells, mut example, mut ambiguous) = (vec![], None, true);
    // An error here is reported when the rows are read.
    while let Ok(Some(_)) = records.next(&mut cells) {
        for cell in header.features.iter().chain([&header.target]).filter_map(|&column| cells.get(column)) {
            if cell.text.contains('.') && number(&cell.text, Point::Dot).is_some() {
                let dotted = format!("'{}' in line {}", shown(&cell.text), line_of(text, cell.at));
                return (Point::Dot, Some(dotted));
            }
            if cell.text.contains(',') && number(&cell.text, Point::Comma).is_some() {
                let unlike_thousands = ungrouped(&cell.text).is_none();
                if example.is_none() || unlike_thousands && ambiguous {
                    example = Some(cell.text.to_string());
                }
                ambiguous &= !unlike_thousands;
            }
        }
    }
    let Some(example) = example else { return (Point::Dot, None) };
    let value = shown(&example.replace(',', "."));
    let doubt = if ambiguous { "; if commas separate thousands, remove them" } else { "" };
    notes.push(format!("numbers have a decimal comma: '{}' is {value}{doubt}", shown(&example)));
    (Point::Comma, None)
}
