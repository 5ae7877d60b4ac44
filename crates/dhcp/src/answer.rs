//! From a request to what is said to it, or why nothing is.

use std::net::Ipv4Addr;

use dhcproto::v4::MessageType;
use thiserror::Error;

use crate::reply::{self, Kind, Reply};
use crate::request::Request;
use crate::{Vif, reply::NAK};

/// Why a request gets no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// Too short, without the magic cookie, or without a message type.
    #[error("it is no DHCP message")]
    Malformed,
    /// An answer, or of a type that servers send.
    #[error("it is no request")]
    NotARequest,
    /// Of another MAC than the vif's VM has.
    #[error("its MAC is not the vif's")]
    Unknown,
    /// By a relay: who asks is on no vif here.
    #[error("a relay passed it on")]
    Relayed,
    /// The client has chosen another server.
    #[error("it is for another server")]
    OtherServer,
    /// Nobody has said which address the VM has.
    #[error("the vif has no address")]
    NoAddress,
}

/// What a client tells without waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It gives its address back. It is its own all the same, and nobody else's.
    Released,
    /// It found somebody else with its address.
    Declined,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// It says something of this address, and wants no answer.
    Told(Event, Ipv4Addr),
    /// Nothing is said to it.
    Silent(Silence),
}

/// Answers a request (a UDP payload) that came by this vif.
#[must_use]
pub fn answer(payload: &[u8], vif: &Vif) -> Outcome {
    match Request::read(payload, vif.mac).and_then(|request| decide(&request, vif)) {
        Ok(outcome) => outcome,
        Err(silence) => Outcome::Silent(silence),
    }
}

fn decide(request: &Request, vif: &Vif) -> Result<Outcome, Silence> {
    let first = *vif.addresses.first().ok_or(Silence::NoAddress)?;
    let confirm = |address| Outcome::Reply(reply::lease(Kind::Ack, address, request, vif));
    match request.kind {
        MessageType::Discover => {
            let address = request.requested.filter(|address| vif.has(*address)).unwrap_or(first);
            Ok(Outcome::Reply(reply::lease(Kind::Offer, address, request, vif)))
        }
        MessageType::Request => {
            // SELECTING names a server, and one that was not chosen stays silent.
            if request.server.is_some_and(|server| server != vif.server) {
                return Err(Silence::OtherServer);
            }
            // SELECTING and INIT-REBOOT say in option 50 what they want; RENEWING and REBINDING
            // say in ciaddr what they have. The answer is the same: it is the VM's or it is not,
            // whoever gave it, wherever it was.
            let has = Some(request.ciaddr).filter(|address| !address.is_unspecified());
            let address = request.requested.or(has).ok_or(Silence::Malformed)?;
            Ok(match vif.has(address) {
                true => confirm(address),
                false => Outcome::Reply(reply::refuse(address, NAK, request, vif)),
            })
        }
        MessageType::Inform => Ok(Outcome::Reply(reply::inform(request, vif))),
        MessageType::Release => Ok(Outcome::Told(Event::Released, request.ciaddr)),
        MessageType::Decline => {
            let address = request.requested.unwrap_or(request.ciaddr);
            Ok(Outcome::Told(Event::Declined, address))
        }
        _ => Err(Silence::NotARequest),
    }
}
