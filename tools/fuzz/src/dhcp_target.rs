//! The DHCP responder: whatever a VM says, what it hears is an answer, and its own; and what an
//! operator writes as an option.

use dhcp::{Event, Extra, Outcome, Vif, answer, frame, payload};
use wire::MacAddr;

const VM: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
const ADDRESSES: [[u8; 4]; 2] = [[10, 0, 0, 3], [10, 0, 0, 9]];
/// Where a request's MAC address is (`chaddr`, RFC 2131 §2).
const MAC: std::ops::Range<usize> = 28..34;

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(Ok(extra)) = std::str::from_utf8(bytes).map(str::parse::<Extra>) {
        // An option has room for so many bytes.
        assert!(extra.data.len() <= 255, "{extra:?}");
    }
    let _ = payload(bytes);
    let vif = vif();
    check(&answer(bytes, &vif), &vif);
    // And as if the VM had sent it: of another MAC hardly anything is looked at.
    let mut own = bytes.to_vec();
    if let Some(mac) = own.get_mut(MAC) {
        mac.copy_from_slice(&VM.0);
    }
    check(&answer(&own, &vif), &vif);
}

fn check(outcome: &Outcome, vif: &Vif) {
    match outcome {
        Outcome::Reply(reply) => {
            assert!([VM, MacAddr::BROADCAST].contains(&reply.mac), "{reply:?}");
            assert!((300..=1472).contains(&reply.payload.len()), "{reply:?}");
            // yiaddr: nobody else's address is given away.
            let given: [u8; 4] = reply.payload[16..20].try_into().unwrap();
            assert!(given == [0; 4] || ADDRESSES.contains(&given), "{reply:?}");
            let frame = frame(reply, vif, MacAddr([2, 0, 0, 0, 0, 9]));
            wire::parse(&frame).unwrap();
        }
        Outcome::Told(Event::Released | Event::Declined, _) | Outcome::Silent(_) => {}
    }
}

fn vif() -> Vif {
    Vif {
        mac: VM,
        addresses: ADDRESSES.map(Into::into).to_vec(),
        network: "10.0.0.0/24".parse().unwrap(),
        server: [10, 0, 0, 1].into(),
        router: Some([10, 0, 0, 1].into()),
        dns: vec![[8, 8, 8, 8].into()],
        ntp: vec![[10, 0, 0, 8].into()],
        domain: "novalocal".into(),
        host_name: None,
        mtu: Some(1400),
        lease: 86_400,
        extra: vec!["66,boot".parse().unwrap()],
    }
}
