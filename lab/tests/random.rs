//! NumPy's and PyTorch's random streams, and the data made from them: the same bits from the same seed.

#[path = "../../tests/common/mod.rs"]
mod common;

use candle_core::Tensor;
use candle_optim_lab::data::{
    Circles, Dataset, Rows, Targets, make_blobs, make_circles, make_moons, make_spirals, shuffled_split,
    stratified_split,
};
use candle_optim_lab::random::numpy::RandomState;
use candle_optim_lab::random::torch::Generator;
use common::{fixture, floats, indices, path};

/// Compares what went through the C library's `sin`, `cos` or `log`. They differ by an ulp between libraries and, in
/// glibc, between processors with and without fused multiply-add: equal bits are due on the kind of machine that made
/// the fixtures only.
fn assert_same_points(ours: &[f64], theirs: &[f64], what: &str) {
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    let exact = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
    let exact = false;
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (x, e)) in ours.iter().zip(theirs).enumerate() {
        let same = if exact { x.to_bits() == e.to_bits() } else { (x - e).abs() <= 4e-16 * e.abs().max(1.) };
        assert!(same, "{what}[{i}] is {x:e}, but should be {e:e}");
    }
}

#[test]
fn streams_are_those_of_numpy_and_pytorch() {
    for (key, expected) in fixture("random") {
        let (library, rest) = key.split_once('|').unwrap();
        let (seed, stream) = rest.split_once('|').unwrap();
        match library {
            "numpy" => check_numpy(RandomState::new(seed.parse().unwrap()), stream, &expected, &key),
            "torch" => check_torch(Generator::manual_seed(seed.parse().unwrap()), stream, &expected, &key),
            _ => panic!("unknown key {key}"),
        }
    }
}

fn check_numpy(mut rng: RandomState, stream: &str, expected: &Tensor, key: &str) {
    let n = expected.elem_count();
    match stream {
        // An interval that takes all 32 bits hands out the generator's words.
        "raw" => {
            let words: Vec<usize> = (0..n).map(|_| rng.random_interval(u32::MAX as usize)).collect();
            assert_eq!(words, indices(expected), "{key}");
        }
        "random_sample" => {
            let numbers: Vec<f64> = (0..n).map(|_| rng.random_sample()).collect();
            assert_eq!(numbers, floats(expected), "{key}");
        }
        "normal" => {
            let numbers: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
            assert_same_points(&numbers, &floats(expected), key);
        }
        "permutation|1000" => assert_eq!(rng.permutation(1000), indices(expected), "{key}"),
        "choice|7|3" => assert_eq!(rng.choice(7, 3), indices(expected), "{key}"),
        _ => panic!("unknown key {key}"),
    }
}

fn check_torch(mut rng: Generator, stream: &str, expected: &Tensor, key: &str) {
    match stream.split('|').collect::<Vec<_>>()[..] {
        ["uniform"] => {
            let numbers: Vec<f32> = (0..expected.elem_count()).map(|_| rng.uniform_f32(-0.7, 1.3)).collect();
            assert_eq!(numbers, expected.to_vec1::<f32>().unwrap(), "{key}");
        }
        ["randperm", "700"] => assert_eq!(rng.randperm(700), indices(expected), "{key}"),
        ["randperm2", "700"] => {
            rng.randperm(700);
            assert_eq!(rng.randperm(700), indices(expected), "{key}");
        }
        [layer, part] => check_layer(rng, &[2, 16, 16, 1], layer, part, expected, key),
        ["2,32,8,3", layer, part] => check_layer(rng, &[2, 32, 8, 3], layer, part, expected, key),
        _ => panic!("unknown key {key}"),
    }
}

fn check_layer(mut rng: Generator, sizes: &[usize], layer: &str, part: &str, expected: &Tensor, key: &str) {
    let layers: Vec<_> = sizes.windows(2).map(|pair| rng.linear(pair[0], pair[1])).collect();
    let (weight, bias) = &layers[layer.parse::<usize>().unwrap()];
    let ours = if part == "weight" { weight } else { bias };
    assert_eq!(*ours, expected.flatten_all().unwrap().to_vec1::<f32>().unwrap(), "{key}");
}

#[test]
fn circles_and_their_split_are_those_of_scikit_learn() {
    let tensors = fixture("circles");
    let keys: Vec<&str> = tensors.keys().filter_map(|key| key.strip_suffix("|X")).collect();
    assert_eq!(keys.len(), 8);
    for key in keys {
        let [seed, samples, noise, factor, test_size] = key.split('|').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let (samples, seed) = (samples.parse().unwrap(), seed.parse().unwrap());
        let (noise, factor) = (noise.parse().unwrap(), factor.parse().unwrap());
        let of = |part: &str| &tensors[&format!("{key}|{part}")];

        let (points, classes) = make_circles(samples, noise, factor, seed);
        assert_same_points(points.as_flattened(), &floats(of("X")), key);
        assert_eq!(classes, indices(of("y")), "{key}");
        let (train, test) = stratified_split(&classes, test_size.parse().unwrap(), seed).unwrap();
        assert_eq!((train, test), (indices(of("train")), indices(of("test"))), "{key}");
    }
}

#[test]
fn moons_are_those_of_scikit_learn() {
    are_in_the_fixture("moons", 11, |[samples, noise], seed| make_moons(samples as usize, noise, seed));
}

#[test]
fn blobs_are_those_of_scikit_learn() {
    are_in_the_fixture("blobs", 8, |[samples, centers, noise], seed| {
        make_blobs(samples as usize, centers as usize, noise, seed)
    });
}

#[test]
fn spirals_are_those_of_numpy() {
    are_in_the_fixture("spirals", 11, |[samples, noise], seed| make_spirals(samples as usize, noise, seed));
}

/// Compares points and classes, made from numbers and a seed, with all that a fixture has of them.
fn are_in_the_fixture<const N: usize>(
    name: &str,
    cases: usize,
    make: impl Fn([f64; N], u32) -> (Vec<[f64; 2]>, Vec<usize>),
) {
    let tensors = fixture(name);
    let keys: Vec<&str> = tensors.keys().filter_map(|key| key.strip_suffix("|X")).collect();
    assert_eq!(keys.len(), cases);
    for key in keys {
        let (seed, numbers) = key.split_once('|').unwrap();
        let numbers: Vec<f64> = numbers.split('|').map(|number| number.parse().unwrap()).collect();
        let (points, classes) = make(numbers.try_into().unwrap(), seed.parse().unwrap());
        assert_same_points(points.as_flattened(), &floats(&tensors[&format!("{key}|X")]), key);
        assert_eq!(classes, indices(&tensors[&format!("{key}|y")]), "{key}");
    }
}

#[test]
fn splits_are_those_of_scikit_learn() {
    let tensors = fixture("split");
    let keys: Vec<&str> = tensors.keys().filter_map(|key| key.strip_suffix("|y")).collect();
    assert_eq!(keys.len(), 21);
    for key in keys {
        let [seed, test_size, _] = key.split('|').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let of = |part: &str| indices(&tensors[&format!("{key}|{part}")]);
        let split = stratified_split(&of("y"), test_size.parse().unwrap(), seed.parse().unwrap()).unwrap();
        assert_eq!(split, (of("train"), of("test")), "{key}");
    }
}

#[test]
fn the_chapters_data_set_is_the_published_one() {
    let (points, classes) = make_circles(1000, 0.03, 0.8, 42);
    let (train, test) = stratified_split(&classes, 0.3, 42).unwrap();
    let rows: Vec<(f64, f64, usize, String)> =
        csv::Reader::from_path(path("data/circles.csv")).unwrap().deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), points.len());
    for (i, (x0, x1, class, part)) in rows.iter().enumerate() {
        assert_same_points(&points[i], &[*x0, *x1], &format!("row {i}"));
        assert_eq!(classes[i], *class, "row {i}");
        assert!(if part == "train" { &train } else { &test }.contains(&i), "row {i}");
    }

    // What is trained on are these rows, in the order of the split.
    let dataset = Dataset::circles(&Circles::default(), 0.3, 42).unwrap();
    let take = |rows: &[usize]| Rows {
        x: rows.iter().flat_map(|&row| points[row]).collect(),
        y: Targets::Classes(rows.iter().map(|&row| classes[row]).collect()),
    };
    assert_eq!((dataset.train, dataset.test), (take(&train), take(&test)));
    assert_eq!((dataset.features, dataset.classes), (2, vec!["outer".into(), "inner".into()]));
}

#[test]
fn splits_without_classes_are_those_of_scikit_learn() {
    let all = fixture("regression");
    let rows = |key: &str, part: &str| -> Vec<usize> {
        let rows: Vec<i64> = all[&format!("{key}|{part}")].to_vec1().unwrap();
        rows.into_iter().map(|row| row as usize).collect()
    };
    let keys = all.keys().filter_map(|key| key.strip_suffix("|train"));
    let mut compared = 0;
    for key in keys {
        let ["split", seed, n, test_size] = key.split('|').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let (n, test_size, seed) = (n.parse().unwrap(), test_size.parse().unwrap(), seed.parse().unwrap());
        assert_eq!(shuffled_split(n, test_size, seed).unwrap(), (rows(key, "train"), rows(key, "test")), "{key}");
        compared += 1;
    }
    assert_eq!(compared, 5);
    for (n, test_size) in [(1, 0.5), (0, 0.5), (10, 0.99), (10, 0.), (10, 1.), (10, f64::NAN)] {
        assert!(shuffled_split(n, test_size, 0).is_err(), "{n} {test_size}");
    }
}
