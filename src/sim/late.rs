//! A network that delivers datagrams of earlier streams late.
//!
//! In: the packets of one client, as its links carry them. Out: at some requests, the answer to a
//! request for an earlier stream: one that ended long ago, or one with the label of the stream that is
//! requested now. It comes before the answer proper, and its bytes must not enter the object.

use std::collections::BTreeMap;

use super::dice::Dice;
use crate::wire::ip::parse_udp;
use crate::wire::segment::{ToClient, ToServer};

/// Most packets kept of each label; a new one takes a random place.
pub const MAX_KEPT: usize = 4;

/// Requests in a hundred that an answer of an earlier stream with the same label precedes, if there is
/// one; of the others, those that any other precedes.
const NAMESAKE_PERCENT: u32 = 80;
const OTHER_PERCENT: u32 = 20;

/// The answers to one client that may come late.
pub(super) struct LateStreams {
    dice: Dice,
    /// The label of the last request.
    label: u8,
    /// Answers with that label.
    present: Vec<Vec<u8>>,
    /// Answers of streams that ended, by label.
    ended: BTreeMap<u8, Vec<Vec<u8>>>,
}

/// A packet of an earlier stream.
pub(super) struct LatePacket {
    pub(super) packet: Vec<u8>,
    /// Whether its stream has the label of the present one.
    pub(super) is_namesake: bool,
}

impl LateStreams {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            label: 0,
            present: Vec::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Takes note of a packet to the client.
    pub(super) fn arrived(&mut self, packet: &[u8]) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        let Ok(ToClient::Response(response)) = ToClient::parse(datagram.payload) else {
            return;
        };
        if response.header.stream != self.label {
            return;
        }
        if self.present.len() < MAX_KEPT {
            self.present.push(packet.to_vec());
        } else {
            let index = self.dice.index(MAX_KEPT);
            if let Some(slot) = self.present.get_mut(index) {
                *slot = packet.to_vec();
            }
        }
    }

    /// Takes note of a packet from the client; returns one to deliver before the answer, if any.
    pub(super) fn sent(&mut self, packet: &[u8]) -> Option<LatePacket> {
        let datagram = parse_udp(packet).ok()??;
        let label = match ToServer::parse(datagram.payload).ok()? {
            ToServer::Open(open) => open.stream,
            ToServer::Request(request) => request.stream,
        };
        if label != self.label {
            let present = core::mem::take(&mut self.present);
            if !present.is_empty() {
                self.ended.insert(self.label, present);
            }
            self.label = label;
        }
        let is_namesake = self.ended.contains_key(&label) && self.dice.chance(NAMESAKE_PERCENT);
        let from = match is_namesake {
            true => self.ended.get(&label)?,
            false if self.dice.chance(OTHER_PERCENT) => {
                let index = self.dice.index(self.ended.len());
                self.ended.values().nth(index)?
            }
            false => return None,
        };
        let packet = from.get(self.dice.index(from.len()))?.clone();
        Some(LatePacket {
            packet,
            is_namesake,
        })
    }
}
