//! The configuration as a file, with what is to be said about it in front.

use serde::Serialize;

use super::Adopted;
use crate::config::{FloatingEntry, GroupEntry, NetworkEntry, PoolEntry, RouteEntry, VifEntry};

/// The tables of a file.
#[derive(Serialize)]
struct Tables<'a> {
    network: &'a [NetworkEntry],
    vif: &'a [VifEntry],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    route: &'a [RouteEntry],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pool: &'a [PoolEntry],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    floating_ip: &'a [FloatingEntry],
}

impl Adopted {
    /// The text of the file.
    ///
    /// # Errors
    /// A value cannot be written as TOML; none that is known.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let tables = Tables {
            network: &self.networks,
            vif: &self.vifs,
            route: &self.routes,
            pool: &self.pools,
            floating_ip: &self.floats,
        };
        let mut text = String::from("# Written by `trunkline adopt`. What was found:\n");
        for line in &self.seen {
            text.extend(["#   ", &commented(line), "\n"]);
        }
        if !self.warnings.is_empty() {
            text.push_str("# What could not be said here or is not certain, and what to do:\n");
        }
        for line in &self.warnings {
            // An indented line belongs to the one above.
            let begin = if line.starts_with(' ') { "# " } else { "# WARNING: " };
            text.extend([begin, &commented(line), "\n"]);
        }
        text.extend(["\n", &toml::to_string(&self.settings)?, "\n", &toml::to_string(&tables)?]);
        for group in &self.groups {
            text.push_str(&printed(group)?);
        }
        Ok(text)
    }
}

/// A group, each of its rules in a line.
fn printed(group: &GroupEntry) -> Result<String, toml::ser::Error> {
    let mut text = format!("\n[[security_group]]\nname = {}\n", quoted(&group.name));
    if group.rules.is_empty() {
        return Ok(text);
    }
    text.push_str("rules = [\n");
    for rule in &group.rules {
        let keys = toml::to_string(rule)?;
        let keys: Vec<&str> = keys.lines().collect();
        text.extend(["    { ", &keys.join(", "), " },\n"]);
    }
    text.push_str("]\n");
    Ok(text)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Fit for a comment: names of others may have anything in them.
fn commented(line: &str) -> String {
    line.replace(|letter: char| letter.is_control(), "?")
}
