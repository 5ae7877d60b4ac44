//! Who may depend on whom. `docs/architecture.md` says why.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A crate, and the crates of ours it may name under `[dependencies]`.
const LAYERS: [(&str, &[&str]); 14] = [
    ("wire", &[]),
    ("conntrack", &["wire"]),
    ("tables", &["wire"]),
    ("pipeline", &["wire", "conntrack", "tables"]),
    ("af_xdp", &[]),
    ("kernel", &["conntrack"]),
    ("dataplane", &["wire", "conntrack", "tables", "pipeline", "af_xdp"]),
    ("dhcp", &["wire"]),
    ("control", &["wire", "tables", "dhcp"]),
    (
        "trunkline",
        &[
            "wire",
            "conntrack",
            "tables",
            "pipeline",
            "af_xdp",
            "kernel",
            "dataplane",
            "dhcp",
            "control",
        ],
    ),
    ("testkit", &["wire", "conntrack", "tables", "pipeline"]),
    ("pktgen", &["kernel"]),
    ("xtask", &["pipeline"]),
    ("benches", &["conntrack", "pipeline", "tables", "testkit"]),
];

/// Compares every crate's dependencies with [`LAYERS`].
pub(crate) fn check() -> Result<String> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let ours = normal_dependencies(package).filter(|dependency| names.contains(dependency));
        wrong.extend(violations(name, ours));
    }
    if !wrong.is_empty() {
        bail!("layers are crossed:\n  {}", wrong.join("\n  "));
    }
    Ok(format!("layers: {} crates depend only on what they may know", packages.len()))
}

fn metadata() -> Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What a package needs to run; tests may build on more (`kind` is null for a normal one).
fn normal_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies.filter(|entry| entry["kind"].is_null()).filter_map(|entry| entry["name"].as_str())
}

fn violations<'a>(name: &str, dependencies: impl Iterator<Item = &'a str>) -> Vec<String> {
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!("{name} has no layer: give it one in tools/xtask/src/layers.rs")];
    };
    dependencies
        .filter(|dependency| !allowed.contains(dependency))
        .map(|dependency| format!("{name} must not know {dependency}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_depends_only_on_what_it_may_know() {
        let said = check().unwrap();
        assert!(said.starts_with(&format!("layers: {} crates", LAYERS.len())), "{said}");
    }

    #[test]
    fn a_crossed_layer_is_named() {
        let crossed = violations("pipeline", ["wire", "af_xdp"].into_iter());
        assert_eq!(crossed, ["pipeline must not know af_xdp"]);
        assert_eq!(violations("stranger", [].into_iter()).len(), 1);
    }
}
