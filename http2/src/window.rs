//! Flow control of what the peer sends (RFC 9113 section 5.2).

/// How much the peer may send, on one stream or in all.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    size: u32,
    /// What the peer may still send.
    left: u32,
    /// What was released since the peer was last told.
    released: u32,
}

impl ReceiveWindow {
    /// The peer may send `size` bytes.
    pub(crate) fn new(size: u32) -> Self {
        Self { size, left: size, released: 0 }
    }

    /// The peer has sent `bytes`. `false`: it may not.
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// There is room for `bytes` that were received before. Returns by how much the peer's window is to be raised now; that
    /// is put off until it is worth a frame.
    pub(crate) fn release(&mut self, bytes: usize) -> Option<u32> {
        // Never more than was received.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.held_bytes());
        self.released += bytes;
        // Compared with what is left, not with the size: others may hold most of it for ever.
        if self.released == 0 || self.released < self.left / 2 {
            return None;
        }
        self.left += self.released;
        Some(std::mem::take(&mut self.released))
    }

    /// Bytes that were received and not released.
    pub(crate) fn held(&self) -> usize {
        self.held_bytes() as usize
    }

    fn held_bytes(&self) -> u32 {
        self.size - self.left - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_raised_once_that_is_worth_a_frame() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(40));
        assert!(!window.receive(61));
        assert_eq!(window.held(), 40);
        assert_eq!(window.release(29), None);
        assert_eq!(window.held(), 11);
        assert_eq!(window.release(1), Some(30));
        assert!(window.receive(90));
        assert!(!window.receive(1));
        assert_eq!(window.held(), 100);
        assert_eq!(window.release(1), Some(1), "whoever has nothing left is told at once");
        assert_eq!(window.release(1_000), Some(99), "no more than was received");
        assert_eq!((window.held(), window.release(0)), (0, None));
    }
}
