//! The digest of a whole object, computed while it passes (RFC 9530 §3).
//!
//! In: bytes in order, and the SHA-256 digest a server offered. Out: whether they agree.

use ring::digest::{Context, SHA256};

use crate::apps::fetch::DigestOutcome;
use crate::http::digest::SHA256_BYTES;

/// A digest in the making.
#[derive(Clone)]
pub(super) struct Verifier {
    context: Context,
    want: Option<[u8; SHA256_BYTES]>,
}

impl Verifier {
    pub(super) fn new() -> Self {
        Self {
            context: Context::new(&SHA256),
            want: None,
        }
    }

    pub(super) fn expecting(mut self, want: [u8; SHA256_BYTES]) -> Self {
        self.want = Some(want);
        self
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(super) fn finish(self) -> DigestOutcome {
        match self.want {
            None => DigestOutcome::Absent,
            Some(want) if self.context.finish().as_ref() == want => DigestOutcome::Verified,
            Some(_) => DigestOutcome::Mismatch,
        }
    }
}
