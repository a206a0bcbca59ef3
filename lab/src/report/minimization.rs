//! The section of a minimization.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use candle_core::{Device, Tensor};

use super::figure::{Axis, Figure, Mark, Optimizer, Panel, Section, Series, Shape, Table, short};
use super::networks::levels;
use super::{Files, facts, look};
use crate::details::{middle, range_of};
use crate::minimize::Function;
use crate::plot::thin::{Thinner, thinned};

/// Cells along each axis of a map of the function.
const CELLS: usize = 96;
/// The parts of a path; each part retains at most four points.
const PARTS: usize = 2000;
/// Values above this many times the value at the start are not shown.
const MOST_OF_START: f64 = 100.;
/// Points of the curve of a function of one number.
const POINTS: usize = 200;

#[derive(Deserialize)]
struct Summary {
    configuration: Value,
    versions: Value,
    #[serde(default)]
    command: String,
}

/// A point with the value of the function there.
type Point = (Vec<f64>, f64);

/// The path of an optimizer.
struct Path {
    optimizer: String,
    /// Points with their steps: all, or some of many.
    points: Vec<(usize, Point)>,
    /// The first step whose value is not finite.
    diverged_at: Option<usize>,
}

/// The section of a minimization, with at most `points` points per line.
///
/// # Errors
/// Files that the program did not write.
pub fn section(summary: &Value, files: &Files, points: usize) -> Result<Section> {
    let summary = Summary::deserialize(summary).context("summary.json is not of this program's version")?;
    let name = summary.configuration["function"].as_str().unwrap_or_default();
    let function = Function::named(name)?;
    let steps = summary.configuration["steps"].as_u64().unwrap_or(0) as usize;
    let paths = files.read("minimize.csv", |file| read(file, steps))?;
    let names: Vec<&str> = paths.iter().map(|path| path.optimizer.as_str()).collect();
    let optimizers = look::of_specs(&names);
    let numbers = paths.first().and_then(|path| path.points.first()).map_or(0, |(_, (x, _))| x.len());

    let mut figures = vec![values(function, &paths, &optimizers, numbers, points)];
    figures.extend(match numbers {
        1 => line(function, &paths, points)?,
        2 => contours(function, &paths, points)?,
        _ => None,
    });
    let last = |path: &Path| path.points.last().map_or(f64::INFINITY, |(_, (_, value))| *value);
    let finite = paths.iter().zip(&optimizers).filter(|(path, _)| last(path).is_finite());
    let best = finite.min_by(|(a, _), (b, _)| last(a).total_cmp(&last(b)));
    let answer = match best {
        Some((path, best)) => format!("{} has the lowest value after {steps} steps: {}.", best.name, short(last(path))),
        None => "Every path diverged.".into(),
    };
    let row = |(path, optimizer): (&Path, &Optimizer)| {
        let (_, (x, value)) = path.points.last()?;
        let diverged = path.diverged_at.map_or(String::new(), |step| format!(" (diverged at step {step})"));
        let x: Vec<String> = x.iter().take(4).map(|x| short(*x)).collect();
        Some(vec![
            optimizer.name.clone() + &diverged,
            x.join(", ") + if numbers > 4 { ", …" } else { "" },
            short(*value),
        ])
    };
    Ok(Section {
        id: "minimize".into(),
        // The font of the pictures lacks the subscripts of some formulas; the note shows the formula.
        title: format!("Optimizers on {}", function.name),
        answer: vec![answer],
        commands: vec![("This run".into(), summary.command)],
        results: Table {
            header: ["Optimizer", "Last point", "Value there"].map(Into::into).into(),
            rows: paths.iter().zip(&optimizers).filter_map(row).collect(),
        },
        tables: vec![],
        facts: facts(&summary.configuration, &summary.versions),
        optimizers,
        figures,
    })
}

/// Reads paths of `steps` steps. Paths of more than [`PARTS`] steps are thinned.
fn read(file: &mut dyn std::io::Read, steps: usize) -> Result<Vec<Path>> {
    let mut paths: Vec<(String, Thinner<Point>, Option<usize>)> = vec![];
    for row in csv::Reader::from_reader(file).into_records() {
        let row = row?;
        let cells: Vec<&str> = row.iter().collect();
        let [optimizer, step, x @ .., value] = cells.as_slice() else { anyhow::bail!("a row has too few cells") };
        if *step == "0" {
            let points =
                Thinner::new(steps + 1, PARTS, |(x, value): &Point| [x.first().copied().unwrap_or(0.), *value]);
            paths.push(((*optimizer).into(), points, None));
        }
        let (_, points, diverged_at) = paths.last_mut().context("the first row is not step 0")?;
        let x = x.iter().map(|x| x.parse()).collect::<Result<_, _>>()?;
        let value: f64 = value.parse()?;
        if !value.is_finite() {
            diverged_at.get_or_insert(points.count());
        }
        points.push((x, value));
    }
    ensure!(!paths.is_empty(), "it has no rows");
    let path = |(optimizer, points, diverged_at): (String, Thinner<Point>, Option<usize>)| Path {
        optimizer,
        points: points.finish(),
        diverged_at,
    };
    Ok(paths.into_iter().map(path).collect())
}

/// A line for each path: `number` by step.
fn lines(paths: &[Path], points: usize, number: impl Fn(&Point) -> f64) -> Vec<Series> {
    let line = |(optimizer, path): (usize, &Path)| {
        let at = |i: usize| number(&path.points[i].1);
        let finite = (0..path.points.len()).take_while(|i| at(*i).is_finite()).count();
        let points = thinned(finite, points, at).into_iter();
        let points: Vec<[f64; 2]> = points.map(|i| [path.points[i].0 as f64, at(i)]).collect();
        let mark =
            |(at, step): (&[f64; 2], usize)| Mark { at: *at, text: format!("diverged at step {step}"), cross: true };
        let marks = points.last().zip(path.diverged_at).map(mark).into_iter().collect();
        Series { optimizer, points, marks, ..Series::default() }
    };
    paths.iter().enumerate().map(line).collect()
}

fn values(function: &Function, paths: &[Path], optimizers: &[Optimizer], numbers: usize, points: usize) -> Figure {
    let panel = |title: &str, y: Axis, series: Vec<Series>| {
        Panel { title: title.into(), x: Axis::linear("Step"), y, series, ..Panel::default() }.described(optimizers)
    };
    let series = lines(paths, points, |(_, value)| *value);
    let positive = series.iter().flat_map(|series| &series.points).all(|[_, y]| *y >= 0.);
    let axis = if positive { Axis::log("Value") } else { Axis::linear("Value") };
    let all = series.iter().flat_map(|series| &series.points).map(|[_, y]| *y);
    let start = paths.first().and_then(|path| path.points.first()).map_or(0., |(_, (_, value))| *value);
    let axis = axis.up_to(MOST_OF_START * start, all);
    let mut panels = vec![panel("Value of the function", axis, series)];
    if numbers == 1 {
        panels.push(panel("Point", Axis::linear("x"), lines(paths, points, |(x, _)| x[0])));
    }
    Figure {
        id: "values".into(),
        title: "Value by step".into(),
        note: format!("{} = {}. Step 0 is the start.", function.name, function.formula),
        panels,
        picture: Some("minimize".into()),
        ..Figure::default()
    }
}

/// The range of the coordinates of all paths but those that go far: these would leave no picture of the others.
fn range(paths: &[Path], axis: usize) -> Option<[f64; 2]> {
    let start = paths.first()?.points.first()?.1.0[axis];
    let far = |path: &&Path| {
        let farthest = path.points.iter().map(|(_, (x, _))| (x[axis] - start).abs()).fold(0., f64::max);
        farthest.is_finite() && farthest <= 10. * start.abs().max(1.)
    };
    let near = paths.iter().filter(far).flat_map(|path| &path.points).map(|(_, (x, _))| x[axis]);
    range_of(near, 0.15).or(Some([start - 1., start + 1.]))
}

fn points_of(path: &Path, points: usize) -> Vec<Point> {
    let is_finite = |(_, (x, value)): &&(usize, Point)| value.is_finite() && x.iter().all(|x| x.is_finite());
    let finite = path.points.iter().take_while(is_finite).count();
    let stride = finite.div_ceil(points).max(1);
    let last = finite.checked_sub(1).filter(|last| last % stride != 0);
    (0..finite).step_by(stride).chain(last).map(|i| path.points[i].1.clone()).collect()
}

/// The paths on the curve of a function of one number.
fn line(function: &Function, paths: &[Path], points: usize) -> Result<Option<Figure>> {
    let Some(range) = range(paths, 0) else { return Ok(None) };
    let value = |i: usize| -> Result<[f64; 2]> {
        let x = middle(range, i, POINTS);
        Ok([x, function.value(&Tensor::new(&[x], &Device::Cpu)?)?.to_scalar()?])
    };
    let line = (0..POINTS).map(value).collect::<Result<Vec<_>>>()?;
    let function_line =
        Series { optimizer: usize::MAX, name: function.formula.into(), points: line, ..Series::default() };
    let path = |(optimizer, path): (usize, &Path)| {
        let points = points_of(path, points).into_iter().map(|(x, value)| [x[0], value]).collect();
        Series { optimizer, shape: Shape::Marked, points, ..Series::default() }
    };
    let series = [function_line].into_iter().chain(paths.iter().enumerate().map(path)).collect();
    let x = Axis { range: Some(range), ..Axis::linear("x") };
    let alt = format!("The points that each optimizer visits on the line of {}.", function.formula);
    let title = "Points on the line of the function".into();
    let panel = Panel { title, alt, x, y: Axis::linear("Value"), series, ..Panel::default() };
    Ok(Some(Figure {
        id: "path".into(),
        title: "Path".into(),
        panels: vec![panel],
        picture: Some("path".into()),
        ..Figure::default()
    }))
}

/// The paths over the contours of a function of two numbers.
fn contours(function: &Function, paths: &[Path], points: usize) -> Result<Option<Figure>> {
    let (Some(x), Some(y)) = (range(paths, 0), range(paths, 1)) else { return Ok(None) };
    let value = |at: usize| -> Result<f64> {
        let point = [middle(x, at % CELLS, CELLS), middle(y, at / CELLS, CELLS)];
        Ok(function.value(&Tensor::new(&point, &Device::Cpu)?)?.to_scalar()?)
    };
    let values = (0..CELLS * CELLS).map(value).collect::<Result<Vec<_>>>()?;
    // Logarithmic above the lowest value, because the minimum of many functions is 0.
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let above: Vec<f64> = values.iter().map(|value| value - lowest).collect();
    let (map, [_, high]) = levels(&above, CELLS);
    let path = |(optimizer, path): (usize, &Path)| {
        let points: Vec<[f64; 2]> = points_of(path, points).into_iter().map(|(x, _)| [x[0], x[1]]).collect();
        Series::path(optimizer, points)
    };
    let series: Vec<Series> = paths.iter().enumerate().map(path).collect();
    let ends: Vec<String> = paths
        .iter()
        .zip(&series)
        .filter_map(|(path, series)| Some((path, series.points.last()?)))
        .map(|(path, [x, y])| {
            format!("{} ends at ({}, {})", crate::shown::shown(&path.optimizer), short(*x), short(*y))
        })
        .take(8)
        .collect();
    let panel = Panel {
        title: format!("Paths over {}", function.name),
        alt: format!("Paths over the contours of {}: {}.", function.name, ends.join("; ")),
        x: Axis { range: Some(x), ..Axis::linear("x") },
        y: Axis { range: Some(y), ..Axis::linear("y") },
        series,
        map: Some(map),
        level: None,
    };
    let note = format!(
        "Values from {} (dark) to {} (light) by equal ratios above the lowest.",
        short(lowest),
        short(lowest + high)
    );
    Ok(Some(Figure {
        id: "path".into(),
        title: "Path".into(),
        note,
        panels: vec![panel],
        picture: Some("path".into()),
        ..Figure::default()
    }))
}
