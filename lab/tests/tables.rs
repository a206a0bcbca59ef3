//! Tables as people really have them: read rightly, or refused in a line that says what to change.

mod folder;

use std::process::Output;
use std::{fs, iter};

use candle_core::DType;
use candle_optim_lab::data::{Columns, Dataset, Division, Features, Rows, Table, Targets, TaskType, read};
use folder::Folder;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

impl Folder {
    /// Trains on a file of these bytes for some epochs.
    fn train(&self, contents: impl AsRef<[u8]>, options: &[&str]) -> Output {
        fs::write(self.path("table.csv"), contents).unwrap();
        self.command("train --data table.csv --epochs 2").args(options).output().unwrap()
    }

    /// What is printed and the losses of a training that must succeed.
    fn losses(&self, contents: impl AsRef<[u8]>, options: &[&str]) -> (String, String) {
        let output = self.train(contents, options);
        assert!(output.status.success() && output.stderr.is_empty(), "{options:?}: {output:?}");
        (String::from_utf8(output.stdout).unwrap(), fs::read_to_string(self.path("outputs/losses.csv")).unwrap())
    }

    /// The data's part of the summary, and the classes.
    fn summary(&self) -> (Value, Value) {
        let summary = fs::read(self.path("outputs/summary.json")).unwrap();
        let mut summary: Value = serde_json::from_slice(&summary).unwrap();
        let configuration = &mut summary["train"]["configuration"];
        (configuration["data"].take(), configuration["classes"].take())
    }

    /// The line of a training that must fail.
    fn error(&self, contents: impl AsRef<[u8]>, options: &[&str]) -> String {
        error_line(&self.train(contents, options))
    }
}

fn error_line(output: &Output) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.starts_with("error: ") && line.ends_with('\n'), "{line}");
    check_line(line.trim_end_matches('\n'));
    line
}

/// An error is a short line without anything that a terminal would obey.
fn check_line(line: &str) {
    assert!(line.chars().count() <= 320, "too long: {line}");
    let unseen =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}');
    assert!(!line.contains(unseen), "not escaped: {line:?}");
}

fn assert_parts(what: &str, line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{what:?}: '{part}' is not in: {line}");
    }
}

/// Twenty rows with the columns `a`, `b` and `target`.
fn plain() -> String {
    let rows = (0..20).map(|i| format!("{},{}.5,{}\n", i * i, (i * 7) % 5, ["no", "yes"][i % 2]));
    iter::once("a,b,target\n".to_owned()).chain(rows).collect()
}

/// The same with another cell in front of each line.
fn with_first(first: impl Fn(usize) -> String) -> String {
    plain().lines().enumerate().map(|(i, line)| format!("{},{line}\n", first(i))).collect()
}

#[test]
fn the_line_in_a_message_is_the_one_that_an_editor_shows() {
    let folder = Folder::new();
    for end in ["\n", "\r\n", "\r"] {
        for (text, parts) in [
            ("a,b,target|1,2,x|3,word,y|5,6,x|7,8,y", ["line 3, column 'b'", "'word'"]),
            ("||a,b,target||1,2,x|||3,word,y|5,6,x|", ["line 8, column 'b'", "'word'"]),
            ("a,b,target|1,2,x|,,||   |3,y|", ["line 6", "2 cells"]),
            ("a,b,target|1,2,x|3,4,|", ["line 3", "class is missing"]),
            ("|a,b,target|1,2,\"x\"|3,4,\"x\"\"|5,6,x|", ["line 4", "never closed"]),
            ("a,\"b|c\",target|1,2,x|3,word,y|", ["line 4, column 'b\\", "'word'"]),
            ("a,b,target|1,2,x|3,\"4|5\",y|", ["line 3, column 'b'", "line break"]),
            ("a,b,target|1,\"|||2|\",x|word,4,y|", ["line 7, column 'a'", "'word'"]),
            ("|a,b|1,2|", ["line 2", "unknown target column"]),
            ("sep=,|a,b,target|1,2,x|word,2,x|", ["line 4, column 'a'", "'word'"]),
            ("a,b,target|1,2,x|1,2,y|1,2,x||1,2,z|1,2,y|", ["line 6", "class 'z' once"]),
            (
                "a,b,target|1,2,1|1,2,0|1,2,1|1,2,nan|1,2,0|1,2,nan|",
                ["column 'target'", "'nan' among numbers in line 5"],
            ),
        ] {
            assert_parts(text, &folder.error(text.replace('|', end), &[]), &parts);
        }
    }
}

#[test]
fn a_quote_never_swallows_rows() {
    let folder = Folder::new();
    let rows = |count: u32| -> String { (0..count).map(|i| format!("{i},{},x\n", i * i)).collect() };
    for (contents, parts) in [
        (format!("a,b,target\n1,2,x\n3,\"4,y\n{}", rows(10_000)), ["line 3", "opened here and never closed"]),
        (format!("a,b,\"target\n{}", rows(50)), ["line 1", "never closed"]),
        (format!("a,b,target\n1,\"2,x\n{}5,6\"7,x\n", rows(50)), ["line 2", "closed in line 53, and '7' follows"]),
        (format!("a,b,target\n1,\"2,x\n{}5,6,\"y\"\n", rows(50)), ["line 2", "closed in line 53, and 'y\"' follows"]),
        (
            format!("a,b,target\n1,\"2,x\n{}5,6\",x\n", rows(50)),
            ["line 2, column 'b': '2,x\\n0,0,x\\n1,1", "line break"],
        ),
        (format!("a,b,target\n1,2,\"x\n{}5,6,\"\n", rows(50)), ["line 2, column 'target'", "line break"]),
        ("a,b,target\n1,\"2\"3,x\n".into(), ["line 2", "'3' follows it; a quote inside of quotes is written twice"]),
    ] {
        assert_parts(&contents[..20], &folder.error(&contents, &[]), &parts);
    }
    // A column that is left out may have line breaks and quotes.
    let (_, expected) = folder.losses(plain(), &[]);
    let text = with_first(|i| {
        ["text", "\"a \"\"b\"\",\r\n c\" ", " \"\"", "5\" pipe"][if i == 0 { 0 } else { 1 + i % 3 }].into()
    });
    assert!(folder.losses(text.replace("c\" ", "c\""), &["--drop", "text"]).1 == expected);
}

#[test]
fn nothing_from_a_file_reaches_the_terminal_unescaped_or_at_full_length() {
    let folder = Folder::new();
    let long = "long".repeat(5000);
    let red = "\u{1b}[31mred";
    for (contents, options, parts) in [
        (
            format!("a,b,target\n1,{long},x\n"),
            vec![],
            ["line 2, column 'b'", "'longlonglonglonglonglonglonglonglonglong…'"],
        ),
        (format!("a,{long},target\n1,y,x\n"), vec![], ["column 'longlonglonglonglonglonglonglonglonglong…'", "'y'"]),
        (format!("a,b,{long}\n1,2,x\n"), vec![], ["'target'", "longlong…"]),
        (format!("a,b,target\n1,2,{long}\n1,2,{long}\n"), vec![], ["single class", "longlong…'"]),
        (format!("a,b,c{red}\n1,2,x\n"), vec![], ["'target'", "c\\u{1b}[31mred"]),
        (format!("a,b{red},target\n1,y,x\n"), vec![], ["column 'b\\u{1b}[31mred'", "'y'"]),
        (format!("a,b,target\n1,2{red},x\n"), vec![], ["column 'b'", "'2\\u{1b}[31mred'"]),
        (format!("a,b,target\n1,2,x{red}\n1,2,y\n1,2,y\n"), vec![], ["class 'x\\u{1b}[31mred'", "line 2"]),
        (format!("a,b{red},target\n1,2,x\n"), vec!["--target", "b"], ["'b'", "b\\u{1b}[31mred"]),
        (plain(), vec!["--target", &long], ["'longlong", "target"]),
        (plain(), vec!["--drop", red], ["'\\u{1b}[31mred'", "allowed: "]),
    ] {
        assert_parts(&parts.concat(), &folder.error(contents, &options), &parts);
    }
    let wide: Vec<String> = (0..5000).map(|i| format!("a_column_with_a_long_name_{i}")).collect();
    let line = folder.error(format!("{},x\n1,2\n", wide.join(",")), &["--target", "a_colum_with_a_long_name_77"]);
    assert_parts("many columns", &line, &["did you mean 'a_column_with_a_long_name_77'", ", ..\n"]);

    let counts = with_first(|i| if i == 0 { "a\u{200b}\u{1b}a".into() } else { i.to_string() });
    let (printed, _) = folder.losses(counts, &[]);
    assert!(
        printed.starts_with(
            "note: column 'a\\u{200b}\\u{1b}a' counts the rows; --drop 'a\\u{200b}\\u{1b}a' leaves it out\n"
        ),
        "{printed}"
    );

    let name = "new\nline\u{1b}.csv";
    fs::write(folder.path(name), "a,b\n").unwrap();
    let line = error_line(&folder.command("train --data").arg(name).output().unwrap());
    assert_parts("name", &line, &["'new\\nline\\u{1b}.csv'"]);
}

#[test]
fn a_column_without_a_name_is_left_out_with_a_word() {
    let folder = Folder::new();
    let (printed, expected) = folder.losses(plain(), &[]);
    assert!(!printed.contains("note"), "{printed}");
    let index = |i: usize| if i == 0 { String::new() } else { (i - 1).to_string() };
    let ends = |end: &str| plain().replace('\n', &format!("{end}\n"));
    for (contents, note) in [
        // pandas' index, and one of words.
        (with_first(index), "note: column 1 has no name and is left out\n"),
        (with_first(|i| index(i).replace(char::is_numeric, "row")), "note: column 1 has no name and is left out\n"),
        (ends(","), "note: column 4 has no name and is left out\n"),
        (ends(", ,\" \",\u{200b}"), "note: 3 columns between 4 and 6 have no name and are left out\n"),
        // Commas at the end of the header only, and of rows only.
        (plain().replace("target\n", "target,,\n"), "note: 2 columns between 4 and 5 have no name and are left out\n"),
        (ends(",,").replace("target,,", "target"), ""),
    ] {
        let (printed, losses) = folder.losses(&contents, &[]);
        assert!(losses == expected, "{contents}");
        assert!(printed.starts_with(note) && printed.matches("note").count() == note.lines().count(), "{printed}");
        let (data, _) = folder.summary();
        assert_eq!(data["columns"], serde_json::json!(["a", "b"]));
        let notes: String = data["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|note| format!("note: {}\n", note.as_str().unwrap()))
            .collect();
        assert_eq!(notes, note);
        assert_eq!(folder.losses(&contents, &["--quiet"]).0, "");
    }
    for (contents, parts) in [
        (",,\n1,2,x\n", ["line 1", "no column has a name"]),
        (",target\n1,x\n", ["line 1", "no column is left besides the target"]),
        ("a,,target\n1,2\n", ["line 2: 2 cells", "3 columns"]),
        ("a,b,target\n1,2,x,3\n", ["line 2: 4 cells", "needs quotes"]),
        ("a, a ,target\n1,2,x\n", ["line 1", "column 'a' stands twice"]),
        ("a\u{200b},a,target\n1,2,x\n", ["line 1", "column 'a' stands twice"]),
        ("a b,a  b,target\n1,2,x\n", ["line 1", "'a b' and 'a  b' look the same"]),
        ("a\u{200b}b,ab,target\n1,2,x\n", ["line 1", "'a\\u{200b}b' and 'ab' look the same"]),
    ] {
        assert_parts(contents, &folder.error(contents, &[]), &parts);
    }
}

#[test]
fn columns_are_chosen() {
    let folder = Folder::new();
    let (_, expected) = folder.losses(plain(), &[]);
    for (name, first, options) in [
        ("id", 0, ["--drop", "id"]),
        ("id", 1, ["--drop", " id ,id"]),
        ("id", 1000, ["--features", "a,b"]),
        ("id", 0, ["--features", "b,a"]),
        // A name with a comma is a name first.
        ("\"a,b\"", 0, ["--drop", "a,b"]),
    ] {
        let contents = with_first(|i| if i == 0 { name.into() } else { (first + i).to_string() });
        let (printed, losses) = folder.losses(&contents, &options);
        assert!(losses == expected, "{options:?}");
        assert!(!printed.contains("note"), "{printed}");
        assert_eq!(folder.summary().0["columns"], serde_json::json!(["a", "b"]));
        let (printed, losses) = folder.losses(&contents, &[]);
        let name = name.trim_matches('"');
        assert!(
            printed.starts_with(&format!("note: column '{name}' counts the rows; --drop '{name}' leaves it out\n")),
            "{printed}"
        );
        assert!(losses != expected);
    }
    let (_, both) = folder.losses(plain().replace("a,b,", "one,b,"), &["--features", "one", "--features", "b"]);
    assert!(both == expected);
    let words = with_first(|i| if i == 0 { "name".into() } else { format!("Mr. {i}") });
    assert!(folder.losses(&words, &["--drop", "name"]).1 == expected);

    // A name that is shown cut or escaped is chosen as it is shown.
    for name in ["row identifier of the measurement in the laboratory", "i\u{200b}\u{1b}d", "i\u{200b}, \u{1b}d"] {
        let quoted = format!("\"{name}\"");
        let contents = with_first(|i| if i == 0 { quoted.clone() } else { i.to_string() });
        let (printed, _) = folder.losses(&contents, &[]);
        let advice = printed.split("--drop '").nth(1).and_then(|rest| rest.split("' leaves it out").next()).unwrap();
        assert_ne!(advice, name);
        assert!(folder.losses(&contents, &["--drop", advice]).1 == expected, "{advice}");
    }

    for (options, parts) in [
        (vec!["--drop", "c"], vec!["line 1", "unknown column of --drop 'c'", "allowed: a, b"]),
        (vec!["--drop", "a,c"], vec!["unknown column of --drop 'c'"]),
        (vec!["--drop", ""], vec!["unknown column of --drop ''"]),
        (vec!["--features", "a,,b"], vec!["unknown column of --features ''"]),
        (vec!["--drop", "a", "--drop", "b"], vec!["no column is left besides the target"]),
        (vec!["--drop", "target"], vec!["--drop has the target 'target'"]),
        (vec!["--features", "a,target"], vec!["--features has the target 'target'"]),
        (vec!["--target", "a", "--features", "a"], vec!["--features has the target 'a'"]),
    ] {
        assert_parts(&options.concat(), &folder.error(plain(), &options), &parts);
    }
    for (options, parts) in [
        (vec!["--data", "table.csv", "--drop", "a", "--features", "b"], ["--drop", "--features"]),
        (vec!["--drop", "a"], ["--data", "required"]),
        (vec!["--features", "a"], ["--data", "required"]),
    ] {
        let output = folder.command("train").args(&options).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && line.lines().count() == 1, "{line}");
        assert_parts(&options.concat(), &line, &parts);
    }
}

#[test]
fn labels_that_are_numbers_are_compared_by_value() {
    let folder = Folder::new();
    let (_, expected) = folder.losses(plain(), &[]);
    let spelled = |no: [&str; 3], yes: [&str; 3]| {
        let mut lines = plain();
        for i in 0..20 {
            let spellings = if i % 2 == 0 { no } else { yes };
            lines = lines.replacen([",no\n", ",yes\n"][i % 2], &format!(",{}\n", spellings[i / 2 % 3]), 1);
        }
        lines
    };
    for (contents, classes) in [
        (spelled(["0", "0.0", "-0"], ["1", "1.0", "1e0"]), ["0", "1"]),
        (spelled(["0.50", ".5", "5e-1"], ["10", "10.00", "+10"]), ["0.5", "10"]),
        (spelled(["no", " no", "\"no\u{feff}\""], ["yes", "yes ", "\u{200b}yes"]), ["no", "yes"]),
    ] {
        assert!(folder.losses(&contents, &[]).1 == expected, "{contents}");
        assert_eq!(folder.summary().1, serde_json::json!(classes));
    }
    for (contents, parts) in [
        (spelled(["0", "0", "nan"], ["1"; 3]), ["column 'target'", "'nan' among numbers in line 6"]),
        (spelled(["0"; 3], ["1", "-inf", "1"]), ["column 'target'", "'-inf' among numbers in line 5"]),
        (spelled(["0"; 3], ["1", "1", "NA"]), ["column 'target'", "'NA' among numbers in line 7"]),
        (spelled(["a b", "a  b", "a b"], ["1", "2", "1"]), ["'a  b' (line 4)", "look the same"]),
    ] {
        assert_parts(&contents, &folder.error(&contents, &[]), &parts);
    }
    let measured: String = (0..20).map(|i| format!("{},{},{}\n", i * i, i % 3, i as f64 * 1.37)).collect();
    let line = folder.error(format!("a,b,target\n{measured}"), &[]);
    assert_parts("measured", &line, &["column 'target'", "20 different values in 20 rows", "a measurement"]);
}

#[test]
fn tables_are_read_however_they_are_written() {
    let folder = Folder::new();
    let (_, expected) = folder.losses(plain(), &[]);
    let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(plain().encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
    };
    let comma = |separator: &str| plain().replace(',', separator).replace('.', ",");
    let cells = |cell: &dyn Fn(&str) -> String| -> String {
        plain().lines().map(|line| line.split(',').map(cell).collect::<Vec<_>>().join(",") + "\n").collect()
    };
    let semicolons = "note: cells are separated by semicolons\n";
    let tabs = "note: cells are separated by tabs\n";
    for (what, contents, notes) in [
        ("UTF-16, little end", utf16([0xff, 0xfe], u16::to_le_bytes), ""),
        ("UTF-16, big end", utf16([0xfe, 0xff], u16::to_be_bytes), ""),
        ("byte order mark", format!("\u{feff}{}", plain()).into(), ""),
        ("old line ends", plain().replace('\n', "\r").into(), ""),
        ("empty lines", plain().replace('\n', "\n\n  \n").into(), ""),
        ("lines of commas", format!("{},,\n,,\n", plain()).into(), ""),
        ("a quoted header", plain().replace("a,b,target", "\"a\" ,\t\"b\", \"target\"").into(), ""),
        ("every cell quoted", cells(&|cell| format!("\"{cell}\"")).into(), ""),
        ("invisible characters", cells(&|cell| format!("\u{200b}{cell}\u{feff}\u{a0}")).into(), ""),
        ("exponents", cells(&|cell| cell.parse().map_or(cell.into(), |x: f64| format!("+{x:e}"))).into(), ""),
        ("semicolons", plain().replace(',', ";").into(), semicolons),
        ("tabs", plain().replace(',', "\t").into(), tabs),
        ("a quote inside of a name", plain().replacen('a', "a 5\" pipe", 1).into(), ""),
        ("a quote inside of a name", plain().replacen('a', "a 5\" pipe", 1).replace(',', ";").into(), semicolons),
        ("a quote inside of a name", plain().replacen('a', "a 5\" pipe", 1).replace(',', "\t").into(), tabs),
        ("separators in a name", plain().replacen('a', " \"a\"\",;;;;\"\",;;;;\"", 1).into(), ""),
        ("Excel's first line", format!("sep=;\r\n{}", plain().replace(',', ";")).into(), semicolons),
        (
            "tabs and no first name",
            plain().lines().map(|line| format!("\t{}\n", line.replace(',', "\t"))).collect::<String>().into(),
            "note: cells are separated by tabs\nnote: column 1 has no name and is left out\n",
        ),
        (
            "decimal commas",
            comma(";").into(),
            "note: cells are separated by semicolons\nnote: numbers have a decimal comma: '0,5' is 0.5\n",
        ),
        (
            "decimal commas",
            comma("\t").into(),
            "note: cells are separated by tabs\nnote: numbers have a decimal comma: '0,5' is 0.5\n",
        ),
    ] {
        let (printed, losses) = folder.losses(contents, &[]);
        assert!(losses == expected, "{what}");
        let noted: String =
            printed.lines().take_while(|line| line.starts_with("note: ")).map(|line| format!("{line}\n")).collect();
        assert_eq!(noted, notes, "{what}");
    }
    let (printed, _) = folder.losses(plain().replace(',', ";").replace(".5", ",500").replace(";0,", ";5,"), &[]);
    let doubt = "note: numbers have a decimal comma: '5,500' is 5.500; if commas separate thousands, remove them\n";
    assert!(printed.contains(doubt), "{printed}");
}

#[test]
fn an_error_of_a_file_says_how_to_make_a_table_of_it() {
    let folder = Folder::new();
    let utf16: Vec<u8> = plain().encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (contents, parts) in [
        (utf16.clone(), ["line 1", "not text: a NUL byte", "save the table as CSV in UTF-8"]),
        ([&[0xff, 0xfe], &utf16[..utf16.len() - 1]].concat(), ["line 21", "not UTF-16", "save the table"]),
        ([&[0xff, 0xfe], &utf16[..], &[0, 0xd8, 0, 0]].concat(), ["line 22", "not UTF-16", "save the table"]),
        (b"a,b,target\n1,2,caf\xe9\n".to_vec(), ["line 2", "not UTF-8: the byte 0xe9", "save the table"]),
        (b"a,b\r\rtarget\xff\n".to_vec(), ["line 3", "not UTF-8: the byte 0xff", "save the table"]),
        (b"PK\x03\x04\x14\0\x06\0\x9b".to_vec(), ["line 1", "NUL", "a program's own format"]),
        (b"a,b,target\n1,2\0,x\n".to_vec(), ["line 2", "NUL", "save the table"]),
        (b"\xef\xbb\xbf\n \n".to_vec(), ["table.csv", "empty", ""]),
        (b"\"\"\n".to_vec(), ["table.csv", "empty", ""]),
        (b"a|b|target\n1|2|x\n".to_vec(), ["single column 'a|b|target'", "commas, semicolons or tabs", "line 1"]),
        (b"1;2,5;0\n1;3,5;0\n".to_vec(), ["line 1", "3 of 3 names are numbers", "name the columns"]),
        (b"5.1,3.5,5.1,setosa\n".to_vec(), ["line 1", "3 of 4 names are numbers", "name the columns"]),
        (b"a,b,target\n".to_vec(), ["table.csv", "no rows", ""]),
        (b"a,b,target\n1,2,x\n".to_vec(), ["column 'target'", "single class 'x'", ""]),
        (b"a,b,target\n1,2,x\n3,4,y\n".to_vec(), ["column 'target'", "2 different values in 2 rows", "measurement"]),
        (b"a,b,target\n1,2,x\n3,4,y\n1,2,x\n3,4,y\n".to_vec(), ["table.csv", "too few samples", "4 rows"]),
    ] {
        let what = String::from_utf8_lossy(&contents).into_owned();
        assert_parts(&what, &folder.error(&contents, &["--test-size", "0.7"]), &parts);
    }
    for (cell, parts) in [
        ("", ["''", "the value is missing; allowed: a number in every row"]),
        ("N/A", ["'N/A'", "the value is missing"]),
        ("nan", ["'nan'", "the value is missing"]),
        ("-inf", ["'-inf'", "allowed: -1.797"]),
        ("1e999", ["'1e999'", "allowed: -1.797"]),
        ("4\u{200b}2", ["'4\\u{200b}2'", "U+200B is in it; write 42"]),
        ("\u{2212}42", ["'\u{2212}42'", "U+2212 is in it; write -42"]),
        ("\"1,234.5\"", ["'1,234.5'", "thousands are separated; write 1234.5"]),
        ("\"1,234\"", ["'1,234'", "write 1234, or 1.234 if the comma is decimal"]),
        ("1 234", ["'1 234'", "write 1234"]),
        ("1'234'567", ["\"1'234'567'", "write 1234567"]),
        ("\"1,5\"", ["'1,5'", "a decimal comma is read only where semicolons or tabs separate"]),
        ("male", ["'male'", "write a number, or leave the column out by --drop"]),
        ("12 %", ["'12 %'", "write a number"]),
    ] {
        let line = folder.error(format!("a,b,target\n1,2,x\n\n3,{cell},y\n"), &[]).replace("'1'234", "\"1'234");
        assert_parts(cell, &line, &["line 4, column 'b'", "is not a finite number", parts[0], parts[1]]);
    }
    for (contents, parts) in [
        (
            "a;b;target\n1,5;2;x\n\n1;1.100;x\n",
            ["line 2, column 'a': '1,5'", "no number has a point", "write 1.5; '1.100' in line 4 has a point"],
        ),
        ("a;b;target\n1,5;1.234,5;x\n", ["line 2, column 'b'", "'1.234,5'", "write 1234,5"]),
        ("a\tb\ttarget\n1,5\t1,234,567\tx\n", ["line 2, column 'b'", "'1,234,567'", "write 1234567"]),
    ] {
        assert_parts(contents, &folder.error(contents, &[]), &parts);
    }
}

#[test]
fn what_is_no_file_is_named() {
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    fs::File::create(folder.path("large.csv")).unwrap().set_len((1 << 30) + 1).unwrap();
    let mut cases = vec![
        ("folder", vec!["'folder'", "not a file"]),
        ("missing.csv", vec!["'missing.csv'", "cannot read it: "]),
        ("missing\n.csv", vec!["'missing\\n.csv'"]),
        ("large.csv", vec!["'large.csv'", "1073741825 bytes", "at most 1 GiB"]),
    ];
    if cfg!(unix) {
        cases.extend([
            ("/dev/zero", vec!["'/dev/zero'", "not a file", "at most 1 GiB"]),
            ("/dev/null", vec!["not a file"]),
        ]);
    }
    for (name, parts) in cases {
        assert_parts(name, &error_line(&folder.command("train --data").arg(name).output().unwrap()), &parts);
    }
}

/// As of `zcat table.csv.gz | candle-optim train --data /dev/stdin`.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_is_read() {
    use std::{io::Write, process::Stdio};
    let folder = Folder::new();
    let mut command = folder.command("train --data /dev/stdin --epochs 2 --quiet");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(plain().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Columns of any size are standardized alike, and what a type cannot be trained with is named.
#[test]
fn columns_of_any_size_are_scaled() {
    let folder = Folder::new();
    let sized = |a: f64, b: f64| -> String {
        let size = |cell: &str, size: f64| format!("{:e}", cell.parse::<f64>().unwrap() * size);
        let rows = plain();
        let rows = rows.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        rows.fold("a,b,target\n".into(), |all, row| {
            all + &format!("{},{},{}\n", size(row[0], a), size(row[1], b), row[2])
        })
    };
    let (_, expected) = folder.losses(sized(1., 1.), &[]);
    let two = |exponent: i32| 2f64.powi(exponent);
    for (a, b) in [(two(600), two(-600)), (two(1014), two(-1060)), (two(-1022), two(1020)), (-two(700), -two(-900))] {
        let sign = a.signum();
        let (_, losses) = folder.losses(sized(a * sign, b * sign), &[]);
        assert!(losses == expected, "{a:e}, {b:e}");
    }
    for (a, b) in [(1e200, 1e-200), (1e305, 3e-308), (-1e250, 1e250)] {
        for dtype in ["f32", "f64", "bf16", "f16"] {
            let (_, losses) = folder.losses(sized(a, b), &["--dtype", dtype, "--optimizer", "adam"]);
            assert!(!losses.to_lowercase().contains("nan") && !losses.contains("inf"), "{losses}");
        }
    }

    let rows = |value: &dyn Fn(usize) -> String| -> Table {
        let rows: String = (0..40).map(|i| format!("{},{},{}\n", value(i), i % 7, i % 2)).collect();
        read(format!("a,b,target\n{rows}").as_bytes(), &Columns::with_target("target")).unwrap()
    };
    let dataset = |table: &Table, dtype| Dataset::of(table, &Division::in_two(0.3, 0), dtype);
    // A mixed column: what is large decides, the rest is alike.
    let mixed = dataset(&rows(&|i| if i % 4 < 2 { "1e200".into() } else { "1e-200".into() }), DType::F32).unwrap();
    let mut values: Vec<f64> = mixed.train.x.iter().step_by(2).copied().collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    assert_eq!(values.len(), 2, "{values:?}");
    // What rounding leaves of a constant is not larger than a column.
    let almost =
        dataset(&rows(&|i| (if i % 4 < 2 { 1e30 } else { 1e30f64.next_up() }).to_string()), DType::F16).unwrap();
    assert!(almost.train.x.iter().chain(&almost.test.x).all(|x| x.abs() < 40.), "{:?}", almost.train.x);
    // Constants of any size are zero.
    for constant in ["0", "0.1", "7", "1e200", "-1e-200", "1.7976931348623157e308", "5e-324"] {
        let constant = dataset(&rows(&|_| constant.into()), DType::F16).unwrap();
        assert!(constant.train.x.iter().chain(&constant.test.x).step_by(2).all(|&x| x == 0.));
    }
    // A row far from all training rows.
    for (far, refused) in [
        ("1e30", &[DType::F32, DType::BF16, DType::F16][..]),
        ("-1e30", &[DType::F32, DType::BF16, DType::F16]),
        ("1e5", &[DType::F16]),
        ("1e300", &[DType::F32, DType::F64, DType::BF16, DType::F16]),
    ] {
        let mut seen = 0;
        for row in 0..40 {
            let table = rows(&|i| if i == row { far.into() } else { (i % 5).to_string() });
            for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
                match dataset(&table, dtype) {
                    Ok(dataset) => {
                        let mut all = dataset.train.x.iter().chain(&dataset.test.x);
                        assert!(all.all(|&x| x.is_finite() && (x as f32).powi(2).is_finite() | (dtype == DType::F64)));
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        check_line(&error);
                        assert!(refused.contains(&dtype), "{error}");
                        assert_parts(
                            far,
                            &error,
                            &[&format!("line {}, column 'a'", row + 2), "after it is standardized", dtype.as_str()],
                        );
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 12 * refused.len(), "{far}");
    }
    for (noise, dtype) in [("1e300", "f32"), ("1e3", "f16"), ("1e308", "f64")] {
        let output = folder.command(&format!("train --noise {noise} --dtype {dtype}")).output().unwrap();
        assert_parts(noise, &error_line(&output), &["--noise 1", dtype, "allows"]);
    }
}

/// Random text of a table, and what it says.
struct Written {
    text: String,
    table: Table,
}

fn write_table(rng: &mut StdRng) -> Written {
    let names = ["b", "a \"quoted\" name", "with, comma", "with; semicolon", "línea\nnueva", "5\" pipe", "Ω (%)"];
    let classes = ["no", "yes", "perhaps, or not", "\"x\"", "0", "naïve"];
    let columns: Vec<String> = names[..rng.random_range(1..=names.len())].iter().map(|&name| name.into()).collect();
    let classes = &classes[..rng.random_range(2..=classes.len())];
    let rows = classes.len() * rng.random_range(2..8);
    let (mut x, mut y) = (vec![], vec![]);
    let separator = *b",;\t".choose(rng).unwrap();
    let end = *["\n", "\r\n", "\r"].choose(rng).unwrap();
    let style = *[csv::QuoteStyle::Always, csv::QuoteStyle::Necessary].choose(rng).unwrap();
    let mut records = vec![columns.iter().map(String::as_str).chain(["target"]).map(String::from).collect::<Vec<_>>()];
    for row in 0..rows {
        let numbers: Vec<f64> = columns
            .iter()
            .map(|_| {
                let exponent = *[0, 0, 0, 5, -5, 200, -200, 307, -307].choose(rng).unwrap();
                rng.random_range(-1000..1000) as f64 / 8. * 10f64.powi(exponent)
            })
            .map(|x| if x.is_finite() { x } else { 0. })
            .collect();
        let class = row % classes.len();
        records.push(numbers.iter().map(|x| format!("{x:e}")).chain([classes[class].into()]).collect());
        x.extend(numbers);
        y.push(classes[class]);
    }
    let mut text = String::new();
    let mut lines = vec![];
    for (i, record) in records.iter().enumerate() {
        let line = 1 + text.replace("\r\n", "\n").matches(['\r', '\n']).count();
        if i > 0 {
            lines.push(line);
        }
        let mut writer = csv::WriterBuilder::new().delimiter(separator).quote_style(style).from_writer(vec![]);
        writer.write_record(record).unwrap();
        text += String::from_utf8(writer.into_inner().unwrap()).unwrap().trim_end();
        text += end;
        for _ in 0..rng.random_range(0..10) / 8 {
            text += end;
        }
    }
    let mut names: Vec<String> = classes.iter().map(|&name| name.into()).collect();
    names.sort();
    let y = y.iter().map(|&class| names.iter().position(|name| name == class).unwrap());
    let y = Targets::Classes(y.collect());
    let rows = Rows { x, y };
    Written { text, table: Table { columns, target: "target".into(), classes: names, rows, lines, notes: vec![] } }
}

#[test]
fn what_is_written_is_read_back() {
    let mut rng = StdRng::seed_from_u64(13);
    for _ in 0..500 {
        let Written { text, table } = write_table(&mut rng);
        let mut read =
            read(text.as_bytes(), &Columns::with_target("target")).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        read.notes.retain(|note| !note.starts_with("cells are separated by "));
        assert_eq!(read, table, "{text}");
    }
}

/// Changes bytes as accidents do.
fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    const PIECES: [&[u8]; 37] = [
        b"\"",
        b"\"\"",
        b",",
        b";",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"'",
        b"-",
        b".",
        b"\x1b[2J",
        b"\xff",
        b"\xff\xfe",
        b"\xe2\x80",
        b"\xf0\x9f",
        b"\xed\xa0\x80",
        b"nan",
        b"inf",
        b"1e308",
        b"-1e308",
        b"1e999",
        b"5e-324",
        b"1e-400",
        b"99999999999999999999999999",
        b"\xef\xbb\xbf",
        b"\xe2\x80\x8b",
        b"\xe2\x80\xae",
        b"\xe2\x88\x92",
        b"\xc2\xa0",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b",,,,",
        b"target",
        b"sep=;\n",
    ];
    let at = rng.random_range(0..=bytes.len());
    let end = (at + rng.random_range(0..12)).min(bytes.len());
    match rng.random_range(0..11) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.truncate(at),
        3 => {
            let copy = bytes[at..].to_vec();
            bytes.extend(copy);
        }
        4 => {
            let copy = bytes[at..end].repeat(rng.random_range(1..200));
            bytes.splice(at..at, copy);
        }
        5 => {
            // All of one separator or line end.
            let from = *b",;\t\n\r.".choose(rng).unwrap();
            let to = PIECES.choose(rng).unwrap();
            let changed = bytes.iter().flat_map(|byte| if *byte == from { to.to_vec() } else { vec![*byte] }).collect();
            *bytes = changed;
        }
        6 => drop(bytes.splice(0..0, PIECES.choose(rng).unwrap().iter().copied())),
        7 => drop(bytes.splice(at..end, PIECES.choose(rng).unwrap().iter().copied())),
        _ => drop(bytes.splice(at..at, PIECES.choose(rng).unwrap().iter().copied())),
    }
}

/// Whether bytes are a table; checks what holds for a table or an error.
fn check_table(bytes: &[u8], columns: &Columns, dtype: DType) -> bool {
    let error = |error: anyhow::Error| {
        let line = format!("{error:#}");
        check_line(&line);
        let names = ["line ", "column '", "the file ", "rows into"];
        assert!(names.iter().any(|name| line.contains(name)), "names no input: {line}");
    };
    let table = match read(bytes, columns) {
        Ok(table) => table,
        Err(refused) => {
            error(refused);
            return false;
        }
    };
    table.notes.iter().for_each(|note| check_line(note));
    let is_finite = |rows: &Rows| rows.y.numbers().iter().all(|x| x.is_finite());
    assert!(!table.columns.is_empty() && (table.classes.len() >= 2 || !table.rows.y.numbers().is_empty()));
    assert!(is_finite(&table.rows));
    assert_eq!((table.lines.len(), table.rows.x.len()), (table.rows.y.len(), table.rows.y.len() * table.columns.len()));
    assert!(table.lines.is_sorted_by(|a, b| a < b) && table.rows.x.iter().all(|x| x.is_finite()));
    match Dataset::of(&table, &Division::in_two(0.3, 0), dtype) {
        Ok(dataset) => {
            assert!(dataset.train.x.iter().chain(&dataset.test.x).all(|x| x.is_finite()));
            assert!(is_finite(&dataset.train) && is_finite(&dataset.test));
            let rows = dataset.train.y.len() as f64;
            for column in 0..dataset.features {
                let values = dataset.train.x.iter().skip(column).step_by(dataset.features);
                // No value is further from a mean than that, and a constant's is what rounding leaves.
                assert!(values.clone().all(|x| x.abs() <= rows.sqrt() * (1. + 1e-9)), "{values:?}");
                assert!((values.sum::<f64>() / rows).abs() <= 1e-9);
            }
        }
        Err(refused) => error(refused),
    }
    true
}

/// Any bytes are a table of finite numbers, which training can start from, or an error in a line. `FUZZ_CASES` sets how
/// many are tried, `FUZZ_SEED` from where.
#[test]
fn any_bytes_are_a_table_or_an_error_in_a_line() {
    let setting = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (cases, seed) = (setting("FUZZ_CASES", 5000), setting("FUZZ_SEED", 1));
    let mut tables = 0;
    for case in seed..seed + cases {
        let mut rng = StdRng::seed_from_u64(case);
        let mut bytes = write_table(&mut rng).text.into_bytes();
        if rng.random_bool(0.05) {
            bytes = String::from_utf8(bytes).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
            bytes.splice(0..0, [0xff, 0xfe]);
        }
        for _ in 0..rng.random_range(0..6) {
            mutate(&mut bytes, &mut rng);
        }
        let columns = Columns {
            target: "target".into(),
            task: if rng.random_bool(0.2) { TaskType::Regression } else { TaskType::Classification },
            features: match rng.random_range(0..6) {
                0 => Features::Only(vec!["b".into(), "with, comma".into()]),
                1 => Features::AllBut(vec!["b".into()]),
                _ => Features::AllBut(vec![]),
            },
        };
        let dtype = *[DType::F32, DType::F64, DType::BF16, DType::F16].choose(&mut rng).unwrap();
        let checked = std::panic::catch_unwind(|| check_table(&bytes, &columns, dtype));
        let Ok(is_table) = checked else {
            panic!("FUZZ_SEED={case}, {columns:?}: {:?}", String::from_utf8_lossy(&bytes))
        };
        tables += usize::from(is_table);
    }
    println!("{tables} tables of {cases} inputs");
    assert!(tables > cases as usize / 20, "{tables} tables of {cases} inputs");
}
