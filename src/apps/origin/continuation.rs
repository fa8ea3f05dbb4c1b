//! The user continuation: all that a server needs to write any byte of one response.
//!
//! Bytes: kind 1 | flags 1 | date 4 | if flags say part: first 6, last 6 | the resource. All numbers
//! are big-endian. `kind` has the format's number in its high half. `flags`: low three bits the
//! outcome, 0x80 for HEAD. The resource, by kind: fixed: status 2; redirect: path; file and
//! listing: tag 12, path; dynamic: seed 8, size 6, period 4 if there is one; watermark: tag 12, mark
//! length 1, mark, path.
//! The transport seals these bytes; still no value of them may make a server panic.

use core::num::NonZeroU32;

use crate::apps::origin::dynamic::Dynamic;
use crate::http::range::ByteRange;
use crate::http::status::Status;

/// Bytes of a version tag: the first ones of the SHA-256 of the content. Long enough that nobody
/// makes two contents that share it.
pub const TAG_BYTES: usize = 12;

/// A version tag.
pub type Tag = [u8; TAG_BYTES];

/// What a response is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An answer without an object.
    Fixed(Status),
    /// 301 to the same path with a slash at its end.
    Redirect {
        /// Path of the directory.
        path: Vec<u8>,
    },
    /// A file.
    File {
        /// Path below the root.
        path: Vec<u8>,
        /// Tag of its content.
        tag: Tag,
    },
    /// The page of a directory.
    Listing {
        /// Path below the root.
        path: Vec<u8>,
        /// Tag of the page.
        tag: Tag,
    },
    /// Computed bytes.
    Dynamic(Dynamic),
    /// A file with a mark woven in.
    Watermark {
        /// The mark.
        mark: Vec<u8>,
        /// Path below the root.
        path: Vec<u8>,
        /// Tag of the unmarked content.
        tag: Tag,
    },
}

/// What the request's conditions and ranges came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// 200.
    Whole,
    /// 206.
    Part(ByteRange),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// A response as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserContinuation {
    /// Whether the body is left out (HEAD).
    pub head_only: bool,
    /// The `Date` shown, in seconds since 1970.
    pub date: u32,
    /// Status and part; of no meaning for `Fixed` and `Redirect`.
    pub outcome: RequestOutcome,
    /// What it is about.
    pub resource: Resource,
}

impl UserContinuation {
    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match &self.resource {
            Resource::Fixed(_) => 0,
            Resource::Redirect { .. } => 1,
            Resource::File { .. } => 2,
            Resource::Listing { .. } => 3,
            Resource::Dynamic(_) => 4,
            Resource::Watermark { .. } => 5,
        };
        let outcome = match self.outcome {
            RequestOutcome::Whole => 0,
            RequestOutcome::Part(_) => 1,
            RequestOutcome::NotModified => 2,
            RequestOutcome::PreconditionFailed => 3,
            RequestOutcome::Unsatisfiable => 4,
        };
        let head_only = if self.head_only { HEAD_ONLY } else { 0 };
        let mut out = Vec::with_capacity(TYPICAL_BYTES);
        out.extend([FORMAT | kind, head_only | outcome]);
        out.extend_from_slice(&self.date.to_be_bytes());
        if let RequestOutcome::Part(range) = self.outcome {
            put_48(&mut out, range.first);
            put_48(&mut out, range.last);
        }
        match &self.resource {
            Resource::Fixed(status) => out.extend_from_slice(&status.0.to_be_bytes()),
            Resource::Redirect { path } => out.extend_from_slice(path),
            Resource::File { path, tag } | Resource::Listing { path, tag } => {
                out.extend_from_slice(tag);
                out.extend_from_slice(path);
            }
            Resource::Dynamic(Dynamic { seed, size, period }) => {
                out.extend_from_slice(&seed.to_be_bytes());
                put_48(&mut out, *size);
                if let Some(period) = period {
                    out.extend_from_slice(&period.get().to_be_bytes());
                }
            }
            Resource::Watermark { mark, path, tag } => {
                out.extend_from_slice(tag);
                out.push(u8::try_from(mark.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(mark);
                out.extend_from_slice(path);
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([kind, flags], rest) = bytes.split_first_chunk::<2>()?;
        let (date, mut rest) = rest.split_first_chunk::<4>()?;
        let outcome = match flags & !HEAD_ONLY {
            0 => RequestOutcome::Whole,
            1 => {
                let range = ByteRange {
                    first: take_48(&mut rest)?,
                    last: take_48(&mut rest)?,
                };
                RequestOutcome::Part(range)
            }
            2 => RequestOutcome::NotModified,
            3 => RequestOutcome::PreconditionFailed,
            4 => RequestOutcome::Unsatisfiable,
            _ => return None,
        };
        Some(Self {
            head_only: flags & HEAD_ONLY != 0,
            date: u32::from_be_bytes(*date),
            outcome,
            resource: decode_resource(kind.checked_sub(FORMAT)?, rest)?,
        })
    }
}

fn decode_resource(kind: u8, rest: &[u8]) -> Option<Resource> {
    Some(match kind {
        0 => {
            let code = u16::from_be_bytes(rest.try_into().ok()?);
            Resource::Fixed((100..600).contains(&code).then_some(Status(code))?)
        }
        1 => Resource::Redirect {
            path: rest.to_vec(),
        },
        2 | 3 => {
            let (tag, path) = rest.split_first_chunk::<TAG_BYTES>()?;
            let (tag, path) = (*tag, path.to_vec());
            if kind == 2 {
                Resource::File { path, tag }
            } else {
                Resource::Listing { path, tag }
            }
        }
        4 => {
            let (seed, mut rest) = rest.split_first_chunk::<8>()?;
            let size = take_48(&mut rest)?;
            let period = match rest {
                [] => None,
                rest => Some(NonZeroU32::new(u32::from_be_bytes(rest.try_into().ok()?))?),
            };
            Resource::Dynamic(Dynamic {
                seed: u64::from_be_bytes(*seed),
                size,
                period,
            })
        }
        5 => {
            let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
            let (length, rest) = rest.split_first()?;
            let (mark, path) = rest.split_at_checked(usize::from(*length))?;
            Resource::Watermark {
                mark: mark.to_vec(),
                path: path.to_vec(),
                tag: *tag,
            }
        }
        _ => return None,
    })
}

fn put_48(out: &mut Vec<u8>, value: u64) {
    let [_, _, low @ ..] = value.to_be_bytes();
    out.extend_from_slice(&low);
}

fn take_48(rest: &mut &[u8]) -> Option<u64> {
    let ([a, b, c, d, e, f], after) = rest.split_first_chunk::<6>()?;
    *rest = after;
    Some(u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]))
}

/// Room for most, so that one allocation is enough.
const TYPICAL_BYTES: usize = 96;

/// Number of this format, in the high half of the first byte.
const FORMAT: u8 = 0x10;

const HEAD_ONLY: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::apps::origin::target::MAX_PATH_BYTES;
    use crate::apps::origin::watermark::MAX_MARK_BYTES;
    use crate::transport::application::MAX_USER_BYTES;

    #[test]
    fn the_longest_fits() {
        let longest = UserContinuation {
            head_only: false,
            date: u32::MAX,
            outcome: RequestOutcome::Part(ByteRange {
                first: 0,
                last: (1 << 48) - 1,
            }),
            resource: Resource::Watermark {
                mark: vec![b'm'; MAX_MARK_BYTES],
                path: vec![b'p'; MAX_PATH_BYTES + "/index.html".len()],
                tag: [0; TAG_BYTES],
            },
        };
        let bytes = longest.encode();
        assert!(bytes.len() <= MAX_USER_BYTES, "{}", bytes.len());
        assert_eq!(UserContinuation::decode(&bytes), Some(longest));
    }

    #[test]
    fn a_short_path_costs_little() {
        let user = UserContinuation {
            head_only: false,
            date: 0,
            outcome: RequestOutcome::Whole,
            resource: Resource::File {
                path: b"docs/index.html".to_vec(),
                tag: [0; TAG_BYTES],
            },
        };
        assert_eq!(user.encode().len(), 18 + "docs/index.html".len());
    }

    fn resources() -> impl Strategy<Value = Resource> {
        let path = || proptest::collection::vec(any::<u8>(), 0..30);
        prop_oneof![
            (100u16..600).prop_map(|code| Resource::Fixed(Status(code))),
            path().prop_map(|path| Resource::Redirect { path }),
            (path(), any::<Tag>()).prop_map(|(path, tag)| Resource::File { path, tag }),
            (path(), any::<Tag>()).prop_map(|(path, tag)| Resource::Listing { path, tag }),
            (any::<u64>(), 0u64..1 << 48, any::<u32>()).prop_map(|(seed, size, period)| {
                let period = NonZeroU32::new(period);
                Resource::Dynamic(Dynamic { seed, size, period })
            }),
            (path(), path(), any::<Tag>()).prop_map(|(mark, path, tag)| Resource::Watermark {
                mark,
                path,
                tag
            }),
        ]
    }

    proptest! {
        #[test]
        fn encode_and_decode_are_inverse(
            resource in resources(),
            outcome in 0u8..5,
            first in 0u64..1 << 48,
            last in 0u64..1 << 48,
            head_only: bool,
            date: u32,
        ) {
            let outcome = match outcome {
                0 => RequestOutcome::Whole,
                1 => RequestOutcome::Part(ByteRange { first, last }),
                2 => RequestOutcome::NotModified,
                3 => RequestOutcome::PreconditionFailed,
                _ => RequestOutcome::Unsatisfiable,
            };
            let user = UserContinuation { head_only, date, outcome, resource };
            prop_assert_eq!(UserContinuation::decode(&user.encode()), Some(user));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = UserContinuation::decode(&bytes);
        }
    }
}
