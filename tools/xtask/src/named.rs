//! Keeps the tests that the pages name: one that is renamed or gone is told.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};

/// Pages that say which test shows what.
const PAGES: [&str; 2] = ["nat-conformance.md", "nova-network.md"];
/// A test is a sentence: a name of fewer words is something else's.
const WORDS: usize = 5;

/// Fails where a page names a test that is not there.
pub(crate) fn check() -> Result<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut there = BTreeSet::new();
    for folder in ["crates", "tools"] {
        names(&top.join(folder), &mut there)?;
    }
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in PAGES {
        let text = std::fs::read_to_string(top.join("docs").join(page))?;
        for name in named(&text) {
            count += 1;
            if !is_there(&there, name) {
                missing.push(format!("docs/{page}: {name}"));
            }
        }
    }
    if !missing.is_empty() {
        bail!("no test has the name that is told:\n{}", missing.join("\n"));
    }
    Ok(format!("named: all {count} tests that pages name are there"))
}

/// Every function of the Rust files below a folder, and every field: some settings have long names.
fn names(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            names(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let name = |line: &str| {
                let line = line.trim_start();
                let function = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
                let field = || line.strip_prefix("pub ").and_then(|rest| rest.split_once(':'));
                Some(function.or_else(field)?.0.to_owned())
            };
            found.extend(text.lines().filter_map(name));
        }
    }
    Ok(())
}

/// What stands between backticks and is as long as a sentence; it may be cut by `…`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let is_cut = word.ends_with("_…");
        word.trim_end_matches('…').chars().all(|letter| plain(letter) || letter == '_')
            && (is_cut || word.split('_').count() >= WORDS)
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_name)
}

fn is_there(there: &BTreeSet<String>, name: &str) -> bool {
    match name.strip_suffix('…') {
        Some(begin) => there.range(begin.to_owned()..).next().is_some_and(|n| n.starts_with(begin)),
        None => there.contains(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_tests_whole_or_by_their_beginning() {
        let page = "| `a_vm_reaches_its_own_floating_address` in `routing.rs`, `no_ports`, `errors_of_…` |\n\
                    | `docs/a_page_that_is_no_test.md` |";
        let names: Vec<&str> = named(page).collect();
        assert_eq!(names, ["a_vm_reaches_its_own_floating_address", "errors_of_…"]);
        let there = ["errors_of_every_type", "errors_out"].map(str::to_owned).into();
        assert!(is_there(&there, "errors_of_…") && is_there(&there, "errors_out"));
        assert!(!is_there(&there, "errors_in_…") && !is_there(&there, "errors_of"));
    }

    #[test]
    fn every_test_that_a_page_names_is_there() {
        check().unwrap();
    }
}
