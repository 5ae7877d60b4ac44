//! Checks of the workspace that need code: `cargo xtask layers`, `cargo xtask drops [--write]`,
//! `cargo xtask named`.
#![forbid(unsafe_code)]

mod drops;
mod layers;
mod named;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["layers"] => layers::check(),
        ["drops"] => drops::check(),
        ["drops", "--write"] => drops::write(),
        ["named"] => named::check(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask layers | drops | drops --write | named")),
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
