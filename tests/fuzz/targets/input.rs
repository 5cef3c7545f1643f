//! Choices that are read from the bytes of a fuzzer.

/// Reads choices off the front of bytes. Past the end every choice is 0.
pub struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Chooses a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let choice = usize::from(self.byte()) << 8 | usize::from(self.byte());
        choice % end.max(1)
    }

    /// Takes so many bytes, or all that are left.
    pub fn take(&mut self, bytes: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn rest(&mut self) -> &'d [u8] {
        self.take(usize::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
