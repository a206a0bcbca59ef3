//! What all pictures share: the font, the colors, axes, and the files.

use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Result, anyhow};
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// The PNG is drawn this many times larger and averaged down, which smooths every edge.
const OVERSAMPLING: u32 = 2;
/// The number of ticks of an axis, approximately.
const TICKS: f64 = 8.;

/// The name of the font.
pub const FONT: &str = "sans-serif";
/// Text and axes.
pub const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);
/// The color of secondary text and lines.
pub const GRAY: RGBColor = RGBColor(0x80, 0x80, 0x80);
/// Lines of a grid.
pub const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// The result of drawing.
pub type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// A picture.
pub trait Picture {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws everything, `zoom` times as large.
    ///
    /// # Errors
    /// An error of the backend.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B>;

    /// As a PNG file.
    ///
    /// # Errors
    /// A picture that cannot be drawn.
    fn png(&self) -> Result<Vec<u8>> {
        let size = self.size();
        let (width, height) = (size.0 * OVERSAMPLING, size.1 * OVERSAMPLING);
        // A buffer takes some 17 MB, and clearing new memory by the system would take as long as drawing.
        static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(vec![]);
        let spare = || SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pixels = spare().pop().unwrap_or_default();
        pixels.resize((width * height * 3) as usize, 0);
        whole(self, &BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), OVERSAMPLING)?;

        let mut file = vec![];
        let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Fast compression halves the time and almost doubles the size.
        encoder.set_compression(png::Compression::Fast);
        encoder.write_header()?.write_image_data(&average(&pixels, width as usize, OVERSAMPLING as usize))?;
        spare().push(pixels);
        Ok(file)
    }

    /// As an SVG file.
    ///
    /// # Errors
    /// A picture that cannot be drawn.
    fn svg(&self) -> Result<String> {
        let mut file = String::new();
        whole(self, &SVGBackend::with_string(&mut file, self.size()).into_drawing_area(), 1)?;
        Ok(file)
    }
}

/// A picture on white paper, in the bundled font.
fn whole<B: DrawingBackend>(picture: &(impl Picture + ?Sized), area: &DrawingArea<B, Shift>, zoom: u32) -> Result<()> {
    register_font();
    let drawn = area.fill(&WHITE).and_then(|()| picture.draw(area, zoom)).and_then(|()| area.present());
    drawn.map_err(|error| anyhow!("cannot draw the figure: {error}"))
}

/// The largest power of ten up to x, which is positive and normal.
pub fn power_of_ten(x: f64) -> f64 {
    // `powi` rounds more than once.
    format!("1e{}", x.log10().floor()).parse().unwrap_or(1.)
}

/// Round numbers from `from` to `to`, about [`TICKS`] at most and at least `least` apart.
pub fn ticks(from: f64, to: f64, least: f64) -> Vec<f64> {
    let rough = ((to - from) / TICKS).max(least);
    let power = 10f64.powi(rough.log10().floor() as i32);
    let step = [1., 2., 5., 10.].into_iter().map(|n| n * power).find(|step| *step >= rough * (1. - 1e-9));
    let step = step.unwrap_or(10. * power);
    let (first, last) = ((from / step).ceil() as i64, (to / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// An axis with our own ticks: those of plotters are not whole numbers, and never end for numbers far from 1.
pub struct Axis {
    range: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis between two numbers, with ticks at least `least` apart.
    pub fn new(from: f64, to: f64, least: f64) -> Self {
        Self::with_ticks(from, to, ticks(from, to, least))
    }

    /// An axis between two numbers, with these ticks.
    pub fn with_ticks(from: f64, to: f64, ticks: Vec<f64>) -> Self {
        Self { range: (from..to).into(), ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.range()
    }
}

/// The grid and the axes of a panel; the caller adds names and labels.
pub fn mesh<'a, 'b, B: DrawingBackend>(
    chart: &'b mut ChartContext<'a, B, Cartesian2d<Axis, Axis>>,
    zoom: u32,
) -> MeshStyle<'a, 'b, Axis, Axis, B> {
    let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(zoom))
        .axis_style(INK.stroke_width(zoom))
        .axis_desc_style(font(18))
        .label_style(font(16));
    mesh
}

/// The font of a picture's title.
pub fn title_font(zoom: u32) -> FontDesc<'static> {
    (FONT, 26 * zoom).into_font()
}

/// A text that is at most `width` pixels wide, cut if necessary, and without characters that a picture cannot show.
pub fn fitted(text: &str, font: &FontDesc, width: u32) -> String {
    let allowed = |c: char| if c.is_control() || ['\u{fffe}', '\u{ffff}'].contains(&c) { '\u{fffd}' } else { c };
    // No letter is narrower than a pixel.
    let mut letters: Vec<char> = text.chars().map(allowed).take(width as usize + 1).collect();
    let fits = |text: &str| font.box_size(text).is_ok_and(|(wide, _)| wide <= width);
    let whole = String::from_iter(&letters);
    if fits(&whole) {
        return whole;
    }
    while letters.pop().is_some() {
        let cut = String::from_iter(&letters) + "…";
        if fits(&cut) {
            return cut;
        }
    }
    String::new()
}

/// Means of squares of `factor` by `factor` RGB pixels; `factor` is 16 at most.
fn average(pixels: &[u8], width: usize, factor: usize) -> Vec<u8> {
    let mut small = Vec::with_capacity(pixels.len() / (factor * factor));
    // Vertically, then horizontally: the compiler adds whole rows at once.
    let mut sums = vec![0u16; width * 3];
    for rows in pixels.chunks_exact(width * 3 * factor) {
        sums.fill(0);
        for row in rows.chunks_exact(width * 3) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += u16::from(value));
        }
        for square in sums.chunks_exact(3 * factor) {
            for channel in 0..3 {
                let sum: u16 = square.iter().skip(channel).step_by(3).sum();
                small.push((usize::from(sum) / (factor * factor)) as u8);
            }
        }
    }
    small
}

/// Registers the bundled font, so that a picture is the same everywhere. Fonts made before this have no letters.
pub fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only if the file is not a font, which the tests would show.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, include_bytes!("font/Roboto-Regular.ttf"));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1., 100., 1.), [20., 40., 60., 80., 100.]);
        assert_eq!(ticks(0.5, 1.5, 1.), [1.]);
        assert_eq!(ticks(1., 3., 1.), [1., 2., 3.]);
        assert_eq!(ticks(1., 1e7, 1.), [2e6, 4e6, 6e6, 8e6, 1e7]);
        let all: Vec<f64> = (1..300).flat_map(|i| [i as f64 * 0.37, i as f64 * 1e-9, i as f64 * 1e4]).collect();
        for range in all {
            let ticks = ticks(-0.3 * range, 0.7 * range, 0.);
            assert!((3..=9).contains(&ticks.len()), "{range}: {ticks:?}");
        }
    }

    #[test]
    fn averaging_takes_each_square_to_its_mean() {
        let row = |a: u8, b: u8| [a, a, a, b, b, b];
        assert_eq!(average(&[row(0, 4), row(8, 12)].concat(), 2, 2), [6, 6, 6]);
    }
}
