//! `BPF_PROG_TEST_RUN`: a program over one frame, in the namespace of the calling thread.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use libbpf_rs::libbpf_sys;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;
pub const TC_NEXT: u32 = u32::MAX;
pub const TC_SHOT: u32 = 2;
pub const TC_REDIRECT: u32 = 7;

/// `struct __sk_buff` of linux/bpf.h.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SkBuff {
    pub len: u32,
    pub pkt_type: u32,
    pub mark: u32,
    pub before_gso_segs: [u32; 38],
    pub gso_segs: u32,
    pub sk: u64,
    pub gso_size: u32,
    pub tstamp_type: u32,
    pub hwtstamp: u64,
}

const _: () = assert!(size_of::<SkBuff>() == 192 && std::mem::offset_of!(SkBuff, sk) == 168);

impl Default for SkBuff {
    fn default() -> Self {
        Self {
            len: 0,
            pkt_type: 0,
            mark: 0,
            before_gso_segs: [0; 38],
            gso_segs: 0,
            sk: 0,
            gso_size: 0,
            tstamp_type: 0,
            hwtstamp: 0,
        }
    }
}

/// What a program answered, and the frame after it.
pub struct Ran {
    pub verdict: u32,
    pub frame: Vec<u8>,
}

pub fn run(program: BorrowedFd<'_>, frame: &[u8]) -> Ran {
    test_run(program, frame, None, 1).0
}

/// The same so many times, over one frame.
pub fn run_times(program: BorrowedFd<'_>, frame: &[u8], times: u32) -> Ran {
    test_run(program, frame, None, times).0
}

/// The same with a context for tc; answers it as it was left.
pub fn run_skb(program: BorrowedFd<'_>, frame: &[u8], context: SkBuff) -> (Ran, SkBuff) {
    let (ran, context) = test_run(program, frame, Some(context), 1);
    (ran, context.unwrap())
}

fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    mut context: Option<SkBuff>,
    times: u32,
) -> (Ran, Option<SkBuff>) {
    let mut out = vec![0; 16384];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        repeat: times as i32,
        ..Default::default()
    };
    if let Some(context) = &mut context {
        options.ctx_in = (&raw const *context).cast();
        options.ctx_out = (&raw mut *context).cast();
        options.ctx_size_in = size_of::<SkBuff>() as u32;
        options.ctx_size_out = size_of::<SkBuff>() as u32;
    }
    // SAFETY: an open descriptor; the options point at memory of the lengths they state.
    let result =
        unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    assert_eq!(result, 0, "{}", std::io::Error::from_raw_os_error(-result));
    out.truncate(options.data_size_out as usize);
    (Ran { verdict: options.retval, frame: out }, context)
}

/// A UDP frame, 60 bytes, with these tags (protocol, TCI) behind its addresses.
pub fn frame(tags: &[(u16, u16)]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (protocol, tci) in tags {
        frame.extend(protocol.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(0x0800u16.to_be_bytes());
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.resize(60, 0x5a);
    frame
}
