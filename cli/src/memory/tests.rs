//! The functions beside loops that are plainly right, for every length and overlap at which they change their way.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn maesh_memmove(to: *mut c_void, from: *const c_void, n: usize) -> *mut c_void;
    fn maesh_memset(to: *mut c_void, byte: c_int, n: usize) -> *mut c_void;
    fn maesh_memcmp(a: *const c_void, b: *const c_void, n: usize) -> c_int;
}

/// Bytes of the buffers, with a margin in which nothing may change.
const ROOM: usize = 3 * super::REP;

/// Every length up to where a loop has run twice, and those around the string instructions.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=260).chain(super::REP - 2..=super::REP + 2).chain([512, 1000, super::REP + 700])
}

/// Bytes that are all different from their neighbours.
fn pattern() -> Vec<u8> {
    (0..ROOM).map(|i| u8::try_from((i * 131 + i / 251) % 251).unwrap()).collect()
}

#[test]
fn moves_are_those_of_a_plain_copy() {
    for n in lengths() {
        let from = 700;
        let near = [1_isize, 15, 16, 63, 64, 65, 127, 129].into_iter().flat_map(|by| [by, -by]);
        for by in near.chain([0, 690, -690, 2900]) {
            let to = from + by;
            let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
            if from.max(to) + n > ROOM {
                continue;
            }
            let mut got = pattern();
            let mut want = pattern();
            let copy: Vec<u8> = want[from..from + n].to_vec();
            want[to..to + n].copy_from_slice(&copy);
            let base = got.as_mut_ptr();
            // SAFETY: both ranges lie within `got`, as was checked above.
            let returned = unsafe { maesh_memmove(base.add(to).cast(), base.add(from).cast(), n) };
            assert!(
                std::ptr::eq(returned, got[to..].as_ptr().cast()),
                "{n} bytes from {from} to {to}: what it returns"
            );
            assert!(got == want, "{n} bytes from {from} to {to}");
        }
    }
}

#[test]
fn a_range_is_filled_and_nothing_beside_it() {
    for n in lengths() {
        for (at, byte) in [(64, 0), (65, 0xff), (79, 0x1_7f)] {
            let mut got = pattern();
            let mut want = pattern();
            want[at..at + n].fill(u8::try_from(byte & 0xff).unwrap());
            // SAFETY: the range lies within `got`.
            let returned = unsafe { maesh_memset(got[at..].as_mut_ptr().cast(), byte, n) };
            assert!(std::ptr::eq(returned, got[at..].as_ptr().cast()), "{n} bytes at {at}: what it returns");
            assert!(got == want, "{n} bytes at {at}");
        }
    }
}

#[test]
fn the_first_byte_that_differs_decides() {
    for n in lengths() {
        let a = pattern();
        let compare = |b: &[u8]| {
            // SAFETY: both have more than `n` bytes from 3 on.
            unsafe { maesh_memcmp(a[3..].as_ptr().cast(), b[3..].as_ptr().cast(), n) }
        };
        assert_eq!(compare(&a), 0, "{n} equal bytes");
        for differs in (0..n).filter(|i| *i < 40 || i + 40 > n) {
            for step in [1_u8, 0x80] {
                let mut b = a.clone();
                b[3 + differs] = a[3 + differs].wrapping_add(step);
                // What comes later says the opposite and must not count.
                if differs + 1 < n {
                    b[3 + n - 1] = if b[3 + differs] > a[3 + differs] { 0 } else { 0xff };
                }
                let want = a[3 + differs].cmp(&b[3 + differs]);
                assert_eq!(compare(&b).cmp(&0), want, "{n} bytes, of which byte {differs} differs");
            }
        }
    }
}
