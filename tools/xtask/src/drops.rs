//! Keeps `docs/drops.md` the same as the code: one row a reason.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use pipeline::DropReason;

const BEGIN: &str = "<!-- drop reasons: cargo xtask drops --write -->";
const END: &str = "<!-- end of drop reasons -->";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drops.md")
}

fn table() -> String {
    let mut text = String::from("\n| reason | what happened |\n| --- | --- |\n");
    for reason in DropReason::ALL {
        let _ = writeln!(text, "| `{}` | {} |", reason.name(), reason.meaning().trim());
    }
    text
}

/// The page with the table between its marks made anew.
fn page(current: &str) -> Result<String> {
    let (Some(begin), Some(end)) = (current.find(BEGIN), current.find(END)) else {
        bail!("docs/drops.md lacks the marks {BEGIN} and {END}");
    };
    Ok(format!("{}{}{}", &current[..begin + BEGIN.len()], table(), &current[end..]))
}

/// Fails where the page does not say what the code does.
pub(crate) fn check() -> Result<String> {
    let current = std::fs::read_to_string(path())?;
    if page(&current)? != current {
        bail!("docs/drops.md is stale: run `cargo xtask drops --write`");
    }
    Ok(format!("drops: docs/drops.md lists all {} reasons", DropReason::ALL.len()))
}

/// Writes the page.
pub(crate) fn write() -> Result<String> {
    let current = std::fs::read_to_string(path())?;
    std::fs::write(path(), page(&current)?)?;
    Ok("docs/drops.md is written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_reason_as_the_code_does() {
        check().unwrap();
    }
}
