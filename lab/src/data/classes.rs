//! Classes from the labels of the rows.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail, ensure};

use super::number::{Point, is_missing, number};
use crate::shown::{look, shown};

/// The labels of the rows, each spelling stored once.
#[derive(Default)]
pub struct Labels {
    spellings: Vec<Spelling>,
    numbers: HashMap<String, usize>,
    rows: Vec<usize>,
}

struct Spelling {
    text: String,
    /// The first line that has it.
    line: usize,
}

impl Labels {
    /// Adds a row.
    pub fn push(&mut self, label: &str, line: usize) {
        let spelling = self.numbers.get(label).copied().unwrap_or_else(|| {
            self.numbers.insert(label.into(), self.spellings.len());
            self.spellings.push(Spelling { text: label.into(), line });
            self.spellings.len() - 1
        });
        self.rows.push(spelling);
    }

    /// Names of the classes in ascending order, and the class of each row.
    ///
    /// Numbers are compared by value, and ordered by value if all labels are numbers. Otherwise all labels are ordered
    /// by spelling, as `numpy.unique` orders them. From 2⁵³ on, different whole numbers may have the same value, so
    /// they are compared by spelling.
    ///
    /// # Errors
    /// A single class, a class in a single row, classes that look the same, or no class in a row.
    pub fn classes(self, point: Point) -> Result<(Vec<String>, Vec<usize>)> {
        self.check_missing(point)?;
        let values = || self.spellings.iter().map(|spelling| number(&spelling.text, point));
        let numeric = values().all(|value| value.is_some());

        let mut classes = BTreeMap::<String, Class>::new();
        for (i, (Spelling { text, line }, value)) in self.spellings.iter().zip(values()).enumerate() {
            let exact = value.filter(|x| x.abs() < 2f64.powi(53));
            let name = exact.map_or_else(|| text.clone(), spelled);
            let class = classes.entry(name).or_insert(Class { value, line: *line, spellings: vec![] });
            class.spellings.push(i);
        }
        let mut classes: Vec<(String, Class)> = classes.into_iter().collect();
        if numeric {
            classes.sort_by(|(_, a), (_, b)| a.value.unwrap_or(0.).total_cmp(&b.value.unwrap_or(0.)));
        }

        let mut class_of = vec![0; self.spellings.len()];
        for (number, (_, class)) in classes.iter().enumerate() {
            class.spellings.iter().for_each(|&spelling| class_of[spelling] = number);
        }
        let rows: Vec<usize> = self.rows.iter().map(|&spelling| class_of[spelling]).collect();
        check(&classes, &rows, numeric)?;
        Ok((classes.into_iter().map(|(name, _)| name).collect(), rows))
    }

    /// Among numbers, `nan` is a missing class; among words it may be a class.
    fn check_missing(&self, point: Point) -> Result<()> {
        let is_number = |text: &str| number(text, point).is_some();
        let is_none = |text: &str| is_missing(text) || text.parse::<f64>().is_ok_and(|x| !x.is_finite());
        let mut all = self.spellings.iter().map(|spelling| &spelling.text);
        let none = self.spellings.iter().find(|spelling| is_none(&spelling.text));
        if let Some(Spelling { text, line }) = none
            && all.clone().any(|text| is_number(text))
            && all.all(|text| is_number(text) || is_none(text))
        {
            bail!(
                "'{}' among numbers in line {line}: the class is missing; allowed: a finite number in every row",
                shown(text)
            )
        }
        Ok(())
    }
}

struct Class {
    value: Option<f64>,
    /// The first line that has it.
    line: usize,
    /// The spellings that name it.
    spellings: Vec<usize>,
}

fn check(classes: &[(String, Class)], rows: &[usize], numeric: bool) -> Result<()> {
    let mut looks = HashMap::<String, (&str, usize)>::new();
    for (name, class) in classes {
        if let Some((other, line)) = looks.insert(look(name), (name, class.line)) {
            bail!(
                "the classes '{}' (line {line}) and '{}' (line {}) look the same",
                shown(other),
                shown(name),
                class.line
            )
        }
    }
    if let [(name, _)] = classes {
        bail!("it has the single class '{}'; allowed: two classes or more", shown(name))
    }
    let mut members = vec![0; classes.len()];
    rows.iter().for_each(|&class| members[class] += 1);
    let single = members.iter().filter(|&&members| members == 1).count();
    ensure!(
        single < rows.len() && !(numeric && 2 * single >= rows.len()),
        "it has {} different values in {} rows, {single} of them once: a measurement, not a class; allowed: classes, each in \
         two rows or more",
        classes.len(),
        rows.len()
    );
    if let Some(alone) = members.iter().position(|&members| members == 1) {
        let (name, class) = &classes[alone];
        bail!(
            "it has class '{}' once, in line {}; a stratified split needs each class at least twice",
            shown(name),
            class.line
        )
    }
    Ok(())
}

/// The shortest spelling of a number: 0 of `0.0`.
fn spelled(x: f64) -> String {
    // Minus zero is zero.
    let text = format!("{:?}", x + 0.);
    text.strip_suffix(".0").unwrap_or(&text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(labels: &[&str]) -> Result<(Vec<String>, Vec<usize>), String> {
        let mut all = Labels::default();
        labels.iter().enumerate().for_each(|(i, label)| all.push(label, i + 2));
        all.classes(Point::Dot).map_err(|error| error.to_string())
    }

    #[test]
    fn classes_are_numbered_by_value_or_by_spelling() {
        for (labels, names, rows) in [
            (vec!["10", "9", "-1", "10", "9", "-1"], vec!["-1", "9", "10"], vec![2, 1, 0, 2, 1, 0]),
            (vec!["b", "a10", "a9", "a9", "a10", "b"], vec!["a10", "a9", "b"], vec![2, 0, 1, 1, 0, 2]),
            (vec!["0", "0.0", "1", "1.0", "1e0", "-0"], vec!["0", "1"], vec![0, 0, 1, 1, 1, 0]),
            (vec!["0.50", "1e20", ".5", "1e20"], vec!["0.5", "1e20"], vec![0, 1, 0, 1]),
            (vec!["1", "x", "1.0", "x"], vec!["1", "x"], vec![0, 1, 0, 1]),
            (vec!["nan", "x", "nan", "x"], vec!["nan", "x"], vec![0, 1, 0, 1]),
            (
                // Two whole numbers with the same f64.
                vec!["9007199254740993", "9007199254740992", "9007199254740993", "9007199254740992"],
                vec!["9007199254740992", "9007199254740993"],
                vec![1, 0, 1, 0],
            ),
        ] {
            assert_eq!(classes(&labels), Ok((names.into_iter().map(Into::into).collect(), rows)), "{labels:?}");
        }
    }

    #[test]
    fn what_is_no_class_is_named() {
        for (labels, parts) in [
            (vec!["1", "0", "nan", "1", "0", "nan"], ["'nan' among numbers in line 4", "missing"]),
            (vec!["1", "inf", "0", "1", "0", "inf"], ["'inf' among numbers in line 3", "missing"]),
            (vec!["1", "0", "1", "NA", "0"], ["'NA' among numbers in line 5", "missing"]),
            (vec!["a\u{200b}b", "ab", "a\u{200b}b", "ab"], ["'a\\u{200b}b' (line 2)", "'ab' (line 3)"]),
            (vec!["x", "x"], ["single class 'x'", "two classes"]),
            (vec!["x", "x", "y"], ["class 'y' once", "line 4"]),
            (vec!["x", "y", "z"], ["3 different values in 3 rows", "a measurement, not a class"]),
            (vec!["1.5", "2.25", "3", "3"], ["3 different values in 4 rows", "2 of them once"]),
        ] {
            let error = classes(&labels).unwrap_err();
            parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
        }
    }
}
