//! Reads decisions from fuzz bytes. In: any bytes. Out: numbers and slices; when the bytes end,
//! zeros and empty slices, so that every input is a valid program and a shorter one is a simpler one.

/// A cursor over fuzz bytes.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes, or as many as there are.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// A number of any size, small ones in few bytes: one byte says how many follow.
    pub fn number(&mut self) -> u64 {
        let count = usize::from(self.u8() % 9);
        self.take(count)
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.u16()) % n
    }

    /// Moves `value`: a little up, a little down, or anywhere.
    pub fn near(&mut self, value: u64) -> u64 {
        match self.u8() % 4 {
            0 => value.wrapping_add(u64::from(self.u8())),
            1 => value.wrapping_sub(u64::from(self.u8())),
            2 => self.number(),
            _ => value ^ 1 << (self.u8() % 64),
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }
}

/// Changes `bytes` in place: a flip, a byte, a cut, an insertion or a doubled stretch.
pub fn mutate(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    let at = input.below(bytes.len() + 1);
    match input.u8() % 5 {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (input.u8() % 8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = input.u8();
            }
        }
        2 => bytes.truncate(at),
        3 => {
            let count = usize::from(input.u8());
            let inserted = input.take(count).to_vec();
            bytes.splice(at..at, inserted);
        }
        _ => {
            let end = (at + usize::from(input.u8())).min(bytes.len());
            let doubled = bytes[at..end].to_vec();
            bytes.splice(at..at, doubled);
        }
    }
    bytes.truncate(65_507);
}
