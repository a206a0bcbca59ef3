//! What a figure shows, however it is drawn: on the page by ECharts, on paper by plotters.

use serde::{Serialize, Serializer};

use crate::details::spread;
use crate::plot::{Look, ends};

/// A part of the page: the results of one command, or one problem of a comparison.
pub struct Section {
    /// The ID for links.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// The answer in words, paragraph by paragraph.
    pub answer: Vec<String>,
    /// Commands, each with a description.
    pub commands: Vec<(String, String)>,
    /// The optimizers of its figures.
    pub optimizers: Vec<Optimizer>,
    /// The table of results.
    pub results: Table,
    /// More tables, with their names.
    pub tables: Vec<(String, Table)>,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// The configuration as keys and values.
    pub facts: Vec<(String, String)>,
}

/// An optimizer of a section.
#[derive(Clone, Debug, Serialize)]
pub struct Optimizer {
    /// Its name, short enough for a legend and unique.
    pub name: String,
    /// How it looks.
    #[serde(flatten, serialize_with = "super::look::serialize")]
    pub look: Look,
}

/// Panels that belong together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    /// The ID for links and files.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What a reader must know to understand it.
    #[serde(skip)]
    pub note: String,
    /// The panels.
    pub panels: Vec<Panel>,
    /// The epochs of a slider, one for each frame of the maps.
    pub frames: Vec<usize>,
    /// Points that all maps show.
    pub points: Vec<Point>,
    /// Tables of the contents of the maps, with their names.
    #[serde(skip)]
    pub tables: Vec<(String, Table)>,
    /// The name of its static picture, without extension; none if there is no picture.
    #[serde(skip)]
    pub picture: Option<String>,
}

/// A pair of axes and the contents between them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// The same in words, with the most important numbers.
    #[serde(skip)]
    pub alt: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Lines and points.
    pub series: Vec<Series>,
    /// Levels or classes over the plane; none if it is blank.
    pub map: Option<Map>,
    /// A reference level, and its name.
    pub level: Option<(f64, String)>,
}

/// An axis.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Axis {
    /// What it measures, with its unit.
    pub name: String,
    /// Whether it is logarithmic.
    pub log: bool,
    /// Its ends; without them, the ends of the drawn numbers.
    pub range: Option<[f64; 2]>,
    /// The largest number that is shown; none if all are.
    pub most: Option<f64>,
    /// Names that replace the numbers from 0.
    pub names: Vec<String>,
}

impl Axis {
    /// Ends the axis at a `limit` if some of the numbers are beyond it; the name then says so.
    pub fn up_to(mut self, limit: f64, numbers: impl Iterator<Item = f64>) -> Self {
        if limit > 0. && numbers.filter(|x| x.is_finite()).any(|x| x > limit) {
            self.most = Some(limit);
            self.name += " (higher ones are not shown)";
        }
        self
    }

    /// A linear axis.
    pub fn linear(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A logarithmic axis.
    pub fn log(name: &str) -> Self {
        Self { name: name.into(), log: true, ..Self::default() }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A line.
    #[default]
    Line,
    /// A line with a marker at each point.
    Marked,
    /// A thin dashed line, beside the line of the same optimizer.
    Thin,
    /// A marker at each point.
    Points,
}

/// The series of an optimizer in a panel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// The index of the optimizer.
    pub optimizer: usize,
    /// What distinguishes it from other series of the same optimizer; empty for the first.
    pub name: String,
    /// How it is drawn.
    pub shape: Shape,
    /// The number of later solid lines that almost coincide with it: it is wider accordingly, to show on both sides.
    pub beneath: usize,
    /// Points; a value that is not finite is a gap.
    #[serde(serialize_with = "pairs")]
    pub points: Vec<[f64; 2]>,
    /// The lower and the upper end of a band, for each point; or empty.
    #[serde(serialize_with = "pairs")]
    pub band: Vec<[f64; 2]>,
    /// The left and the right end of a whisker, for each point; or empty.
    #[serde(serialize_with = "pairs")]
    pub whiskers: Vec<[f64; 2]>,
    /// Points with labels.
    pub marks: Vec<Mark>,
}

/// A point with a label.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Where it lies.
    #[serde(serialize_with = "pair")]
    pub at: [f64; 2],
    /// Its label.
    pub text: String,
    /// Whether it is a cross; otherwise it is a ring.
    pub cross: bool,
}

/// Cells over the plane, in frames.
#[derive(Clone, Debug, Serialize)]
pub struct Map {
    /// Cells along each axis.
    pub cells: usize,
    /// A byte for each cell, by rows from the lower end, in Base64. Classes: 16 times the class plus the confidence
    /// from 0 to 15. Levels: from 0 to 254. 255: nothing.
    pub frames: Vec<String>,
    /// Names of the classes; empty for levels.
    pub classes: Vec<String>,
}

/// A point on maps.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Where it lies.
    #[serde(serialize_with = "pair")]
    pub at: [f64; 2],
    /// Its class, or its level from 0 to 1.
    pub is: f64,
    /// Whether it is a test row.
    pub tested: bool,
}

/// Rows of text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// A number to seven digits, more than any picture resolves, in as few characters as possible: 1e-3 or 0.001.
fn rounded(x: f64) -> f64 {
    if x.is_finite() { format!("{x:.6e}").parse().unwrap_or(x) } else { x }
}

fn pair<S: Serializer>(pair: &[f64; 2], serializer: S) -> Result<S::Ok, S::Error> {
    pair.map(rounded).serialize(serializer)
}

fn pairs<S: Serializer>(pairs: &[[f64; 2]], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|pair| pair.map(rounded)))
}

/// A number for a reader, to four digits.
pub fn short(x: f64) -> String {
    if x == 0. {
        return "0".into();
    }
    if !x.is_finite() {
        return if x.is_nan() {
            "none".into()
        } else if x > 0. {
            "infinite".into()
        } else {
            "-infinite".into()
        };
    }
    let rounded: f64 = format!("{x:.3e}").parse().unwrap_or(x);
    if (1e-4..1e6).contains(&rounded.abs()) { format!("{rounded}") } else { format!("{rounded:e}") }
}

impl Panel {
    /// The most points of a line in the table.
    const ROWS: usize = 12;
    /// The most lines that the description names.
    const NAMED: usize = 8;

    /// Whether it shows positive numbers on an axis that may be logarithmic.
    pub fn can_be_log(&self) -> bool {
        let positive = |series: &Series| series.points.iter().any(|[_, y]| *y > 0.);
        self.map.is_none() && self.y.names.is_empty() && self.series.iter().any(positive)
    }

    /// Points of all series in rows, for a reader who does not see the picture.
    pub fn table(&self, optimizers: &[Optimizer]) -> Table {
        let bands = self.series.iter().any(|series| !series.band.is_empty());
        let whiskers = self.series.iter().any(|series| !series.whiskers.is_empty());
        let or = |name: &str, other: &str| if name.is_empty() { other.to_owned() } else { name.to_owned() };
        let (x, y) = (or(&self.x.name, "x"), or(&self.y.name, "y"));
        let mut header = vec!["Optimizer".to_owned(), x.clone()];
        if whiskers {
            header.extend([format!("{x}, from"), format!("{x}, to")]);
        }
        if self.y.names.is_empty() {
            header.push(y.clone());
        }
        if bands {
            header.extend([format!("{y}, from"), format!("{y}, to")]);
        }
        let mut rows = vec![];
        for series in &self.series {
            let some = series.points.len().checked_sub(1).map_or(vec![], |last| spread(last, Self::ROWS));
            for at in some {
                let [x, y] = series.points[at];
                let mut row = vec![series.full_name(optimizers), short(x)];
                let ends = |ends: &[[f64; 2]]| match ends.get(at) {
                    Some(ends) => ends.map(short),
                    None => Default::default(),
                };
                if whiskers {
                    row.extend(ends(&series.whiskers));
                }
                if self.y.names.is_empty() {
                    row.push(short(y));
                }
                if bands {
                    row.extend(ends(&series.band));
                }
                rows.push(row);
            }
        }
        Table { header, rows }
    }

    /// Counts for each line how many later lines cover it.
    fn count_hidden(&mut self, optimizers: &[Optimizer]) {
        let all = || self.series.iter().flat_map(|series| &series.points).map(|[_, y]| *y).filter(|y| y.is_finite());
        let (low, high) = ends(all().filter(|y| *y <= self.y.most.unwrap_or(f64::INFINITY)));
        let near = |a: f64, b: f64| !a.is_finite() || (a - b).abs() <= 0.01 * (high - low);
        let hides = |a: &Series, b: &Series| {
            let same = |(a, b): (&[f64; 2], &[f64; 2])| a[0] == b[0] && near(a[1], b[1]);
            let is_solid = optimizers.get(b.optimizer).is_some_and(|optimizer| optimizer.look.dash.is_none());
            is_solid
                && b.shape == a.shape
                && a.points.len() == b.points.len()
                && a.points.iter().zip(&b.points).all(same)
        };
        let counts: Vec<usize> = (0..self.series.len())
            .map(|i| self.series[i + 1..].iter().filter(|later| hides(&self.series[i], later)).count().min(3))
            .collect();
        self.series.iter_mut().zip(counts).for_each(|(series, count)| series.beneath = count);
    }

    /// Describes where each line begins and ends.
    pub fn described(mut self, optimizers: &[Optimizer]) -> Self {
        self.count_hidden(optimizers);
        let mut said = vec![];
        for series in self.series.iter().filter(|series| series.shape != Shape::Points) {
            let finite = |point: &&[f64; 2]| point[1].is_finite();
            let (first, last) = (series.points.iter().find(finite), series.points.iter().rfind(finite));
            let (Some([_, first]), Some([_, last])) = (first, last) else { continue };
            let word = if last < first { "falls" } else { "goes" };
            let marks: Vec<&str> = series.marks.iter().map(|mark| mark.text.as_str()).collect();
            let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
            said.push(format!(
                "{} {word} from {} to {}{marks}",
                series.full_name(optimizers),
                short(*first),
                short(*last)
            ));
        }
        let more = said.len().saturating_sub(Self::NAMED);
        said.truncate(Self::NAMED);
        if more > 0 {
            said.push(format!("and {more} more"));
        }
        self.alt = format!("{} by {}: {}.", self.title, self.x.name.to_lowercase(), said.join("; "));
        self
    }
}

impl Series {
    /// A path over a map, with a ring at its end.
    pub fn path(optimizer: usize, points: Vec<[f64; 2]>) -> Self {
        let marks = points.last().map(|&at| Mark { at, text: "end".into(), cross: false }).into_iter().collect();
        Self { optimizer, shape: Shape::Marked, points, marks, ..Self::default() }
    }

    /// The optimizer, and what distinguishes this series from its others.
    pub fn full_name(&self, optimizers: &[Optimizer]) -> String {
        let name = optimizers.get(self.optimizer).map_or("", |optimizer| optimizer.name.as_str());
        [name, &self.name].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_nan_in_json() {
        let numbers = [0.0123456, 1., 123456.7, 1e-9, 1e300, f64::INFINITY, f64::NAN, -0.5];
        let shown = ["0.01235", "1", "123500", "1e-9", "1e300", "infinite", "none", "-0.5"];
        assert_eq!(numbers.map(short), shown);
        let series = Series { points: vec![[1., f64::NAN], [2., 0.1 + 0.2]], ..Series::default() };
        let json = serde_json::to_string(&series).unwrap();
        assert!(json.contains(r#""points":[[1.0,null],[2.0,0.3]]"#), "{json}");
    }
}
