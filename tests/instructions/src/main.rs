//! Does one part of the work of a request many times, for `cargo xtask bench instructions`, which runs this under callgrind
//! and has it count what happens in [`counted_part`].
//!
//! Without a name it lists the parts, one a line. What it prints after a part is how often that was done, and how often memory
//! was asked for meanwhile. What is [`whole`] takes a number as well, of how often it is done.

mod allocator;
mod http2;
mod mesh;
mod whole;
// The image's own: what moves and compares memory is not left to the machine. Its tests are where it is.
#[cfg(all(target_arch = "x86_64", not(test)))]
#[rustfmt::skip]
#[path = "../../../cli/src/memory.rs"]
mod memory;

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use maesh_proxy::instructions::{Part, parts};

use self::whole::WHOLE;

#[global_allocator]
static ALLOCATOR: allocator::Lists = allocator::Lists;

/// Steps before anything is counted: caches and tables have what they will have.
const WARM: usize = 200;
/// Steps that are counted.
const STEPS: usize = 2_000;

static COUNTED: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<()> {
    let all = [parts(), http2::PARTS.to_vec()].concat();
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        let names = all.iter().map(|part| part.name).chain(WHOLE.iter().map(|whole| whole.name));
        names.for_each(|name| println!("{name}"));
        return Ok(());
    };
    if let Some(whole) = WHOLE.iter().find(|whole| whole.name == name) {
        return whole.run(arguments.next().context("how often?")?.parse()?);
    }
    let part = all.iter().find(|part| part.name == name).with_context(|| format!("no part is called {name}"))?;
    let (steps, allocations) = run(part);
    println!("{steps} steps, {allocations} allocations");
    Ok(())
}

/// How many steps were counted, and how many allocations they made.
fn run(part: &Part) -> (u64, u64) {
    let mut step = (part.prepare)();
    for _ in 0..WARM {
        step(&mut |work| work());
    }
    let mut allocations = 0;
    for _ in 0..STEPS {
        step(&mut |work| {
            let before = allocator::allocations();
            counted_part(work);
            allocations += allocator::allocations() - before;
        });
    }
    (COUNTED.load(Ordering::Relaxed), allocations)
}

/// Callgrind counts while this runs, by its name.
#[inline(never)]
fn counted_part(work: &mut dyn FnMut()) {
    work();
    // Behind the call, so that it is a call and no jump: callgrind sees this function end.
    COUNTED.fetch_add(1, Ordering::Relaxed);
}
