//! Packets of bad will: random bytes, corpus files, and real packets flipped, cut and spliced.
//!
//! In: a seed, corpus files, and real packets as they pass by ([`Generator::learn`]). Out: one
//! packet after the other, each by a [`Recipe`]. Deterministic; keeps a bounded pool of packets and
//! allocates nothing once that is full of long ones. Knows of the machine under attack only its
//! addresses.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{MAX_PACKET, emit_udp};
use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::packets::repair;

/// Real packets kept: the latest, so that their content has not aged out.
const MAX_POOL: usize = 1024;

/// Longest packet that is made; longer than the MTU on purpose.
const MAX_LENGTH: usize = 2000;

/// Source addresses of forged packets: few enough that bytes can be counted for each.
const STRANGERS: u16 = 4096;

/// How a packet was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipe {
    /// Random bytes.
    Random,
    /// Random bytes, or a corpus file, inside a sound UDP datagram to the service.
    Wrapped,
    /// A corpus file as it is.
    Corpus,
    /// A real packet with a few bits flipped.
    Flipped,
    /// The same, with lengths and checksums that hold again.
    FlippedSound,
    /// A real packet cut short.
    Truncated,
    /// The same, with lengths and checksums that hold again.
    TruncatedSound,
    /// The head of one real packet and the tail of another.
    Spliced,
    /// The same, with lengths and checksums that hold again.
    SplicedSound,
    /// A real packet from another address.
    Spoofed,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Random,
        Self::Wrapped,
        Self::Corpus,
        Self::Flipped,
        Self::FlippedSound,
        Self::Truncated,
        Self::TruncatedSound,
        Self::Spliced,
        Self::SplicedSound,
        Self::Spoofed,
    ];
}

/// Every file of the fuzz corpora.
pub fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut paths: Vec<_> = fs::read_dir(root)
        .unwrap()
        .flat_map(|target| fs::read_dir(target.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// See the head of this file.
pub struct Generator {
    random: ChaCha8Rng,
    services: Vec<SocketAddr>,
    corpus: Vec<Vec<u8>>,
    pool: Vec<Vec<u8>>,
    learned: usize,
    packet: Vec<u8>,
    buffer: Vec<u8>,
}

impl Generator {
    /// A generator that knows no real packet yet. `services`: the transport's own addresses.
    pub fn new(seed: u64, services: Vec<SocketAddr>, corpus: Vec<Vec<u8>>) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (packet, buffer) = (Vec::with_capacity(MAX_PACKET), vec![0; MAX_PACKET]);
        let pool = Vec::with_capacity(MAX_POOL);
        Self {
            random,
            services,
            corpus,
            pool,
            learned: 0,
            packet,
            buffer,
        }
    }

    /// Takes note of a real packet.
    pub fn learn(&mut self, packet: &[u8]) {
        if self.pool.len() < MAX_POOL {
            let mut room = Vec::with_capacity(MAX_LENGTH);
            room.extend(packet);
            self.pool.push(room);
        } else {
            let oldest = &mut self.pool[self.learned % MAX_POOL];
            oldest.clear();
            oldest.extend(packet);
        }
        self.learned += 1;
    }

    /// Makes the next packet.
    pub fn make(&mut self) -> (Recipe, &[u8]) {
        let recipe = Recipe::ALL[self.random.random_range(0..Recipe::ALL.len())];
        self.packet.clear();
        match recipe {
            Recipe::Random => self.put_random(),
            Recipe::Wrapped => self.put_wrapped(),
            Recipe::Corpus => self.put_corpus(),
            Recipe::Flipped | Recipe::FlippedSound => {
                self.put_real();
                self.flip();
            }
            Recipe::Truncated | Recipe::TruncatedSound => {
                self.put_real();
                let length = self.random.random_range(0..=self.packet.len());
                self.packet.truncate(length);
            }
            Recipe::Spliced | Recipe::SplicedSound => self.put_spliced(),
            Recipe::Spoofed => {
                self.put_real();
                self.spoof();
            }
        }
        self.packet.truncate(MAX_LENGTH);
        match recipe {
            Recipe::FlippedSound
            | Recipe::TruncatedSound
            | Recipe::SplicedSound
            | Recipe::Spoofed => repair(&mut self.packet),
            Recipe::Random
            | Recipe::Wrapped
            | Recipe::Corpus
            | Recipe::Flipped
            | Recipe::Truncated
            | Recipe::Spliced => {}
        }
        (recipe, &self.packet)
    }

    fn put_random(&mut self) {
        let length = self.random.random_range(0..200);
        self.packet.resize(length, 0);
        self.random.fill_bytes(&mut self.packet);
        // Half of them claim to be IP.
        if let Some(first) = self.packet.first_mut() {
            *first = [0x45, 0x60, *first, *first][usize::from(*first & 3)];
        }
    }

    fn put_corpus(&mut self) {
        if self.corpus.is_empty() {
            return self.put_random();
        }
        let at = self.random.random_range(0..self.corpus.len());
        self.packet.extend(&self.corpus[at]);
    }

    fn put_real(&mut self) {
        if self.pool.is_empty() {
            return self.put_corpus();
        }
        let at = self.random.random_range(0..self.pool.len());
        self.packet.extend(&self.pool[at]);
    }

    fn put_wrapped(&mut self) {
        match self.random.random::<bool>() {
            true => self.put_corpus(),
            false => {
                let length = self.random.random_range(0..1400);
                self.packet.resize(length, 0);
                self.random.fill_bytes(&mut self.packet);
                // The kinds of packets that a server takes, and some that it does not.
                let kind = [0x10, 0x20, 0x20, 0x80][self.random.random_range(0..4)];
                self.packet.splice(0..0, [kind, 1]);
            }
        }
        let dst = self.services[self.random.random_range(0..self.services.len())];
        let src = SocketAddr::new(self.stranger(dst.is_ipv6()), self.random.random());
        let path = UdpPath { src, dst };
        self.packet.truncate(MAX_LENGTH);
        let length = emit_udp(path, Ecn::Ect0, &self.packet, 0, &mut self.buffer).unwrap_or(0);
        self.packet.clear();
        self.packet.extend(&self.buffer[..length]);
    }

    fn put_spliced(&mut self) {
        self.put_real();
        let head = self.random.random_range(0..=self.packet.len());
        self.packet.truncate(head);
        if self.pool.is_empty() {
            return;
        }
        let other = &self.pool[self.random.random_range(0..self.pool.len())];
        // Half of the time at the same place, so that fields stay fields.
        let tail = match self.random.random::<bool>() {
            true => head.min(other.len()),
            false => self.random.random_range(0..=other.len()),
        };
        self.packet.extend(&other[tail..]);
    }

    fn flip(&mut self) {
        if self.packet.is_empty() {
            return;
        }
        for _ in 0..1 << self.random.random_range(0..4) {
            let at = self.random.random_range(0..self.packet.len());
            self.packet[at] ^= 1 << self.random.random_range(0..8);
        }
    }

    fn spoof(&mut self) {
        let ipv6 = self.packet.first().is_some_and(|byte| byte >> 4 == 6);
        let stranger = self.stranger(ipv6);
        match stranger {
            IpAddr::V4(address) if self.packet.len() >= 20 => {
                self.packet[12..16].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) if self.packet.len() >= 40 => {
                self.packet[8..24].copy_from_slice(&address.octets());
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
    }

    fn stranger(&mut self, ipv6: bool) -> IpAddr {
        let number = self.random.random_range(0..STRANGERS);
        match ipv6 {
            false => {
                let [high, low] = number.to_be_bytes();
                [198, 18, high, low].into()
            }
            true => [0xfd99, 0, 0, 0, 0, 0, 0, number].into(),
        }
    }
}
