//! What the program does, command by command: check everything, compute, write everything, print.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Var};
use candle_optim::Spec;
use serde_json::{Map, Value, json};

use super::bench::{self, Workload};
use super::cli::{BenchArgs, Cli, Command, MinimizeArgs, OutputArgs, TrainArgs, defaults, with_lr};
use super::data::{Circles, Dataset, Division};
use super::details::{self, DETAILS, Recorder, Recording};
use super::folder::{Contents, csv_writer};
use super::live::Live;
use super::memory::Needs;
use super::minimize::{self, minimize};
use super::model::Network;
use super::nn::Activation;
use super::optimizer::{Stepper, Storage, parse, state_bytes};
use super::output::{Drawing, Output, Results};
use super::plot::{Figure, Picture};
use super::report::{self, Overlay};
use super::train::{self, Epoch, Observer, Settings, train};
use super::twins::{registry, twin};
use super::{list, parity, summary, sweep, tables, tensorboard, threads};

/// Runs what the command line asks for.
///
/// # Errors
/// Input that is not allowed, or results that cannot be written.
pub fn run(cli: Cli) -> Result<()> {
    if !matches!(cli.command, Some(Command::Kernel(_) | Command::List(_))) {
        threads::start()?;
    }
    match cli.command {
        None => {
            let output = cli.output;
            let minimization = Minimization::new(MinimizeArgs { output: output.clone(), ..defaults() })?;
            let training = Training::new(TrainArgs { output: output.clone(), ..defaults() }, None)?;
            perform(&[&minimization, &training], &output, &cli.text, None)
        }
        Some(Command::Train(args)) => {
            let output = args.output.clone();
            let overlay = args.overlay.as_deref().map(Overlay::open).transpose()?;
            perform(&[&Training::new(args, overlay.as_ref())?], &output, &cli.text, overlay.as_ref())
        }
        Some(Command::Minimize(args)) => {
            let output = args.output.clone();
            perform(&[&Minimization::new(args)?], &output, &cli.text, None)
        }
        Some(Command::Report(args)) => {
            let path = report::report(&args.folder, args.overlay.as_deref())?;
            if args.quiet { Ok(()) } else { tables::print(format_args!("The report is in {}", path.display())) }
        }
        Some(Command::Sweep(args)) => sweep::sweep(&args),
        Some(Command::Run(args)) => sweep::run(&args),
        Some(Command::Merge(args)) => sweep::merge(args),
        Some(Command::Bench(args)) => run_bench(&args),
        Some(Command::Kernel(args)) => {
            let state_dtype = args.state_dtype.map(|dtype| dtype.0);
            // Kernels depend on the rank alone; a vector has the lowest rank that all elementwise methods accept.
            tables::print(args.optimizer.method().cuda_source(&[1], args.dtype.0, state_dtype)?.trim_end())
        }
        Some(Command::List(args)) => {
            let registry = registry()?;
            let text = match args.markdown {
                true => format!("{}\n{}", registry.overview(), registry.markdown()),
                false => list::text(&registry),
            };
            tables::print(text.trim_end())
        }
    }
}

fn run_bench(args: &BenchArgs) -> Result<()> {
    check_distinct(&args.optimizers)?;
    let specs = if args.optimizers.is_empty() {
        let all = registry()?.names().map(parse).collect::<Result<Vec<Spec>, _>>()?;
        all.into_iter().filter(|spec| !bench::evaluates(spec)).collect()
    } else {
        args.optimizers.clone()
    };
    let workload = Workload {
        parameters: args.parameters,
        tensors: args.tensors,
        dtype: args.dtype.0,
        state_dtype: args.state_dtype.map(|dtype| dtype.0),
        device: args.device.open()?,
    };
    let mut needed = 0f64;
    for spec in &specs {
        bench::check(spec, &workload)?;
        needed = needed.max(bench::bytes_needed(spec, &workload)?);
    }
    Needs::default().of(format!("--parameters {}", args.parameters), needed).check()?;
    let live = Live::new(PROGRESS, specs.len() as u64, false);
    let mut measurements = vec![];
    for spec in &specs {
        live.set_message(spec.text());
        measurements.push(bench::measure(spec, &workload)?);
        live.inc();
    }
    drop(live);
    if args.json {
        let report = json!({
            "versions": summary::versions(),
            "parameters": args.parameters,
            "tensors": args.tensors,
            "dtype": args.dtype.0.as_str(),
            "threads": rayon::current_num_threads(),
            "optimizers": measurements,
        });
        return tables::print(serde_json::to_string_pretty(&report)?);
    }
    let plain = if workload.device.is_cpu() { "y += a·x" } else { "copy" };
    tables::print(tables::bench(&measurements, plain))
}

/// Something to compute, its input checked.
trait Experiment {
    /// The files it will write.
    fn files(&self) -> &'static [&'static str];
    /// How many times it will report progress.
    fn length(&self) -> u64;
    /// Memory that it needs.
    fn needs(&self) -> Needs;
    /// Computes it.
    fn run(&self, live: &Live) -> Result<Findings>;
}

/// The results of an experiment.
struct Findings {
    /// Contents of the files, in the order of [`Experiment::files`].
    contents: Vec<Box<Contents<'static>>>,
    /// The section of the summary.
    section: &'static str,
    /// The contents of that section.
    summary: Map<String, Value>,
    /// What is printed.
    report: String,
    /// What TensorBoard is to show; empty if it is not asked for.
    events: Vec<tensorboard::Run>,
}

/// Runs experiments that `command` repeats, and draws them beside an overlay.
fn perform(experiments: &[&dyn Experiment], args: &OutputArgs, command: &str, overlay: Option<&Overlay>) -> Result<()> {
    let names: Vec<&str> = experiments.iter().flat_map(|experiment| experiment.files()).copied().collect();
    let output = Output::open(&args.out, &names)?;
    experiments.iter().try_for_each(|experiment| experiment.needs().check())?;

    let live = Live::new(PROGRESS, experiments.iter().map(|experiment| experiment.length()).sum(), args.quiet);
    let (mut results, mut reports, mut runs) = (vec![], vec![], vec![]);
    for experiment in experiments {
        let Findings { contents, section, mut summary, report, events } = experiment.run(&live)?;
        summary.insert("command".into(), json!(command));
        let files = experiment.files().iter().copied().zip(contents).collect();
        results.push(Results { section, summary, files });
        reports.push(report);
        runs.extend(events);
    }
    drop(live);
    let drawing = if args.no_report { Drawing::Skipped } else { Drawing::Page(overlay) };
    output.write(&results, drawing)?;
    if !runs.is_empty() {
        tensorboard::write(&args.out, &runs)?;
    }

    if !args.quiet {
        for report in reports {
            tables::print(report)?;
        }
        tables::print(format_args!("Results are in {}", args.out.join("").display()))?;
    }
    Ok(())
}

fn check_distinct(specs: &[Spec]) -> Result<()> {
    let mut seen = HashSet::new();
    for spec in specs {
        ensure!(seen.insert(spec.text()), "--optimizer '{}' is given twice", spec.text());
    }
    Ok(())
}

/// Checks before any work that each optimizer can move variables of these dimensions.
fn check_moves(specs: &[Spec], vars: &[(&str, &[usize])]) -> Result<()> {
    for spec in specs {
        let var = |&(name, dims): &(&str, &[usize])| Ok((name.to_owned(), Var::zeros(dims, DType::F32, &Device::Cpu)?));
        let vars = vars.iter().map(var).collect::<Result<Vec<_>>>()?;
        Stepper::new(spec, vars, Storage::default()).with_context(|| format!("--optimizer '{}'", spec.text()))?;
    }
    Ok(())
}

/// Checks that stochastic rounding applies: 16-bit weights, and only optimizers that support it.
fn check_rounding(args: &TrainArgs) -> Result<()> {
    if !args.stochastic_rounding {
        return Ok(());
    }
    let dtype = args.dtype.0;
    ensure!(
        [DType::BF16, DType::F16].contains(&dtype),
        "--stochastic-rounding is for weights of 16 bits, and --dtype is {}; allowed: bf16, f16",
        dtype.as_str()
    );
    let candles = args.optimizers.iter().find(|spec| twin(spec).is_some());
    let candles = candles.map_or("", Spec::text);
    ensure!(candles.is_empty(), "--optimizer '{candles}' is Candle's and has no --stochastic-rounding; name others");
    Ok(())
}

/// Networks trained on one problem.
struct Training {
    args: TrainArgs,
    specs: Vec<Spec>,
    dataset: Dataset,
    settings: Settings,
}

impl Training {
    fn new(args: TrainArgs, overlay: Option<&Overlay>) -> Result<Self> {
        check_distinct(&args.optimizers)?;
        check_moves(&args.optimizers, &[("0.weight", &[1, 1]), ("0.bias", &[1])])?;
        check_rounding(&args)?;
        if let Some(overlay) = overlay {
            overlay.check(args.optimizers.iter().map(Spec::text), args.epochs)?;
        }
        // A file is read as text first, and is then stored as numbers of about the same size.
        let bytes = match &args.data {
            Some(path) => 2. * std::fs::metadata(path).map_or(0, |file| file.len()) as f64,
            None => args.samples as f64 * BYTES_OF_A_POINT,
        };
        Needs::default().of(data_option(&args), bytes).check()?;
        let dtype = args.dtype.0;
        let dataset = match &args.data {
            Some(path) => Dataset::table(path, &args.columns(), args.test_size, args.seed, dtype)?,
            None => {
                let division = Division::in_two(args.test_size, args.seed);
                Dataset::drawn(&args.points()?, &division, dtype)?
            }
        };
        let settings = Settings {
            epochs: args.epochs,
            batch_size: args.batch_size,
            seed: args.seed,
            hidden: args.hidden.clone(),
            activation: args.activation,
            dtype: args.dtype.0,
            stochastic_rounding: args.stochastic_rounding,
            device: args.device.open()?,
        };
        let specs = with_lr(&args.optimizers, args.lr, 0.01);
        Ok(Self { args, specs, dataset, settings })
    }

    /// Whether PyTorch's reference curves are for this problem.
    fn is_the_chapters(&self) -> bool {
        self.args.data.is_none()
            && self.args.points().is_ok_and(|points| points == Circles::default().into())
            && self.settings.activation == Activation::Relu
            && self.args.test_size == 0.3
            && self.settings.hidden == [16, 16]
            && self.settings.batch_size == 0
    }

    /// Widths of the network.
    fn sizes(&self) -> Vec<usize> {
        train::sizes(self.dataset.features, &self.settings.hidden, self.dataset.classes.len())
    }

    /// The problem in one line, for the title of the picture.
    fn title(&self) -> String {
        let data = match &self.args.data {
            Some(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            None => self.args.problem.name().into(),
        };
        let network = train::joined(&self.sizes(), "-");
        format!("Optimizers on {data}: {network} network, seed {}", self.settings.seed)
    }
}

impl Experiment for Training {
    fn files(&self) -> &'static [&'static str] {
        let all = &["losses.csv", "comparison.png", "comparison.svg", DETAILS];
        if self.args.output.no_report { &all[..3] } else { all }
    }

    fn length(&self) -> u64 {
        (self.specs.len() * self.settings.epochs) as u64
    }

    fn needs(&self) -> Needs {
        let Self { args, specs, dataset, settings } = self;
        let hidden = format!("--hidden {}", train::joined(&settings.hidden, ","));
        let records = (specs.len() * settings.epochs) as f64 * size_of::<train::Epoch>() as f64;
        let sizes = self.sizes();
        let recorded = match args.output.no_report {
            true => 0.,
            false => Recording::bytes_needed(&sizes, settings.epochs, specs.len()),
        };
        let rows = [dataset.train.y.len(), dataset.test.y.len()];
        let all = specs.iter().map(|spec| (spec, train::Bytes::needed(&sizes, rows, spec, settings)));
        let Some((spec, bytes)) = all.max_by(|a, b| a.1.state.total_cmp(&b.1.state)) else { return Needs::default() };
        Needs::default()
            .of(data_option(args), bytes.rows)
            .of(format!("{} with {hidden}", data_option(args)), bytes.between)
            .of(hidden, bytes.network)
            .of(format!("--optimizer '{}'", spec.text()), bytes.state)
            .of(format!("--epochs {}", settings.epochs), records)
            .of("the report (--no-report leaves it out)", recorded)
    }

    fn run(&self, live: &Live) -> Result<Findings> {
        let recording = match self.args.output.no_report {
            true => None,
            false => Some(Recording::new(&self.dataset, &self.settings, self.specs.len())?),
        };
        let (mut runs, mut recorded) = (vec![], vec![]);
        live.set_message("training");
        live.set_lines(self.specs.iter().map(Spec::text));
        for (line, spec) in self.specs.iter().enumerate() {
            let recorder = recording.as_ref().map(|all| all.recorder(spec.text()));
            let mut watcher = Watcher { live, line, epoch: 0, epochs: self.settings.epochs, recorder };
            runs.push(train(&self.dataset, spec, &self.settings, &mut watcher)?);
            recorded.extend(watcher.recorder.map(Recorder::finish));
        }
        let details = recording.map(|recording| details::write(&[recording.finish(recorded, &runs)?])).transpose()?;
        let mut pairs = parity::with_candle(&self.specs, &runs);
        if self.is_the_chapters() {
            pairs.extend(parity::with_torch(&self.specs, &runs, &self.settings)?);
        }

        let figure = Figure::new(&self.title(), &runs);
        let mut report: String = self.dataset.notes.iter().map(|note| format!("note: {note}\n")).collect();
        report += &tables::finals(&runs, self.args.task_type).to_string();
        for (run, note) in runs.iter().filter_map(|run| Some((run, run.note.as_ref()?))) {
            report += &format!("\n{}: {note}", run.optimizer);
        }
        if !pairs.is_empty() {
            report += &format!("\n\nLargest differences over all epochs:\n{}", tables::parity(&pairs));
        }
        let (png, svg) = (figure.png()?, figure.svg()?);
        let summary = summary::training(&self.title(), &self.args, &self.dataset, &self.specs, &runs, &pairs);
        let event_run = |(spec, run): (&Spec, &train::Run)| tensorboard::Run {
            name: spec.text().into(),
            spec: spec.clone(),
            seed: run.seed,
            epochs: run.epochs.clone(),
        };
        let events = match self.args.tensorboard {
            true => self.specs.iter().zip(&runs).map(event_run).collect(),
            false => vec![],
        };
        let losses: Box<Contents> = Box::new(move |out| {
            let mut losses = csv_writer(out);
            losses.write_record(LOSSES)?;
            for run in &runs {
                for (i, epoch) in run.epochs.iter().enumerate() {
                    losses.serialize((&run.optimizer, run.seed, i + 1, epoch))?;
                }
            }
            Ok(losses.flush()?)
        });
        Ok(Findings {
            contents: [losses, whole(png), whole(svg.into_bytes())].into_iter().chain(details.map(whole)).collect(),
            section: summary::TRAIN,
            summary,
            report: report + "\n",
            events,
        })
    }
}

/// Shows the epochs of a training and records it.
struct Watcher<'a> {
    live: &'a Live,
    line: usize,
    epoch: usize,
    epochs: usize,
    recorder: Option<Recorder<'a>>,
}

impl Observer for Watcher<'_> {
    fn wants_gradients(&self) -> bool {
        self.recorder.as_ref().is_some_and(Observer::wants_gradients)
    }

    fn started(&mut self, network: &Network) -> Result<()> {
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.started(network))
    }

    fn epoch(&mut self, network: &Network, epoch: &Epoch, gradients: Option<&GradStore>) -> Result<()> {
        self.epoch += 1;
        self.live.inc();
        self.live.show(self.line, epoch.test_loss, || {
            format!("epoch {} of {}, test loss {:.4}", self.epoch, self.epochs, epoch.test_loss)
        });
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.epoch(network, epoch, gradients))
    }
}

/// Writes the contents of a file that is in memory.
fn whole(bytes: Vec<u8>) -> Box<Contents<'static>> {
    Box::new(move |out| Ok(out.write_all(&bytes)?))
}

/// The option that sets the number of rows.
fn data_option(args: &TrainArgs) -> String {
    match &args.data {
        Some(path) => format!("--data '{}'", path.display()),
        None => format!("--samples {}", args.samples),
    }
}

/// While circles are drawn and split, memory holds a point and its class three times, and its index in two lists.
const BYTES_OF_A_POINT: f64 = 3. * 24. + 2. * 8.;

const PROGRESS: &str = "{msg:40} {bar:40} {percent:>3} %  {eta} left";

const LOSSES: [&str; 7] = ["optimizer", "seed", "epoch", "train_loss", "test_loss", "train_accuracy", "test_accuracy"];

/// A test function minimized.
struct Minimization {
    args: MinimizeArgs,
    specs: Vec<Spec>,
    start: Vec<f64>,
}

impl Minimization {
    fn new(args: MinimizeArgs) -> Result<Self> {
        check_distinct(&args.optimizers)?;
        let start = if args.start.is_empty() { args.function.start.to_vec() } else { args.start.clone() };
        args.function.check_start(&start)?;
        check_moves(&args.optimizers, &[("x", &[start.len()])])?;
        let specs = with_lr(&args.optimizers, args.lr, 0.1);
        Ok(Self { args, specs, start })
    }
}

impl Experiment for Minimization {
    fn files(&self) -> &'static [&'static str] {
        &["minimize.csv"]
    }

    fn length(&self) -> u64 {
        self.specs.len() as u64
    }

    fn needs(&self) -> Needs {
        let numbers = self.start.len();
        let paths = minimize::bytes_needed(numbers, self.args.steps) * self.specs.len() as f64;
        let states = self.specs.iter().map(|spec| (spec, state_bytes(spec, &[numbers], DType::F64, None)));
        let Some((spec, state)) = states.max_by(|a, b| a.1.total_cmp(&b.1)) else { return Needs::default() };
        Needs::default()
            .of(format!("--steps {}", self.args.steps), paths)
            .of(format!("--optimizer '{}'", spec.text()), state)
    }

    fn run(&self, live: &Live) -> Result<Findings> {
        let mut paths = vec![];
        for spec in &self.specs {
            live.set_message(spec.text());
            paths.push(minimize(self.args.function, &self.start, self.args.steps, spec)?);
            live.inc();
        }

        let function = self.args.function;
        let report = format!("{} = {}\n{}\n", function.name, function.formula, tables::paths(&paths));
        let summary = summary::minimization(&self.args, &self.start, &self.specs, &paths);
        let coordinates = self.start.len();
        let points: Box<Contents> = Box::new(move |out| {
            let mut points = csv_writer(out);
            let coordinates = (0..coordinates).map(|i| format!("x{i}"));
            let header = ["optimizer".into(), "step".into()].into_iter().chain(coordinates).chain(["value".into()]);
            points.write_record(header.collect::<Vec<String>>())?;
            for path in &paths {
                for (step, (x, value)) in path.points.iter().enumerate() {
                    points.serialize((&path.optimizer, step, x, value))?;
                }
            }
            Ok(points.flush()?)
        });
        Ok(Findings { contents: vec![points], section: summary::MINIMIZE, summary, report, events: vec![] })
    }
}
