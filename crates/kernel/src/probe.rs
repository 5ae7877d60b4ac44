//! What this kernel and its interfaces can do.
//!
//! Whether an interface takes what XDP redirects to it: a veth does only while its other end polls (an XDP program, or GRO on), and drops in silence
//! otherwise; the other end is a guest's, or a namespace we do not see into. So it is tried with a
//! frame, and the driver is asked what became of it.

use std::io;
use std::os::fd::AsRawFd as _;

use libbpf_rs::libbpf_sys;

use crate::Kernel;
use crate::error::{Doing as _, Error};
use crate::ethtool::Ethtool;

/// Whether this kernel gives XDP programs frames in pieces (5.18): the helper that tells their
/// length came with it.
pub(crate) fn has_frags() -> bool {
    let (program, helper) = (libbpf_sys::BPF_PROG_TYPE_XDP, libbpf_sys::BPF_FUNC_xdp_get_buff_len);
    // SAFETY: loads a program of its own; no options.
    unsafe { libbpf_sys::libbpf_probe_bpf_helper(program, helper, std::ptr::null()) == 1 }
}

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const LIVE_FRAMES: u32 = 2;
/// What a veth counts of the frames that its other end took from XDP, by queue.
const TAKEN: &str = "_xdp_xmit";
/// To a group that no bridge forwards (802.1Q 8.6.3), of an ethertype for experiments (802 9.2.3):
/// whoever gets it drops it.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let header = [1, 0x80, 0xc2, 0, 0, 0x0f, 2, 0x74, 0x6c, 0, 0, 1, 0x88, 0xb5];
    let mut at = 0;
    while at < header.len() {
        frame[at] = header[at];
        at += 1;
    }
    frame
};

impl Kernel {
    /// Whether what XDP redirects to this interface arrives, as far as can be told: always at a
    /// tap, at a veth if it took the frame it was just given. Of other drivers nothing is known.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn takes_xdp(&self, name: &str, ifindex: u32) -> Result<bool, Error> {
        let doing = || format!("{name}: cannot look what XDP can do there");
        let ethtool = Ethtool::open().doing(doing)?;
        match ethtool.driver(name).doing(doing)?.as_str() {
            "tun" => Ok(true),
            "veth" => {
                let before = ethtool.counted(name, TAKEN).doing(doing)?;
                if self.give(ifindex).is_err() {
                    return Ok(false);
                }
                Ok(ethtool.counted(name, TAKEN).doing(doing)? > before)
            }
            _ => Ok(false),
        }
    }

    /// Frames that a veth took from XDP since it was made.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn taken_from_xdp(&self, name: &str) -> Result<u64, Error> {
        let counted = Ethtool::open().and_then(|ethtool| ethtool.counted(name, TAKEN));
        counted.doing(|| format!("{name}: cannot read its counters"))
    }

    /// Sends one frame out of an interface by XDP.
    fn give(&self, ifindex: u32) -> io::Result<()> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress.
        let context = [0, FRAME.len() as u32, 0, ifindex, 0, 0];
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: FRAME.as_ptr().cast(),
            data_size_in: FRAME.len() as u32,
            ctx_in: context.as_ptr().cast(),
            ctx_size_in: size_of_val(&context) as u32,
            flags: LIVE_FRAMES,
            repeat: 1,
            ..Default::default()
        };
        let program = self.programs.probe.as_raw_fd();
        // SAFETY: an open descriptor; the options point at memory of the lengths they state.
        let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &raw mut options) };
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}
