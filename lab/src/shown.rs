//! Text from a file or a name, as a message may show it.

use std::path::Path;

/// At most this many characters of a text are shown.
const WIDTH: usize = 40;

/// The start of `text`, with control and invisible characters escaped: `a\u{200b}b`. An ellipsis stands for the rest.
pub fn shown(text: &str) -> String {
    let (mut shown, mut width) = (String::new(), 0);
    for piece in pieces(text) {
        width += piece.chars().count();
        if width > WIDTH {
            return shown + "…";
        }
        shown += &piece;
    }
    shown
}

/// A text of any length, escaped like [`shown`].
pub fn visible(text: &str) -> String {
    pieces(text).collect()
}

/// A path of any length, escaped like [`shown`].
pub fn shown_path(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn pieces(text: &str) -> impl Iterator<Item = String> {
    text.chars().enumerate().map(|(i, c)| match c {
        '\'' | '"' | '\\' => c.into(),
        // A combining mark is escaped only at the beginning, where no character precedes it.
        _ if i > 0 => format!("_{c}").escape_debug().skip(1).collect(),
        _ => c.escape_debug().collect(),
    })
}

/// `text` without white space and invisible characters at both ends.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

/// What a reader sees of `text`: no invisible characters, and one space for each run of white space.
pub fn look(text: &str) -> String {
    let visible: String = text.chars().filter(|&c| c.is_whitespace() || !is_invisible(c)).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Control characters, and those of Unicode's property `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_visible() {
        for (text, expected) in [
            ("plain", "plain"),
            ("it's \"5\\7\"", "it's \"5\\7\""),
            ("\u{200b}-42", "\\u{200b}-42"),
            ("a\r\n\tb\0", "a\\r\\n\\tb\\0"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{202e}abc", "\\u{202e}abc"),
            ("\u{301}a", "\\u{301}a"),
            ("e\u{301}é", "e\u{301}é"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(40)), "x".repeat(40));
        assert_eq!(shown(&"x".repeat(41)), "x".repeat(40) + "…");
        assert!(shown(&"\u{feff}".repeat(100)).chars().count() <= 41);
        for code in 0..=u32::from(char::MAX) {
            let Some(c) = char::from_u32(code).filter(|&c| is_invisible(c)) else { continue };
            let text = shown(&format!("a{c}"));
            assert!(!text.chars().any(|c| c.is_control()), "{code:x}");
            assert!(trim(&format!("{c}a b{c}")) == "a b", "{code:x}");
        }
    }

    #[test]
    fn what_looks_the_same_has_the_same_look() {
        for text in ["a b", " a  b ", "a\u{a0}b", "a\u{200b} b\u{feff}", "\ta\n\nb"] {
            assert_eq!(look(text), "a b");
        }
        assert_ne!(look("ab"), look("a b"));
    }
}
