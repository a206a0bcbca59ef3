//! The names and looks of optimizers on the page.

use std::collections::HashMap;

use plotters::style::RGBColor;
use serde::{Serialize, Serializer};

use super::figure::Optimizer;
use crate::plot::{Look, looks, marker};
use crate::shown::shown;
use crate::twins::is_built_in;

/// A color as CSS writes it.
pub fn css(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A look as the page reads it.
pub fn serialize<S: Serializer>(look: &Look, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct OnPage {
        light: String,
        dark: String,
        dash: Option<[u32; 2]>,
        /// The marker as an SVG path, around 0.
        marker: String,
    }
    let corners: Vec<String> = marker(look.marker, (0, 0), 1).iter().map(|(x, y)| format!("{x},{y}")).collect();
    let marker = format!("M{}Z", corners.join("L"));
    OnPage { light: css(look.color), dark: css(look.on_dark), dash: look.dash, marker }.serialize(serializer)
}

/// Optimizers with these names and looks. Long names are cut; duplicates of a cut name get a number.
pub fn optimizers<'a>(names: impl IntoIterator<Item = &'a str>, looks: &[Look]) -> Vec<Optimizer> {
    let mut seen = HashMap::<String, usize>::new();
    let name = |name: &str| {
        let short = shown(name);
        let count = seen.entry(short.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { short } else { format!("{short} ({count})") }
    };
    let optimizer = |(name, look): (String, &Look)| Optimizer { name, look: *look };
    names.into_iter().map(name).zip(looks).map(optimizer).collect()
}

/// Optimizers with these specs; Candle's own have special looks.
pub fn of_specs(specs: &[&str]) -> Vec<Optimizer> {
    optimizers(specs.iter().copied(), &looks(specs.iter().map(|spec| is_built_in(spec))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_differ() {
        let long = "x".repeat(10_000);
        let all = optimizers([long.as_str(), &format!("{long}y"), "<b>\u{202e}"], &looks([false; 3]));
        let names: Vec<&str> = all.iter().map(|optimizer| optimizer.name.as_str()).collect();
        assert_eq!(names, [&format!("{}…", "x".repeat(40)), &format!("{}… (2)", "x".repeat(40)), "<b>\\u{202e}"]);
    }
}
