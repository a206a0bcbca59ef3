//! The command that trains with the best setting of a comparison.

use super::experiment::Experiment;
use super::problem::Problem;
use super::space::number;
use crate::cli::{self, quoted};
use crate::data::{Points, Shape};
use crate::train::joined;

impl Problem {
    /// The command that trains an optimizer on the problem, without options at their defaults.
    pub fn command(&self, spec: &str, experiment: &Experiment) -> String {
        let Experiment { training, split, .. } = experiment;
        let Problem {
            name,
            samples,
            noise,
            factor,
            centers,
            data,
            target_column,
            task_type,
            drop,
            features,
            start,
            hidden,
            activation,
            dtype,
            ..
        } = self;
        let mut words: Vec<String> = vec!["candle-optim".into()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), quoted(&value)]);
        let list = |numbers: &[f64]| numbers.iter().copied().map(number).collect::<Vec<_>>().join(",");
        if self.function().is_some() {
            option("function", name.clone());
            option("optimizer", spec.into());
            option("steps", training.epochs.to_string());
            start.iter().for_each(|start| option("start", list(start)));
            words.insert(1, "minimize".into());
            return words.join(" ");
        }
        option("optimizer", spec.into());
        let usual = cli::defaults::<cli::TrainArgs>();
        let mut unless = |usual: String, name: &str, value: Option<String>| {
            value.into_iter().filter(|value| *value != usual).for_each(|value| option(name, value));
        };
        if data.is_none() {
            unless(usual.problem.name().into(), "problem", Some(name.clone()));
        }
        let points = Points::named(name);
        let noise_of = points.map_or(String::new(), |points| number(points.noise));
        let columns = |columns: &Option<Vec<String>>| columns.as_ref().map(|columns| columns.join(","));
        unless(String::new(), "data", data.clone());
        unless(usual.target.clone(), "target", target_column.clone());
        unless(usual.task_type.name().into(), "task-type", task_type.clone());
        unless(String::new(), "drop", columns(drop));
        unless(String::new(), "features", columns(features));
        unless(usual.samples.to_string(), "samples", samples.map(|samples| samples.to_string()));
        unless(noise_of, "noise", noise.map(number));
        if let Some(Points { shape, .. }) = points {
            let (factor_of, centers_of) = match shape {
                Shape::Circles(factor) => (number(factor), String::new()),
                Shape::Blobs(centers) => (String::new(), centers.to_string()),
                _ => Default::default(),
            };
            unless(factor_of, "factor", factor.map(number));
            unless(centers_of, "centers", centers.map(|centers| centers.to_string()));
        }
        unless(joined(&usual.hidden, ","), "hidden", hidden.as_deref().map(|hidden| joined(hidden, ",")));
        unless(usual.activation.name().into(), "activation", activation.clone());
        unless(usual.dtype.0.as_str().into(), "dtype", dtype.clone());
        unless(usual.epochs.to_string(), "epochs", Some(training.epochs.to_string()));
        unless(usual.batch_size.to_string(), "batch-size", Some(training.batch_size.to_string()));
        unless(number(usual.test_size), "test-size", Some(number(split.test)));
        words.insert(1, "train".into());
        words.join(" ")
    }
}
