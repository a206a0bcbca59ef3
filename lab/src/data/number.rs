//! Numbers as cells spell them.

use crate::shown::{is_invisible, shown};

/// What separates the whole part of a number from its fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    /// `1.5`
    Dot,
    /// `1,5`
    Comma,
}

impl Point {
    fn of(self, number: &str) -> String {
        if self == Self::Comma { number.replace('.', ",") } else { number.into() }
    }
}

/// The finite number that a cell holds.
pub fn number(cell: &str, point: Point) -> Option<f64> {
    let read = match point {
        Point::Comma if cell.contains('.') => return None,
        Point::Comma if cell.contains(',') => cell.replacen(',', ".", 1).parse(),
        _ => cell.parse::<f64>(),
    };
    read.ok().filter(|x| x.is_finite())
}

/// Whether the text marks a missing value.
pub fn is_missing(cell: &str) -> bool {
    matches!(cell.to_lowercase().as_str(), "" | "-" | "?" | "na" | "n/a" | "#n/a" | "nan" | "-nan" | "none" | "null")
}

/// A number without its thousands separators, with a decimal point: 1234.5 for `1,234.5`.
pub fn ungrouped(cell: &str) -> Option<String> {
    let cell: String = cell
        .chars()
        .map(|c| match c {
            '’' | '_' => '\'',
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect();
    let (sign, digits) = cell.strip_prefix('-').map_or(("", cell.as_str()), |digits| ("-", digits));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    [(',', '.'), ('.', ','), (' ', '.'), (' ', ','), ('\'', '.'), ('\'', ',')].into_iter().find_map(|(group, point)| {
        let (whole, fraction) = digits.split_once(point).map_or((digits, None), |(a, b)| (a, Some(b)));
        let mut groups = whole.split(group);
        let first = groups.next().filter(|first| first.len() <= 3 && all_digits(first) && !first.starts_with('0'))?;
        let rest: Vec<&str> = groups.collect();
        let grouped = !rest.is_empty() && rest.iter().all(|group| group.len() == 3 && all_digits(group));
        let fraction = match fraction {
            Some(fraction) if all_digits(fraction) => format!(".{fraction}"),
            Some(_) => return None,
            None => String::new(),
        };
        grouped.then(|| format!("{sign}{first}{}{fraction}", rest.concat()))
    })
}

/// Why a cell is not a number, and what to change. `or` replaces the advice if the cell is not a number at all. The
/// file uses this decimal `point`.
pub fn why_not(cell: &str, point: Point, or: &str) -> String {
    let dotted = |cell: &str| shown(&cell.replace(',', "."));
    let plain: String =
        cell.chars().filter(|&c| !is_invisible(c)).map(|c| if MINUS.contains(&c) { '-' } else { c }).collect();
    let strange = cell.chars().find(|&c| is_invisible(c) || MINUS.contains(&c));
    let why = if is_missing(cell) {
        "the value is missing; allowed: a number in every row".into()
    } else if cell.contains(['\n', '\r']) {
        "a line break is in it; a quote is missing, or one too many".into()
    } else if cell.parse::<f64>().is_ok_and(f64::is_infinite) {
        format!("allowed: -{MOST} to {MOST}")
    } else if let Some(strange) = strange.filter(|_| number(&plain, point).is_some()) {
        format!("U+{:04X} is in it; write {}", u32::from(strange), shown(&plain))
    } else if let Some(plain) = ungrouped(cell) {
        let decimal = number(cell, Point::Comma).filter(|_| cell.contains(','));
        let if_decimal = decimal.map_or(String::new(), |_| format!(", or {} if the comma is decimal", dotted(cell)));
        format!("thousands are separated; write {}{if_decimal}", shown(&point.of(&plain)))
    } else if number(cell, Point::Comma).is_some() {
        format!(
            "a decimal comma is read only where semicolons or tabs separate the cells and no number has a point; \
             write {}",
            dotted(cell)
        )
    } else {
        format!("write a number, or {or}")
    };
    format!("'{}' is not a finite number: {why}", shown(cell))
}

/// Characters that look like a minus: the minus sign, hyphens and dashes.
const MINUS: [char; 6] = ['\u{2212}', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{fe63}'];
const MOST: &str = "1.7976931348623157e308";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_either_point() {
        for (cell, dot, comma) in [
            ("1", Some(1.), Some(1.)),
            ("1.5", Some(1.5), None),
            ("1,5", None, Some(1.5)),
            ("-,5e3", None, Some(-500.)),
            ("1,234,567", None, None),
            ("1.234,5", None, None),
            ("inf", None, None),
            ("NaN", None, None),
            ("1e999", None, None),
            ("", None, None),
        ] {
            assert_eq!((number(cell, Point::Dot), number(cell, Point::Comma)), (dot, comma), "{cell}");
        }
    }

    #[test]
    fn thousands_are_known_by_groups_of_three_digits() {
        for (cell, expected) in [
            ("1,234.5", Some("1234.5")),
            ("1.234,5", Some("1234.5")),
            ("1.234.567", Some("1234567")),
            ("-1 234", Some("-1234")),
            ("1\u{202f}234,25", Some("1234.25")),
            ("1'234", Some("1234")),
            ("1’234’567.8", Some("1234567.8")),
            ("12,34", None),
            ("0,125", None),
            ("1,2345", None),
            ("1234", None),
            ("a,123", None),
            ("", None),
        ] {
            assert_eq!(ungrouped(cell).as_deref(), expected, "{cell}");
        }
    }

    #[test]
    fn an_error_of_a_cell_says_how_to_write_the_number() {
        for (cell, part) in [
            ("", "missing"),
            ("n/a", "missing"),
            ("-nan", "missing"),
            ("1e999", "allowed: -1.797"),
            ("1\n2", "line break"),
            ("4\u{200b}2", "U+200B is in it; write 42"),
            ("\u{2212}42", "U+2212 is in it; write -42"),
            ("1,234.5", "write 1234.5"),
            ("1,234", "write 1234, or 1.234 if"),
            ("1,5", "write 1.5"),
            ("12 %", "--drop"),
        ] {
            let why = why_not(cell, Point::Dot, "leave the column out by --drop");
            assert!(why.contains(part), "{cell}: {why}");
        }
        assert!(why_not("1.234,5", Point::Comma, "").ends_with("write 1234,5"));
    }
}
