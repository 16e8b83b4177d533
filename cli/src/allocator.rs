//! Gives memory that is not used any more back to the system.
//!
//! jemalloc looks for such memory while a thread allocates. The thread of a proxy whose connections are all idle allocates
//! nothing, and would keep what a burst has left.
#![allow(unsafe_code, reason = "jemalloc's own interface; measured: 3.8 kB for each of 7,500 idle connections")]

use std::{ptr, thread, time::Duration};

/// How often it is looked for. jemalloc gives back what was not used for a second (`.cargo/config.toml`).
const EVERY: Duration = Duration::from_secs(2);

/// Tells all arenas to give back what is due (jemalloc(3), `arena.<i>.decay`; 4096 stands for all of them).
const DECAY: &std::ffi::CStr = c"arena.4096.decay";

/// Looks regularly, on a thread of its own, until the process ends.
pub fn give_back_regularly() {
    let look = || loop {
        thread::sleep(EVERY);
        // SAFETY: the name ends with NUL, and nothing is read or written beside it.
        unsafe { tikv_jemalloc_sys::mallctl(DECAY.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
    };
    // Without it memory is given back later.
    let _ = thread::Builder::new().name("memory".into()).stack_size(64 * 1024).spawn(look);
}
