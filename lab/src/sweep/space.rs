//! The values that a search tries for a hyperparameter, and the settings of an optimizer that they make.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use candle_optim::Spec;
use candle_optim::hyper::Value;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::seeds;
use crate::optimizer::parse;

/// The values of one hyperparameter: `1e-4..1` with equal ratios, `lin 0..1` with equal steps, `1e-4..1#4` with a
/// count, `0..1/0.1` with a step size, `0.8|0.9` as a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Range {
    /// Listed values.
    List(Vec<String>),
    /// Numbers between two ends.
    Between {
        /// The least.
        from: f64,
        /// The greatest.
        to: f64,
        /// How they are spaced.
        scale: Scale,
        /// The number of values; without it, the search decides.
        points: Option<usize>,
    },
    /// Numbers from the first to the last with a step size.
    Step {
        /// The first number.
        from: f64,
        /// The upper limit.
        to: f64,
        /// The step size.
        by: f64,
    },
}

/// How the numbers of a range are spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// By equal ratios.
    Log,
    /// By equal steps.
    Linear,
}

/// The most settings that an error message names.
const NAMED: usize = 3;
/// The most values of a range.
const MOST_VALUES: usize = 1_000_000;
const ALLOWED: &str = "1e-4..1, lin 0..1, 1e-4..1#4, 0..1/0.1, or values such as 0.8|0.9";

impl FromStr for Range {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let given = crate::shown::shown(text);
        let unreadable = || format!("cannot read the range '{given}'; allowed: {ALLOWED}");
        let (scale, range) = match text.trim().strip_prefix("lin ") {
            Some(range) => (Scale::Linear, range.trim()),
            None => (Scale::Log, text.trim()),
        };
        let Some((from, rest)) = range.split_once("..") else {
            ensure!(scale == Scale::Log && !range.is_empty(), unreadable());
            let values = range.split('|').map(|value| word(value.trim())).collect::<Option<_>>();
            return Ok(Self::List(values.with_context(unreadable)?));
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite()).with_context(unreadable);
        let from = number(from)?;
        if let Some((to, by)) = rest.split_once('/') {
            let (to, by) = (number(to)?, number(by)?);
            ensure!(by > 0., "the range '{given}' has the step {by:?}; allowed: a step above 0");
            ensure!(from <= to, "the range '{given}' ends below its beginning");
            ensure!((to - from) / by < MOST_VALUES as f64, "the range '{given}' has more than {MOST_VALUES} values");
            return Ok(Self::Step { from, to, by });
        }
        let (to, points) = match rest.split_once('#') {
            Some((to, points)) => {
                let points = points.trim().parse().ok().filter(|points| (1..=MOST_VALUES).contains(points));
                let allowed = format!("the range '{given}' has no count of 1 to {MOST_VALUES} after '#'");
                (number(to)?, Some(points.context(allowed)?))
            }
            None => (number(rest)?, None),
        };
        ensure!(from <= to, "the range '{given}' ends below its beginning");
        ensure!(
            scale == Scale::Linear || from > 0.,
            "the range '{given}' has equal ratios, so it must begin above 0; equal steps are 'lin {range}'"
        );
        Ok(Self::Between { from, to, scale, points })
    }
}

/// A value in the text form used everywhere. The spec's parser decides whether the optimizer allows it.
fn word(text: &str) -> Option<String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Some(number(x)),
        _ => {
            let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_word.then(|| text.into())
        }
    }
}

/// The shortest decimal that reads back as the same number.
pub fn number(x: f64) -> String {
    Value::Number(x).text()
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::List(values) => f.write_str(&values.join("|")),
            Self::Step { from, to, by } => write!(f, "{}..{}/{}", number(*from), number(*to), number(*by)),
            Self::Between { from, to, scale, points } => {
                let lin = if *scale == Scale::Linear { "lin " } else { "" };
                write!(f, "{lin}{}..{}", number(*from), number(*to))?;
                points.map_or(Ok(()), |points| write!(f, "#{points}"))
            }
        }
    }
}

impl Range {
    /// The values of a range that determines them: every range except one between two ends without a count.
    fn values(&self) -> Option<Vec<String>> {
        match *self {
            Self::List(ref values) => Some(values.clone()),
            Self::Between { from, to, scale, points } => Some(texts(grid(from, to, points?, scale))),
            Self::Step { from, to, by } => {
                let steps = (to - from) / by;
                let whole = steps.round();
                if (steps - whole).abs() < 1e-9 * steps.max(1.) {
                    return Some(texts(grid(from, to, whole as usize + 1, Scale::Linear)));
                }
                let values =
                    (0..=steps.floor() as usize).map(|i| if i == 0 { from } else { short(from + i as f64 * by) });
                Some(texts(values.collect()))
            }
        }
    }

    /// Extends a logarithmic range by two decades at its lower or upper end; other ranges are unchanged.
    pub fn wider(&self, at_its_lower_end: bool) -> Self {
        match *self {
            Self::Between { from, to, scale: scale @ Scale::Log, points } => {
                let (from, to) = if at_its_lower_end { (short(from / 100.), to) } else { (from, short(to * 100.)) };
                Self::Between { from, to, scale, points }
            }
            _ => self.clone(),
        }
    }

    /// The value at a share of the range, from 0 to 1, exclusive.
    fn at(&self, share: f64) -> String {
        match (self, self.values()) {
            (_, Some(values)) => values[((share * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            (Self::Between { from, to, scale: Scale::Log, .. }, _) => {
                let (a, b) = (from.log10(), to.log10());
                number(short(10f64.powf(a + share * (b - a))))
            }
            (Self::Between { from, to, .. }, _) => number(short(from + share * (to - from))),
            _ => String::new(),
        }
    }
}

fn texts(values: Vec<f64>) -> Vec<String> {
    values.into_iter().map(number).collect()
}

/// x, rounded to 6 significant digits.
fn short(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// `n` values between two ends: the ends unchanged, the others rounded to 6 significant digits.
fn grid(from: f64, to: f64, n: usize, scale: Scale) -> Vec<f64> {
    if n <= 1 {
        return vec![from];
    }
    let on_scale = |x: f64| if scale == Scale::Log { x.log10() } else { x };
    let (a, b, last) = (on_scale(from), on_scale(to), (n - 1) as f64);
    let between = (1..n - 1).map(|i| {
        let x = ((last - i as f64) * a + i as f64 * b) / last;
        short(if scale == Scale::Log { 10f64.powf(x) } else { x })
    });
    [from].into_iter().chain(between).chain([to]).collect()
}

/// How settings are chosen from the ranges.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// All combinations of equally spaced values.
    Grid,
    /// Each value drawn independently at random.
    Random,
    /// Points of a scrambled Sobol sequence.
    Sobol,
}

/// The searched keys with their ranges, in the order given. In TOML, a table of texts; a list may be an array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search(pub Vec<(String, Range)>);

impl Serialize for Search {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, range)| (key, range.to_string())))
    }
}

impl<'de> Deserialize<'de> for Search {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let range = |value: &toml::Value| -> Result<Range> {
            let one = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match value {
                toml::Value::Array(values) if values.is_empty() => bail!("an empty list; allowed: {ALLOWED}"),
                toml::Value::Array(values) => values.iter().map(one).collect::<Vec<_>>().join("|").parse(),
                value => one(value).parse(),
            }
        };
        let table = toml::Table::deserialize(deserializer)?;
        let ranges = table.iter().map(|(key, value)| Ok((key.clone(), range(value)?)));
        ranges.collect::<Result<_>>().map(Self).map_err(|error| D::Error::custom(format!("{error:#}")))
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(key, range)| format!("{key}={range}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// One setting: an optimizer whose searched keys have values.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The optimizer.
    pub spec: Spec,
    /// The searched keys with their values.
    pub pairs: Vec<(String, String)>,
}

impl Setting {
    /// The value of a key that is searched.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(searched, _)| searched == key).map(|(_, value)| value.as_str())
    }
}

/// The settings of an optimizer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The distinct settings.
    pub all: Vec<Setting>,
    /// The number of repeated settings that were left out.
    pub repeated: usize,
}

impl Search {
    /// The default search: the learning rate, over three decades on each side of its default, or nothing if the spec
    /// sets it.
    pub fn of_learning_rate(spec: &Spec) -> Self {
        let resolved = spec.resolved();
        let is_lr = |key: &str| key.trim_start_matches("base_") == "lr";
        let lr = resolved.iter().find_map(|(key, value)| Some((key, value.number().filter(|_| is_lr(key))?)));
        match lr {
            Some((key, lr)) if lr > 0. && !sets(spec, key) => {
                let (from, to) = (short(lr * 1e-3), short(lr * 1e3));
                Self(vec![(key.clone(), Range::Between { from, to, scale: Scale::Log, points: None })])
            }
            _ => Self::default(),
        }
    }

    /// At most `trials` settings.
    ///
    /// # Errors
    /// A key that the spec sets, that the optimizer does not have or that is searched twice, a value that the optimizer
    /// does not allow, or lists with more combinations than trials.
    pub fn settings(&self, spec: &Spec, trials: usize, sampler: Sampler, seed: u32) -> Result<Settings> {
        for (i, (key, _)) in self.0.iter().enumerate() {
            ensure!(!sets(spec, key), "'{key}' is searched, and '{}' sets it; allowed: one of the two", spec.text());
            ensure!(self.0[..i].iter().all(|(other, _)| other != key), "'{key}' is searched twice");
        }
        let whole: Vec<bool> = self.0.iter().map(|(key, _)| is_whole(spec, key)).collect();
        let drawn: Vec<Vec<String>> = match sampler {
            _ if self.0.is_empty() => vec![vec![]],
            Sampler::Grid => self.grid(trials)?,
            Sampler::Random => {
                let share = |key: &str, trial| seeds::share(seed, &[&"random", &spec.text(), &key, &trial]);
                (0..trials).map(|t| self.0.iter().map(|(key, range)| range.at(share(key, t))).collect()).collect()
            }
            Sampler::Sobol => {
                ensure!(trials <= 1 << 16, "--trials {trials}; allowed for --sampler sobol: at most {}", 1 << 16);
                let scramble = seeds::derive(seed, &[&"sobol", &spec.text()]);
                let share = |dimension, t: usize| f64::from(sobol_burley::sample(t as u32, dimension, scramble));
                (0..trials).map(|t| (0..).zip(&self.0).map(|(i, (_, range))| range.at(share(i, t))).collect()).collect()
            }
        };
        let mut all: Vec<Setting> = vec![];
        let mut seen = std::collections::HashSet::new();
        let tried = drawn.len();
        for values in drawn {
            let pair = |(((key, _), value), whole): ((&(String, Range), String), &bool)| match value.parse::<f64>() {
                Ok(x) if *whole => (key.clone(), number(x.round())),
                _ => (key.clone(), value),
            };
            let pairs: Vec<(String, String)> = self.0.iter().zip(values).zip(&whole).map(pair).collect();
            if seen.insert(pairs.clone()) {
                all.push(Setting { spec: with(spec, &pairs)?, pairs });
            }
        }
        Ok(Settings { repeated: tried - all.len(), all })
    }

    /// All combinations; the last key varies fastest. Listed values are used in full; the other ranges share the rest.
    fn grid(&self, trials: usize) -> Result<Vec<Vec<String>>> {
        let named: Vec<Option<Vec<String>>> = self.0.iter().map(|(_, range)| range.values()).collect();
        let lists = named.iter().flatten().try_fold(1usize, |product, values| product.checked_mul(values.len()));
        let lists = lists.unwrap_or(usize::MAX);
        let ranges = named.iter().filter(|values| values.is_none()).count() as u32;
        let fits = |n: &usize| n.checked_pow(ranges).and_then(|n| n.checked_mul(lists)).is_some_and(|n| n <= trials);
        let points = if ranges == 0 { 1 } else { (1..=trials).take_while(fits).last().unwrap_or(1) };
        let values = |((_, range), named): (&(String, Range), Option<Vec<String>>)| match (range, named) {
            (&Range::Between { from, to, scale, .. }, None) => texts(grid(from, to, points, scale)),
            (_, named) => named.unwrap_or_default(),
        };
        let columns: Vec<Vec<String>> = self.0.iter().zip(named).map(values).collect();
        if lists > trials {
            // The last key varies fastest, like the last digit of a number.
            let setting = |mut number: usize| {
                let digit = |((key, _), column): (&(String, Range), &Vec<String>)| {
                    let value = &column[number % column.len()];
                    number /= column.len();
                    format!("{key}={value}")
                };
                let mut pairs: Vec<String> = self.0.iter().zip(&columns).rev().map(digit).collect();
                pairs.reverse();
                pairs.join(",")
            };
            let dropped: Vec<String> = (trials..lists).take(NAMED).map(setting).collect();
            let more = (lists - trials).saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            bail!(
                "the search has {lists} settings, and trials = {trials} would drop {}{more}; allowed: fewer values, or more \
                 trials",
                dropped.join(" and ")
            )
        }
        let longer = |rows: Vec<Vec<String>>, column: &Vec<String>| {
            let with = |row: &Vec<String>, value: &String| row.iter().chain([value]).cloned().collect();
            rows.iter().flat_map(|row| column.iter().map(move |value| with(row, value))).collect()
        };
        Ok(columns.iter().fold(vec![vec![]], longer))
    }
}

/// The spec with these keys and values added.
fn with(spec: &Spec, pairs: &[(String, String)]) -> Result<Spec> {
    let mut text = spec.text().to_owned();
    for (key, value) in pairs {
        let separator = if text.contains(':') { ',' } else { ':' };
        text += &format!("{separator}{key}={value}");
    }
    Ok(parse(&text)?)
}

/// Whether the text of a spec sets a key.
fn sets(spec: &Spec, key: &str) -> bool {
    let (_, pairs) = spec.text().split_once(':').unwrap_or_default();
    pairs.split(',').any(|pair| pair.split('=').next() == Some(key))
}

/// Whether a key takes whole numbers only.
fn is_whole(spec: &Spec, key: &str) -> bool {
    let key = key.trim_start_matches("base_");
    let mut fields = spec.method().chain().iter().flat_map(|algorithm| algorithm.fields());
    fields.any(|field| field.key == key && field.what == "a whole number")
}
