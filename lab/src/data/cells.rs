//! Records and cells of a CSV text (RFC 4180), with the position of each.
//!
//! The crate `csv` accepts a quote that is never closed, and text behind a closing quote: either swallows rows. It
//! counts lines by `\n` and does not say where a cell begins.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};

use crate::shown::{shown, trim};

/// The most cells of a line.
const MOST: usize = 1_000_000;

/// A cell.
#[derive(Debug)]
pub struct Cell<'a> {
    /// Its text, without quotes, and without spaces and invisible characters at both ends.
    pub text: Cow<'a, str>,
    /// The byte where it begins.
    pub at: usize,
}

impl Cell<'_> {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// The records of a text, one after the other.
pub struct Records<'a> {
    text: &'a str,
    separator: u8,
    at: usize,
}

impl<'a> Records<'a> {
    /// The records of `text`, whose cells are separated by `separator`.
    pub fn new(text: &'a str, separator: u8) -> Self {
        Self { text, separator, at: 0 }
    }

    /// The byte where the next record begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The records from byte `at`, where one begins.
    pub fn from(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// Reads the next record into `cells` and returns the byte where it begins; nothing at the end. An empty line is a
    /// record with an empty cell.
    ///
    /// # Errors
    /// A quote that is not closed, or text behind a closing quote; the message names the line.
    pub fn next(&mut self, cells: &mut Vec<Cell<'a>>) -> Result<Option<usize>> {
        cells.clear();
        let begin = self.at;
        if begin == self.text.len() {
            return Ok(None);
        }
        let bytes = self.text.as_bytes();
        loop {
            ensure!(
                cells.len() < MOST,
                "line {}: more than {MOST} cells, which is the most allowed",
                line_of(self.text, begin)
            );
            cells.push(self.cell()?);
            match bytes.get(self.at) {
                Some(&byte) if byte == self.separator => {
                    self.at += 1;
                    continue;
                }
                Some(b'\r') if bytes.get(self.at + 1) == Some(&b'\n') => self.at += 2,
                Some(_) => self.at += 1,
                None => {}
            }
            return Ok(Some(begin));
        }
    }

    /// Reads a cell up to the separator or the line end behind it.
    fn cell(&mut self) -> Result<Cell<'a>> {
        let at = self.skip_spaces(self.at);
        if self.text.as_bytes().get(at) == Some(&b'"') {
            return self.quoted(at);
        }
        self.at = self.end(at);
        Ok(Cell { text: trim(&self.text[at..self.at]).into(), at })
    }

    fn quoted(&mut self, at: usize) -> Result<Cell<'a>> {
        let mut text = Cow::from("");
        let mut from = at + 1;
        loop {
            let Some(length) = self.text[from..].find('"') else {
                bail!("line {}: a quote is opened here and never closed", line_of(self.text, at))
            };
            text += &self.text[from..from + length];
            from += length + 1;
            if self.text.as_bytes().get(from) != Some(&b'"') {
                break;
            }
            text += "\"";
            from += 1;
        }
        self.at = self.skip_spaces(from);
        let behind = &self.text[self.at..self.end(self.at)];
        if !behind.is_empty() {
            let (opened, closed) = (line_of(self.text, at), line_of(self.text, from));
            bail!(
                "line {opened}: a quote is opened here, closed in line {closed}, and '{}' follows it; \
                 a quote inside of quotes is written twice",
                shown(behind)
            )
        }
        let text = match text {
            Cow::Borrowed(text) => trim(text).into(),
            Cow::Owned(text) => trim(&text).to_owned().into(),
        };
        Ok(Cell { text, at })
    }

    fn skip_spaces(&self, from: usize) -> usize {
        let is_space = |&&byte: &&u8| matches!(byte, b' ' | b'\t') && byte != self.separator;
        from + self.text.as_bytes()[from..].iter().take_while(is_space).count()
    }

    /// The next separator or line end.
    fn end(&self, from: usize) -> usize {
        let mut rest = self.text.as_bytes()[from..].iter();
        let length = rest.position(|&byte| byte == self.separator || is_line_end(byte));
        length.map_or(self.text.len(), |length| from + length)
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// The line, from 1, that an editor shows for byte `at` of `text`. Lines end in `\n`, `\r\n` or `\r`.
pub fn line_of(text: &str, at: usize) -> usize {
    1 + line_ends(text, 0, at)
}

/// The number of lines that end in bytes `from..to` of `text`, where `from` is the beginning or the end of a line.
pub fn line_ends(text: &str, from: usize, to: usize) -> usize {
    let bytes = text.as_bytes();
    let ends = |&i: &usize| bytes[i] == b'\n' || bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n');
    (from..to).filter(ends).count()
}
