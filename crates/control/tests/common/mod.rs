//! Real namespaces for tests: each test is a thread in one of its own, which goes when the thread
//! ends. They need root.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::future::Future;
use std::process::Command;
use std::time::Duration;

use control::netlink::{LinkEvent, LinkWatch, Links};
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

/// Runs a test in a new network namespace, on the daemon's kind of runtime.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Links) -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Links::connect().unwrap()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A command in this thread's namespace; its output.
pub(crate) fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The next event, which must come soon.
pub(crate) async fn next(watch: &mut LinkWatch) -> LinkEvent {
    timeout(Duration::from_secs(5), watch.next()).await.expect("an event within 5 s").unwrap()
}
