//! The configuration file: it is refused with a place and words, or means something.

use control::config::File;
use control::flags::Flags;
use control::model::Model;

pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let node = Flags { node: Some("left".into()), ..Flags::default() };
    if let Err(refusal) = Model::from_text(&node, "fuzz.toml", &text) {
        assert!(!refusal.message.is_empty());
        return;
    }
    // What means something is read the same way again, and differs from itself in nothing.
    let one = Model::from_text(&node, "fuzz.toml", &text).expect("it was taken a moment ago");
    let two = Model::from_text(&node, "fuzz.toml", &text).expect("it was taken a moment ago");
    assert!(one.restart_needed(&two).is_empty());
    assert!(File::parse("fuzz.toml", &text).is_ok());
}
