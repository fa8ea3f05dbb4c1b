//! The digest of a whole object, computed while it passes (RFC 9530 §3).
//!
//! In: bytes in order, and the SHA-256 digest a server offered. Out: whether they agree. Where the
//! work is done is the user's choice, by a function that is given: a digest costs more than all else
//! that is done with a byte.

use ring::digest::{Context, SHA256};

use crate::apps::fetch::DigestOutcome;
use crate::http::digest::SHA256_BYTES;

/// A digest in the making, computed by whoever updates it.
#[derive(Clone)]
pub struct Sha256(Context);

/// Something that computes a digest.
pub trait Hasher {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The digest of all bytes.
    fn finish(self: Box<Self>) -> [u8; SHA256_BYTES];
}

/// Goes on with a digest, somewhere.
pub type GoOn = fn(Sha256) -> Box<dyn Hasher>;

impl Sha256 {
    /// The digest of nothing so far.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a digest of nothing is no natural default"
    )]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Goes on here and now.
    #[must_use]
    pub fn go_on(self) -> Box<dyn Hasher> {
        Box::new(self)
    }
}

impl Hasher for Sha256 {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> [u8; SHA256_BYTES] {
        let digest = self.0.finish();
        let mut out = [0; SHA256_BYTES];
        for (to, from) in out.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        out
    }
}

/// A digest in the making, and what it should become.
pub(super) struct Verifier {
    hasher: Box<dyn Hasher>,
    want: [u8; SHA256_BYTES],
}

impl Verifier {
    pub(super) fn new(hasher: Box<dyn Hasher>, want: [u8; SHA256_BYTES]) -> Self {
        Self { hasher, want }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub(super) fn finish(self) -> DigestOutcome {
        match self.hasher.finish() == self.want {
            true => DigestOutcome::Verified,
            false => DigestOutcome::Mismatch,
        }
    }
}
