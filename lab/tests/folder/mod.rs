//! A folder of its own, in which tests run the program. Each test file adds what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_candle-optim");

pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command
    }

    /// Runs the program, which must succeed without a word on standard error; gives its standard output.
    pub fn run(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// All files of a comparison, without what holds times: the costs.
    pub fn comparison(&self, out: &str) -> Files {
        let entries = fs::read_dir(self.path(out)).unwrap().map(|entry| entry.unwrap());
        let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
        let files = files.filter(|(name, _)| name != "timings.csv" && !name.contains("cost."));
        Files(
            files
                .map(|(name, bytes)| if name == "report.html" { (name, without_costs(&bytes)) } else { (name, bytes) })
                .collect(),
        )
    }

    /// The program under limits of a shell, as `ulimit` sets them.
    pub fn limited(&self, limits: &str, arguments: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"{limits}; exec "$@""#), "sh", PROGRAM]);
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command
    }
}

/// Files by name. They are shown by their sizes.
#[derive(PartialEq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let sum =
            |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        f.debug_map().entries(self.0.iter().map(|(name, bytes)| (name, (bytes.len(), sum(bytes))))).finish()
    }
}

/// A report without its figures of costs, as they are drawn and as text.
fn without_costs(page: &[u8]) -> Vec<u8> {
    let mut page = String::from_utf8(page.to_vec()).unwrap();
    for (begin, end) in [("data-figure=\"cost\"", "</figure>"), ("{\"id\":\"cost\"", "{\"id\":\"")] {
        let mut from = 0;
        while let Some(at) = page[from..].find(begin).map(|at| from + at) {
            let to = page[at + begin.len()..].find(end).map_or(page.len(), |length| at + begin.len() + length);
            page.replace_range(at..to, "");
            from = at;
        }
    }
    page.into_bytes()
}

/// Checks that a run failed with one line, and gives that.
pub fn assert_error(what: &str, output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{what}: {output:?}");
    assert!(stderr.starts_with("error: ") && stderr.ends_with('\n') && stderr.lines().count() == 1, "{what}: {stderr}");
    stderr
}

/// How many cases a part of the harness tries.
pub fn rounds(usual: usize, share: usize) -> usize {
    std::env::var("FAULTS").map_or(usual, |all| all.parse::<usize>().unwrap() / share)
}
