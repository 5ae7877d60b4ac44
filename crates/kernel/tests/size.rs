//! What the verifier makes of the programs: growth is noticed, and meant.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)] // tests

mod common;

use std::os::fd::{AsRawFd as _, BorrowedFd};

use kernel::Program;
use libbpf_rs::libbpf_sys;

/// Program, instructions the verifier walked, instructions it kept. As of kernel 6.18 and clang 14;
/// docs/benchmarks.md has the same.
const KNOWN: [(Program, u32, u32); 6] = [
    (Program::ForwardXdp, 76_955, 3_514),
    (Program::ForwardWhole, 77_893, 3_522),
    (Program::ForwardTc, 186_360, 4_209),
    (Program::Punt, 88, 55),
    (Program::Answer, 296, 226),
    (Program::Deliver, 803, 524),
];

/// Instructions walked, and instructions kept.
fn size(program: BorrowedFd<'_>) -> (u32, u32) {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: an open descriptor, and a structure of the length that is told.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    (info.verified_insns, info.xlated_prog_len / 8)
}

#[test]
fn no_program_has_grown_by_more_than_a_tenth() {
    common::enter_netns();
    let mut node = common::Node::start("size");
    let sizes = KNOWN.map(|(program, ..)| (program, size(node.kernel().program(program))));
    println!("{sizes:?}");
    for ((program, walked, kept), (_, (walks, keeps))) in KNOWN.into_iter().zip(sizes) {
        assert!(walks <= walked + walked / 10, "{program:?}: {walks} walked, was {walked}");
        assert!(keeps <= kept + kept / 10, "{program:?}: {keeps} kept, was {kept}");
    }
}
