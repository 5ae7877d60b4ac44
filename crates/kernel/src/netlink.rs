//! Which tc filters an interface has: the two questions that libbpf does not ask, over rtnetlink(7).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

// linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_CLSACT_INGRESS: u32 = 0xffff_fff2;
const TC_H_CLSACT_EGRESS: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

const MESSAGE_HEADER: usize = 16;
const TC_HEADER: usize = 20;

/// A filter on the ingress of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// `bpf`, `u32`, `flower` …
    pub(crate) kind: String,
    pub(crate) priority: u16,
    pub(crate) handle: u32,
    /// Of a bpf filter: the program's id.
    pub(crate) program: u32,
    /// Of a bpf filter: what it calls itself.
    pub(crate) name: String,
}

/// The filters on the ingress of an interface.
pub(crate) fn ingress_filters(ifindex: u32) -> io::Result<Vec<Filter>> {
    filters_of(ifindex, TC_H_CLSACT_INGRESS)
}

/// The filters on both sides of a clsact qdisc.
pub(crate) fn filters(ifindex: u32) -> io::Result<Vec<Filter>> {
    let mut both = ingress_filters(ifindex)?;
    both.extend(filters_of(ifindex, TC_H_CLSACT_EGRESS)?);
    Ok(both)
}

fn filters_of(ifindex: u32, parent: u32) -> io::Result<Vec<Filter>> {
    let mut filters = Vec::new();
    dump(RTM_GETTFILTER, ifindex, parent, |message, tc, attributes| {
        // A dump also tells the chain as such, a filter without a handle.
        if message == RTM_NEWTFILTER && word(tc, 4) == ifindex && word(tc, 8) != 0 {
            filters.push(filter(tc, attributes));
        }
    })?;
    Ok(filters)
}

/// The kind of the ingress qdisc of an interface (`clsact`, `ingress`), if it has one.
pub(crate) fn ingress_qdisc(ifindex: u32) -> io::Result<Option<String>> {
    let mut kind = None;
    dump(RTM_GETQDISC, ifindex, 0, |message, tc, attributes| {
        if message == RTM_NEWQDISC && word(tc, 4) == ifindex && word(tc, 12) == TC_H_CLSACT {
            kind = find(attributes, TCA_KIND).map(text);
        }
    })?;
    Ok(kind)
}

fn filter(tc: &[u8], attributes: &[u8]) -> Filter {
    let options = find(attributes, TCA_OPTIONS).unwrap_or_default();
    Filter {
        kind: find(attributes, TCA_KIND).map(text).unwrap_or_default(),
        priority: (word(tc, 16) >> 16) as u16,
        handle: word(tc, 8),
        program: find(options, TCA_BPF_ID).map_or(0, |value| word(value, 0)),
        name: find(options, TCA_BPF_NAME).map(text).unwrap_or_default(),
    }
}

/// Asks for a dump and gives each message of the answer to `each`: its type, its tcmsg, its
/// attributes.
fn dump(
    request: u16,
    ifindex: u32,
    parent: u32,
    mut each: impl FnMut(u16, &[u8], &[u8]),
) -> io::Result<()> {
    let socket = socket()?;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut message = Vec::with_capacity(MESSAGE_HEADER + TC_HEADER);
    message.extend(((MESSAGE_HEADER + TC_HEADER) as u32).to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question on one socket
    message.extend([0; 4]); // address family
    message.extend(ifindex.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(parent.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    // SAFETY: `message` is readable for its length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent != message.len() as isize {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        // SAFETY: `buffer` is writable for its length.
        let length =
            unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
        if read(&buffer[..length], &mut each)? {
            return Ok(());
        }
    }
}

/// Reads the messages of one datagram; true if they are the last.
fn read(mut bytes: &[u8], each: &mut impl FnMut(u16, &[u8], &[u8])) -> io::Result<bool> {
    while bytes.len() >= MESSAGE_HEADER {
        let length = word(bytes, 0) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let Some(body) = bytes.get(MESSAGE_HEADER..length) else { break };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                return Err(io::Error::from_raw_os_error(-(word(body, 0) as i32)));
            }
            _ => {
                if let Some((tc, attributes)) = body.split_at_checked(TC_HEADER) {
                    each(kind, tc, attributes);
                }
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The value of the first attribute of that type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn socket() -> io::Result<OwnedFd> {
    let (kind, protocol) = (libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_bpf_filter_is_read_from_its_attributes() {
        let mut tc = [0u8; TC_HEADER];
        tc[8..12].copy_from_slice(&5u32.to_ne_bytes());
        tc[16..20].copy_from_slice(&(7u32 << 16 | 3).to_ne_bytes());
        let options = [attribute(TCA_BPF_NAME, b"other\0"), attribute(TCA_BPF_ID, &[9, 0, 0, 0])];
        let attributes =
            [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS, &options.concat())].concat();
        let expected =
            Filter { kind: "bpf".into(), priority: 7, handle: 5, program: 9, name: "other".into() };
        assert_eq!(filter(&tc, &attributes), expected);
    }

    #[test]
    fn a_cut_answer_is_no_panic() {
        let whole = [attribute(TCA_KIND, b"clsact\0"), attribute(99, &[1; 7])].concat();
        for end in 0..whole.len() {
            let _ = find(&whole[..end], 99);
            assert!(!read(&whole[..end], &mut |_, _, _| {}).unwrap_or(false));
        }
    }
}
