//! Text from the bytes of a file.

use std::borrow::Cow;

use anyhow::{Result, bail};

use super::cells::line_of;

/// The text of a file in UTF-8, or in UTF-16 that starts with a byte order mark.
///
/// # Errors
/// Bytes in another encoding, or a NUL; the message names the first line that has one.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?.into(),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?.into(),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest)?.into(),
        _ => Cow::from(utf8(bytes)?),
    };
    check_nul(&text)?;
    Ok(text)
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let (read, rest) = bytes.split_at(error.valid_up_to());
            let read = std::str::from_utf8(read)?;
            check_nul(read)?;
            bail!("line {}: not UTF-8: the byte 0x{:02x}; {SAVE}", line_of(read, read.len()), rest[0])
        }
    }
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<String> {
    let units = bytes.chunks(2).map(|pair| pair.try_into().map_or(LONE, &unit));
    let mut text = String::new();
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(c) => text.push(c),
            Err(_) => bail!("line {}: not UTF-16: half a character; {SAVE}", line_of(&text, text.len())),
        }
    }
    Ok(text)
}

/// A surrogate without its other half.
const LONE: u16 = 0xdc00;

const SAVE: &str = "save the table as CSV in UTF-8";

fn check_nul(text: &str) -> Result<()> {
    let Some(at) = text.find('\0') else { return Ok(()) };
    bail!("line {}: not text: a NUL byte, as in UTF-16 or in a program's own format; {SAVE}", line_of(text, at))
}
