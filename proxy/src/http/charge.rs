//! What is held for one connection of a caller, so that the connection that holds the most is found.

use std::sync::Arc;

use bytes::Bytes;

use super::caller::Caller;
use crate::buffers::{Charge, Charged};

/// Smaller pieces are not worth counting: the parser keeps at most 16 of them.
const SMALL: usize = 512;

/// A number of bytes held for a connection; given back when dropped.
pub(crate) struct ConnectionCharge {
    caller: Arc<Caller>,
    charge: Charge,
}

impl ConnectionCharge {
    /// Nothing yet, to be changed.
    pub(crate) fn new(caller: &Arc<Caller>) -> Self {
        Self { caller: caller.clone(), charge: caller.bytes().charge() }
    }

    /// So many bytes are held now. Above a bound somebody loses a connection; it may be this one.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = self.charge.bytes();
        if bytes == before {
            return;
        }
        self.charge.set(bytes);
        self.caller.holds(before, bytes);
        if bytes > before {
            self.caller.bytes().check();
        }
    }
}

impl Drop for ConnectionCharge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Counts `bytes` in `charge`, which is made once there is something worth counting.
pub(crate) fn hold(charge: &mut Option<Box<ConnectionCharge>>, caller: &Arc<Caller>, bytes: usize) {
    match charge {
        Some(charge) => charge.set(if bytes < SMALL { 0 } else { bytes }),
        None if bytes < SMALL => {}
        None => charge.insert(Box::new(ConnectionCharge::new(caller))).set(bytes),
    }
}

/// A piece of a response, counted until it is written.
pub(crate) type ChargedPiece = Charged<Option<Box<ConnectionCharge>>>;

/// Counts a piece on its way to `caller`.
pub(crate) fn charged(bytes: Bytes, caller: &Arc<Caller>) -> ChargedPiece {
    let mut charge = None;
    hold(&mut charge, caller, bytes.len());
    Charged::new(bytes, charge)
}
