//! The keys a struct knows, and the one that was probably meant.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// The names of the fields of `T`, as its derived `Deserialize` states them.
///
/// The derive tells a deserialiser what it looks for; this one writes that down and gives up, so
/// the list cannot differ from the struct.
pub(crate) fn known<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The error is the point: nothing is ever deserialised.
    let _ = T::deserialize(Listen(&mut fields));
    fields
}

struct Listen<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listen<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("only the names were wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The name among `names` that `typed` is a slip of, if one is near enough.
pub(crate) fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    // People write dashes and capitals too; those are no distance at all.
    let typed = typed.to_lowercase().replace('-', "_");
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, name), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Both {
        vlan_interface: u8,
        mtu: Option<u8>,
    }

    #[test]
    fn the_keys_are_the_fields() {
        assert_eq!(known::<Both>(), ["vlan_interface", "mtu"]);
        assert_eq!(known::<u8>(), [""; 0]);
    }

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let names = ["vlan_interface", "vlan", "mtu"];
        assert_eq!(nearest("vlan_inteface", &names), Some("vlan_interface"));
        assert_eq!(nearest("vlan-interface", &names), Some("vlan_interface"));
        assert_eq!(nearest("VLAN", &names), Some("vlan"));
        assert_eq!(nearest("mtuu", &names), Some("mtu"));
        assert_eq!(nearest("dns_server", &names), None);
        assert_eq!(nearest(&"x".repeat(10_000), &names), None);
    }
}
