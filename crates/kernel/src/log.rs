//! What libbpf says: to the log, and its last words into our errors.

use std::sync::{Mutex, MutexGuard, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// Lines kept for an error. A verifier's log is one message, however long.
const KEPT: usize = 8;
/// Of a message, the end is kept: that is where the verifier says why.
const KEPT_BYTES: usize = 4096;

static LAST: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn last() -> MutexGuard<'static, Vec<String>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends libbpf's messages to the log, at level debug: most of what it warns of is tried on
/// purpose.
pub(crate) fn capture() {
    set_print(Some((PrintLevel::Info, print)));
}

fn print(level: PrintLevel, message: String) {
    let message = message.trim_end();
    tracing::debug!(?level, "{message}");
    let mut start = message.len().saturating_sub(KEPT_BYTES);
    while !message.is_char_boundary(start) {
        start += 1;
    }
    let mut last = last();
    if last.len() == KEPT {
        last.remove(0);
    }
    last.push(message[start..].to_owned());
}

/// Forgets what was said.
pub(crate) fn forget() {
    last().clear();
}

/// What was said since it was forgotten.
pub(crate) fn said() -> String {
    last().join("\n")
}
