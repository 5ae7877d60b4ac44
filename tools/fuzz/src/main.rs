//! Every parser and the whole pipeline under libFuzzer. `TRUNKLINE_FUZZ` names the target; see
//! `tools/fuzz/run`.
#![no_main]

mod adopt;
mod config;
mod dhcp_target;
mod pipeline_target;
mod table;
mod wire_target;
mod words;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// What is done with a string of bytes.
type Target = fn(&[u8]);

/// All targets; the names are those of their folders in `corpus/`. A target is a file here, a line
/// in this list, and a folder with some inputs to begin with.
const TARGETS: [(&str, Target); 7] = [
    ("wire", wire_target::run),
    ("pipeline", pipeline_target::run),
    ("config", config::run),
    ("words", words::run),
    ("adopt", adopt::run),
    ("table", table::run),
    ("dhcp", dhcp_target::run),
];

fn chosen() -> Target {
    let name = std::env::var("TRUNKLINE_FUZZ").unwrap_or_default();
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("TRUNKLINE_FUZZ is '{name}': use one of {names}")).1
}

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));
