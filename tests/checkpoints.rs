//! State saved and loaded, in this process and in another: to the bit, by name, all or nothing.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor, Var};
use candle_optim::{Group, NamedVars, Optim, ParamsAdamW, ParamsEma, ParamsLion, ParamsMuon, Spec};
use common::{TYPES, all_specs, bits, copy, named, normals, shape, state, step, tensor};

/// A folder of this test alone, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Variables by name; in a hash map they have another order in every process.
type Vars = BTreeMap<&'static str, Var>;

fn list<'a>(vars: &Vars, names: impl IntoIterator<Item = &'a str>) -> Vec<(String, Var)> {
    names.into_iter().map(|name| (name.to_string(), vars[name].clone())).collect()
}

fn copies(vars: &Vars) -> Vars {
    vars.iter().map(|(name, var)| (*name, copy(var))).collect()
}

fn ends(vars: &Vars) -> Vec<Vec<u64>> {
    vars.values().map(|var| bits(var)).collect()
}

/// Steps `from..to`, each with gradients that depend on its number and on the variable; one variable misses one.
fn train(optim: &mut Optim, vars: &Vars, steps: std::ops::Range<u64>) {
    for at in steps {
        let given = (1..).zip(vars.values()).filter(|(seed, _)| (at, *seed) != (4, 2)).map(|(seed, var)| {
            let gradient = tensor(&normals(100 * at + seed, var.elem_count()), var.dtype());
            (var, gradient.reshape(var.shape()).unwrap())
        });
        step(optim, given).unwrap();
    }
}

#[test]
fn every_optimizer_resumes_to_the_bit() {
    let folder = Folder::new("resume");
    let file = folder.file("state.safetensors");
    for spec in all_specs() {
        for (dtype, state_dtype) in TYPES {
            let start =
                |seed: u64, n: usize| copy(&tensor(&normals(seed, n), dtype).reshape(&shape(&spec, n, 3)[..]).unwrap());
            let whole: Vars = [("a", start(1, 15)), ("b", start(2, 12)), ("c", start(3, 33))].into();
            let make = |vars: &Vars, names: [&str; 3]| {
                let group = Group::new(list(vars, names), spec.clone());
                let group = if let Some(dtype) = state_dtype { group.state_dtype(dtype) } else { group };
                Optim::new(vec![group]).unwrap()
            };
            let mut optim = make(&whole, ["a", "b", "c"]);
            train(&mut optim, &whole, 0..3);
            optim.save(&file).unwrap();
            let half = copies(&whole);
            train(&mut optim, &whole, 3..6);

            let mut resumed = make(&half, ["c", "a", "b"]);
            resumed.load(&file).unwrap();
            train(&mut resumed, &half, 3..6);
            let what = format!("{} {dtype:?} {state_dtype:?}", spec.text());
            assert!(ends(&half) == ends(&whole), "{what}");
            assert!(state(&resumed) == state(&optim), "{what}");
            // `maximize` and hyperparameters are the program's; the count of steps is not.
            assert_eq!(resumed.steps(), 6, "{what}");
        }
    }
}

/// Three methods, one of them of whole tensors, with state in two types, an average and a schedule.
fn mixed(vars: &Vars, reversed: bool) -> Optim {
    let names: Vec<&str> = if reversed { vars.keys().rev().copied().collect() } else { vars.keys().copied().collect() };
    let mut all = NamedVars::from(list(vars, names));
    let matrices = all.take("blocks.*.weight").unwrap();
    let embeddings = all.take("wte.*").unwrap();
    let muon = Group::new(matrices, ParamsMuon { lr: 0.02, ..Default::default() }).then(ParamsEma { decay: 0.9 });
    let lion = Group::new(embeddings, ParamsLion { caution: true, ..Default::default() }).state_dtype(DType::BF16);
    let adamw = Group::new(all, ParamsAdamW { amsgrad: true, ..Default::default() });
    Optim::new(vec![muon, lion, adamw.state_dtype(DType::BF16)])
        .unwrap()
        .schedule(|base: f64, step: u64| base / (1 + step) as f64)
        .clip_grad_norm(3.)
}

fn mixed_vars() -> Vars {
    let shapes: [(&str, &[usize]); 6] = [
        ("blocks.0.weight", &[8, 3]),
        ("blocks.1.weight", &[5, 8]),
        ("wte.weight", &[40, 6]),
        ("blocks.0.bias", &[8]),
        ("blocks.1.bias", &[5]),
        ("head.weight", &[5000]),
    ];
    let var = |(seed, (name, dims)): (u64, (&'static str, &[usize]))| {
        let dtype = if seed == 3 { DType::BF16 } else { DType::F32 };
        (name, copy(&tensor(&normals(seed, dims.iter().product()), dtype).reshape(dims).unwrap()))
    };
    (0..).zip(shapes).map(var).collect()
}

#[test]
fn mixed_groups_resume_in_another_order() {
    let folder = Folder::new("mixed");
    let (whole, file) = (mixed_vars(), folder.file("state.safetensors"));
    let mut optim = mixed(&whole, false);
    train(&mut optim, &whole, 0..7);
    optim.save(&file).unwrap();
    let half = copies(&whole);
    train(&mut optim, &whole, 7..14);

    let mut resumed = mixed(&half, true);
    resumed.load(&file).unwrap();
    train(&mut resumed, &half, 7..14);
    assert!(ends(&half) == ends(&whole));
    assert_eq!(state(&resumed), state(&optim));

    // By a dict, and from the first step on.
    let dict = mixed(&mixed_vars(), false).state_dict().unwrap();
    let again = mixed_vars();
    let mut optim = mixed(&again, true);
    optim.load_state_dict(&dict).unwrap();
    train(&mut optim, &again, 0..14);
    assert!(ends(&again) == ends(&whole));
}

#[test]
fn mixed_groups_resume_in_a_new_process() {
    const NAME: &str = "mixed_groups_resume_in_a_new_process";
    const CHILD: &str = "CANDLE_OPTIM_RESUME";
    let save = |vars: &Vars, file: PathBuf| {
        let tensors = vars.iter().map(|(name, var)| (name.to_string(), var.as_tensor().clone())).collect();
        candle_core::safetensors::save::<String, _>(&tensors, file).unwrap();
    };
    let load = |file: PathBuf| -> Vars {
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        mixed_vars().into_keys().map(|name| (name, copy(&tensors[name].to_device(common::device()).unwrap()))).collect()
    };
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let vars = load(folder.join("weights.safetensors"));
        let mut optim = mixed(&vars, true);
        optim.load(folder.join("state.safetensors")).unwrap();
        train(&mut optim, &vars, 7..14);
        save(&vars, folder.join("weights-14.safetensors"));
        return optim.save(folder.join("state-14.safetensors")).unwrap();
    }
    let folder = Folder::new("process");
    let vars = mixed_vars();
    let mut optim = mixed(&vars, false);
    train(&mut optim, &vars, 0..7);
    save(&vars, folder.file("weights.safetensors"));
    optim.save(folder.file("state.safetensors")).unwrap();
    train(&mut optim, &vars, 7..14);

    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args(["--exact", NAME]).env(CHILD, &folder.0).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(ends(&load(folder.file("weights-14.safetensors"))) == ends(&vars));
    let mut other = mixed(&vars, true);
    other.load(folder.file("state-14.safetensors")).unwrap();
    assert_eq!(state(&other), state(&optim));
}

/// An optimizer after two steps, with its variable.
fn stepped(spec: &str) -> (Var, Optim) {
    let a = common::var(&[1., -2., 3.], DType::F32);
    let mut optim = Optim::new(vec![Group::new(named(&[("a", &a)]), common::spec(spec))]).unwrap();
    for _ in 0..2 {
        step(&mut optim, [(&a, tensor(&[0.5, 0.25, -1.], DType::F32))]).unwrap();
    }
    (a, optim)
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing() {
    let folder = Folder::new("unreadable");
    let file = folder.file("state.safetensors");
    let (_, saved) = stepped("adamw");
    saved.save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(good[..8].try_into().unwrap())).unwrap();

    let (a, mut optim) = stepped("adamw");
    step(&mut optim, [(&a, tensor(&[9.; 3], DType::F32))]).unwrap();
    let before = (bits(&a), state(&optim), optim.steps());
    let mut refuse = |what: &str, bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let error = optim.load(&file).expect_err(what).to_string();
        assert!(error.contains(file.to_str().unwrap()), "{what}: {error}");
        assert!((bits(&a), state(&optim), optim.steps()) == before, "{what}");
    };
    for length in [0, 1, 8, header / 2, header, header + 1, good.len() - 1] {
        refuse(&format!("the first {length} bytes"), Some(&good[..length]));
    }
    refuse("more than the header says", Some(&[good.as_slice(), &[0]].concat()));
    for at in (0..8).chain((8..header).step_by(3)) {
        let mut bytes = good.clone();
        bytes[at] = 0xff;
        refuse(&format!("byte {at}"), Some(&bytes));
    }
    refuse("text", Some(b"lr,loss\n0.1,2.5\n"));
    refuse("no file", None);

    std::fs::write(&file, good).unwrap();
    optim.load(&file).unwrap();
    assert_eq!(state(&optim), state(&saved));
}

#[test]
fn a_file_of_another_optimizer_is_refused() {
    let folder = Folder::new("other");
    let file = folder.file("state.safetensors");
    let (_, adamw) = stepped("adamw");
    adamw.save(&file).unwrap();
    // Adam keeps the same state, and is another.
    for other in ["adam", "nadam", "ema:base=adamw"] {
        let (a, mut optim) = stepped(other);
        let name = optim.groups()[0].method().name();
        let before = (bits(&a), state(&optim));
        let error = optim.load(&file).unwrap_err().to_string();
        let expected =
            format!(r#"the state does not fit: it is of {{"group.0": "adamw"}}, not of {{"group.0": "{name}"}}"#);
        assert_eq!(error, expected);
        assert!((bits(&a), state(&optim)) == before, "{other}");
    }
    // Tensors that are no optimizer's.
    let tensors = [("weight".to_string(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())].into();
    candle_core::safetensors::save::<String, _>(&tensors, &file).unwrap();
    let error = stepped("adamw").1.load(&file).unwrap_err().to_string();
    assert_eq!(error, r#"the state does not fit: it is of {}, not of {"group.0": "adamw"}"#);
}

#[test]
fn a_state_that_does_not_fit_is_named_and_changes_nothing() {
    let (a, mut optim) = stepped("adamw");
    let good = optim.state_dict().unwrap();
    step(&mut optim, [(&a, tensor(&[9.; 3], DType::F32))]).unwrap();
    let before = (bits(&a), state(&optim), optim.steps());
    let number = |x: i64| Tensor::new(x, &Device::Cpu).unwrap();
    let cases: [(&str, Option<Tensor>, &str); 10] = [
        ("a.exp_avg", None, "'a.exp_avg' is missing"),
        ("a.step", None, "'a.step' is missing"),
        ("step", None, "'step' is missing"),
        ("a.slow", Some(number(1)), "'a.slow' is not expected"),
        ("b.exp_avg", Some(number(1)), "'b.exp_avg' is not expected"),
        ("a.exp_avg", Some(tensor(&[1.; 4], DType::F32)), "'a.exp_avg' is f32 [4], not f32 [3]"),
        ("a.exp_avg", Some(tensor(&[1.; 3], DType::F64)), "'a.exp_avg' is f64 [3], not f32 [3]"),
        ("a.exp_avg", Some(tensor(&[1.; 3], DType::BF16)), "'a.exp_avg' is bf16 [3], not f32 [3]"),
        ("a.step", Some(number(-1)), "'a.step' is -1; allowed: 0 and above"),
        ("step", Some(tensor(&[1.], DType::F32)), "'step' is f32 [1], not i64 []"),
    ];
    for (key, value, expected) in cases {
        let mut dict = good.clone();
        match value {
            Some(value) => dict.insert(key.into(), value),
            None => dict.remove(key),
        };
        let error = optim.load_state_dict(&dict).unwrap_err().to_string();
        assert_eq!(error, format!("the state does not fit: {expected}"));
        assert!((bits(&a), state(&optim), optim.steps()) == before, "{expected}");
    }
    // State of a variable that has counted no step, and none of one that has.
    let mut dict = good.clone();
    dict.insert("a.step".into(), number(0));
    assert!(optim.load_state_dict(&dict).unwrap_err().to_string().contains("'a.exp_avg' is not expected"));
    let fresh = Optim::new(vec![Group::new(named(&[("a", &a)]), common::spec("adamw"))]).unwrap();
    let mut dict = fresh.state_dict().unwrap();
    dict.insert("a.step".into(), number(1));
    assert!(optim.load_state_dict(&dict).unwrap_err().to_string().contains("'a.exp_avg' is missing"));
    assert!((bits(&a), state(&optim), optim.steps()) == before);

    optim.load_state_dict(&good).unwrap();
    assert!(optim.state_dict().unwrap().iter().all(|(key, tensor)| bits(tensor) == bits(&good[key])));
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let folder = Folder::new("unwritable");
    let file = folder.file("state.safetensors");
    let (a, mut optim) = stepped("adamw");
    let error = optim.save(folder.file("none/state.safetensors")).unwrap_err().to_string();
    assert!(error.contains("none/state.safetensors: ") && error.contains("No such file"), "{error}");
    assert!(folder.names().is_empty());

    optim.save(&file).unwrap();
    step(&mut optim, [(&a, tensor(&[9.; 3], DType::F32))]).unwrap();
    // A folder in its place.
    std::fs::create_dir(folder.file("folder")).unwrap();
    std::fs::write(folder.file("folder/kept"), "kept").unwrap();
    let error = optim.save(folder.file("folder")).unwrap_err().to_string();
    assert!(error.contains("folder: "), "{error}");
    assert_eq!(folder.names(), ["folder", "state.safetensors"]);
    assert_eq!(std::fs::read(folder.file("folder/kept")).unwrap(), b"kept");

    // What is saved in its place is whole.
    optim.save(&file).unwrap();
    let (_, mut other) = stepped("adamw");
    other.load(&file).unwrap();
    assert_eq!(state(&other), state(&optim));
    assert_eq!(folder.names(), ["folder", "state.safetensors"]);
}

/// A limit on the size of files stands in for a full disk: a write fails after the first bytes.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_file() {
    const NAME: &str = "a_full_disk_leaves_the_old_file";
    const CHILD: &str = "CANDLE_OPTIM_FULL";
    let large = || {
        let a = common::var(&normals(0, 10_000), DType::F32);
        let mut optim = Optim::new(vec![Group::new(named(&[("a", &a)]), common::spec("adamw"))]).unwrap();
        step(&mut optim, [(&a, tensor(&normals(1, 10_000), DType::F32))]).unwrap();
        optim
    };
    if let Some(file) = std::env::var_os(CHILD) {
        return println!("{}", large().save(file).unwrap_err());
    }
    let folder = Folder::new("full");
    let file = folder.file("state.safetensors");
    large().save(&file).unwrap();
    let old = std::fs::read(&file).unwrap();
    let limited = r#"trap "" XFSZ; ulimit -f 16; exec "$0" --exact "$1" --nocapture"#;
    let mut child = Command::new("sh");
    child.args(["-c", limited]).arg(std::env::current_exe().unwrap()).arg(NAME).env(CHILD, &file);
    let done = child.output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains("state.safetensors: File too large"), "{said}");
    assert_eq!(folder.names(), ["state.safetensors"]);
    assert!(std::fs::read(&file).unwrap() == old);
}

/// A name that a state's could be taken for, and one that has every separator.
#[test]
fn names_may_have_any_text() {
    let folder = Folder::new("names");
    let file = folder.file("state.safetensors");
    let spec: Spec = common::spec("adamw");
    let names = ["", "a", "a.b", "a.b.c", "ä é", "a|b", "0"];
    let vars: Vec<Var> = (0..).zip(names).map(|(seed, _)| common::var(&normals(seed, 3), DType::F32)).collect();
    let listed: Vec<_> = names.iter().zip(&vars).map(|(name, var)| (*name, var)).collect();
    let mut optim = Optim::new(vec![Group::new(named(&listed), spec.clone())]).unwrap();
    step(&mut optim, vars.iter().map(|var| (var, tensor(&[1.; 3], DType::F32)))).unwrap();
    optim.save(&file).unwrap();
    let mut other = Optim::new(vec![Group::new(named(&listed), spec)]).unwrap();
    other.load(&file).unwrap();
    assert_eq!(state(&other), state(&optim));
}
