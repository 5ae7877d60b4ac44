//! Numbers for names: ports, segments and zones keep theirs while the configuration changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names and their numbers, 1 to a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    of: BTreeMap<String, u16>,
    last: u16,
    limit: u16,
}

impl Numbers {
    /// No names yet; numbers will be 1 to `limit` (4094 for ports and segments, 4095 for zones).
    #[must_use]
    pub fn new(limit: u16) -> Self {
        Self { of: BTreeMap::new(), last: 0, limit }
    }

    /// The number of `name`; a new one if it has none.
    ///
    /// Numbers are handed out in a circle, so one that was given back rests as long as possible:
    /// what still knows it by its old meaning has time to go. `None` if all are taken.
    pub fn take(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.of.get(name) {
            return Some(*number);
        }
        let circle = (self.last + 1..=self.limit).chain(1..=self.last);
        let taken: std::collections::BTreeSet<u16> = self.of.values().copied().collect();
        let number = circle.into_iter().find(|number| !taken.contains(number))?;
        self.of.insert(name.to_string(), number);
        self.last = number;
        Some(number)
    }

    /// Gives back the number of `name`.
    pub fn release(&mut self, name: &str) {
        self.of.remove(name);
    }

    /// Names and numbers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.of.iter().map(|(name, number)| (name.as_str(), *number))
    }

    /// The number of `name`, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u16> {
        self.of.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_a_freed_one_rests() {
        let mut numbers = Numbers::new(4);
        assert_eq!(numbers.take("a"), Some(1));
        assert_eq!(numbers.take("b"), Some(2));
        assert_eq!(numbers.take("a"), Some(1));
        numbers.release("a");
        assert_eq!(numbers.get("a"), None);
        assert_eq!(numbers.take("c"), Some(3));
        assert_eq!(numbers.take("d"), Some(4));
        assert_eq!(numbers.take("e"), Some(1));
        assert_eq!(numbers.take("f"), None);
        assert_eq!(numbers.take("b"), Some(2));
    }

    #[test]
    fn a_number_rests_over_a_restart_too() {
        let mut numbers = Numbers::new(4094);
        for name in ["a", "b", "c"] {
            numbers.take(name);
        }
        numbers.release("c");
        let written = serde_json::to_string(&numbers).unwrap();
        let mut read: Numbers = serde_json::from_str(&written).unwrap();
        assert_eq!((read.get("b"), read.take("d")), (Some(2), Some(4)));
    }
}
