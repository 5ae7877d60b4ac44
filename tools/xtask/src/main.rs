//! Checks of the workspace that need code: `cargo xtask layers`, `cargo xtask drops [--write]`.
#![forbid(unsafe_code)]

mod drops;
mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["layers"] => layers::check(),
        ["drops"] => drops::check(),
        ["drops", "--write"] => drops::write(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask layers | drops | drops --write")),
    };
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
