//! The digest of a whole object, computed as it passes (RFC 9530 §3).
//!
//! In: bytes in order, and the server's SHA-256 digest. Out: whether they match. The caller may move
//! the computation elsewhere with a function: a digest costs more than all other work on a byte.

use ring::digest::{Context, SHA256};

use crate::apps::fetch::DigestOutcome;
use crate::http::digest::SHA256_BYTES;

/// A digest in progress, computed by its caller.
#[derive(Clone)]
pub struct Sha256(Context);

/// Computes a digest.
pub trait Hasher {
    /// Adds the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// Returns the digest of all bytes.
    fn finish(self: Box<Self>) -> [u8; SHA256_BYTES];
}

/// Continues a digest elsewhere.
pub type GoOn = fn(Sha256) -> Box<dyn Hasher>;

impl Sha256 {
    /// Creates the digest of no bytes.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "an empty digest is not a natural default"
    )]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Continues the digest in place.
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

/// A digest in progress, and the expected one.
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
