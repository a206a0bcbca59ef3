//! How an optimizer looks: the same on every picture of a run, on paper and on the page.

use plotters::prelude::*;

/// Okabe and Ito, 2008, "Color universal design", without black and yellow, but with a purple and a brown.
pub const PALETTE: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x6a, 0x3d, 0x9a),
    RGBColor(0x7f, 0x4f, 0x24),
];
/// The same hues for a dark page.
const ON_DARK: [RGBColor; 8] = [
    RGBColor(0x3d, 0x9b, 0xe0),
    RGBColor(0xff, 0x85, 0x33),
    RGBColor(0x1f, 0xc7, 0x95),
    RGBColor(0xe5, 0x9c, 0xc5),
    RGBColor(0xf2, 0xb6, 0x32),
    RGBColor(0x8f, 0xd3, 0xff),
    RGBColor(0xa9, 0x8b, 0xe0),
    RGBColor(0xc0, 0x8a, 0x5a),
];
/// The colors of Candle's own optimizers.
const BUILT_IN: [RGBColor; 2] = [RGBColor(0x00, 0x00, 0x00), RGBColor(0x8c, 0x8c, 0x8c)];
const BUILT_IN_ON_DARK: [RGBColor; 2] = [RGBColor(0xf2, 0xf2, 0xf2), RGBColor(0x9a, 0x9a, 0x9a)];
/// Pixels of a dash and of a gap. Lines are solid until all colors are taken; later lines have one of these.
pub const DASHES: [[u32; 2]; 3] = [[30, 7], [4, 6], [12, 14]];
/// Candle's own optimizers are dashed, so that ours show through where the curves are equal.
const BUILT_IN_DASH: [u32; 2] = [10, 7];

/// Markers, in pixels around a point. Colors of similar gray have different markers.
const MARKERS: [&[(i32, i32)]; PALETTE.len()] = [
    &[(4, 2), (2, 4), (-2, 4), (-4, 2), (-4, -2), (-2, -4), (2, -4), (4, -2)],
    &[(4, 4), (-4, 4), (-4, -4), (4, -4)],
    &[(0, -6), (5, 4), (-5, 4)],
    &[(0, -6), (6, 0), (0, 6), (-6, 0)],
    &[(0, 6), (5, -4), (-5, -4)],
    &[(-6, 0), (4, 5), (4, -5)],
    &[(6, 0), (-4, 5), (-4, -5)],
    &[(-5, -5), (5, -5), (1, 0), (5, 5), (-5, 5), (-1, 0)],
];

/// How an optimizer looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// On paper.
    pub color: RGBColor,
    /// On a dark page.
    pub on_dark: RGBColor,
    /// Pixels of a dash and of a gap.
    pub dash: Option<[u32; 2]>,
    /// The number of its marker.
    pub marker: usize,
}

/// The looks of optimizers, some of which are Candle's own.
pub fn looks(are_built_in: impl IntoIterator<Item = bool>) -> Vec<Look> {
    let (mut ours, mut candles) = (0, 0);
    let look = |built_in: bool| {
        let number = if built_in { &mut candles } else { &mut ours };
        *number += 1;
        let number = *number - 1;
        if built_in {
            let at = number % BUILT_IN.len();
            let (color, on_dark) = (BUILT_IN[at], BUILT_IN_ON_DARK[at]);
            return Look { color, on_dark, dash: Some(BUILT_IN_DASH), marker: at };
        }
        let at = number % PALETTE.len();
        Look { color: PALETTE[at], on_dark: ON_DARK[at], dash: dash(number), marker: number }
    };
    are_built_in.into_iter().map(look).collect()
}

/// The dash of an optimizer by its number: none until all colors are taken.
pub fn dash(number: usize) -> Option<[u32; 2]> {
    let round = number / PALETTE.len() % (DASHES.len() + 1);
    (round > 0).then(|| DASHES[round - 1])
}

/// The marker of an optimizer by its number, around a point. It changes when all colors with all dashes are taken.
pub fn marker(look: usize, (x, y): (i32, i32), zoom: u32) -> Vec<(i32, i32)> {
    let others = look / (PALETTE.len() * (DASHES.len() + 1));
    let shape = MARKERS[(look + others) % MARKERS.len()].iter();
    shape.map(|(right, down)| (x + right * zoom as i32, y + down * zoom as i32)).collect()
}
