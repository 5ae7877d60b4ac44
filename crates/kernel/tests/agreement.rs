//! The kernel's two executors and the workers' own, given the same lines and the same packets:
//! they must do the same to the byte.
//!
//! Half of the cases are packets whose line is to be replayed; of the others each has one thing
//! that stands in the way. What the kernel leaves to the workers on purpose is in [`judge::left`].
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)] // tests

#[path = "agreement/case.rs"]
mod case;
mod common;
#[path = "agreement/executors.rs"]
mod executors;
#[path = "agreement/frame.rs"]
mod frame;
#[path = "agreement/judge.rs"]
mod judge;
#[path = "agreement/staged.rs"]
mod staged;
#[path = "agreement/world.rs"]
mod world;

use std::cell::RefCell;

use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use executors::Executors;
use judge::Tally;

const CASES: u32 = 200_000;
/// Of each kind of rewrite, of tag and of refusal.
const OF_EACH: u64 = 1000;

/// Fewer where there is no time for so many: in QEMU, with other kernels (tools/old-kernel).
fn cases() -> u32 {
    std::env::var("AGREEMENT_CASES").map_or(CASES, |cases| cases.parse().unwrap())
}

#[test]
fn three_executors_do_the_same_to_200_000_packets() {
    common::enter_netns();
    let executors = RefCell::new(Executors::start());
    let tally = RefCell::new(Tally::default());
    let config = Config {
        cases: cases(),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/agreement/found.txt"
        )))),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case::any_case(), |case| {
        let ran = executors.borrow_mut().run(&case);
        judge::compare(&case, &ran, &mut tally.borrow_mut())
    });
    let tally = tally.into_inner();
    println!("{tally}");
    outcome.unwrap();
    assert!(tally.hits() * 10 >= u64::from(cases()) * 4, "{} hits", tally.hits());
    let of_each = OF_EACH * u64::from(cases()) / u64::from(CASES);
    for (what, count) in tally.wanted() {
        assert!(count >= of_each, "only {count} of {what}");
    }
}
