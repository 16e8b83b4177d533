//! What every bench needs: programs held by their process id, their processor time and memory, rounds that alternate,
//! and tables of medians with their spread.
//!
//! A figure is only worth something beside another one taken in the same minutes on the same machine. So contenders
//! take turns, the order is turned around every round, and a table shows the spread together with the median.
#![allow(dead_code, unused_imports, reason = "benches arrive one by one; each uses its part")]

mod figure;
mod process;
mod rounds;
mod table;
mod usage;

pub(crate) use figure::Figure;
pub(crate) use maesh_test_support::until;
pub(crate) use process::{Log, Running, free_tcp_port, free_udp_port, pinned};
pub(crate) use rounds::{Contender, Rounds, Series, alternate};
pub(crate) use table::{Metric, machine, table};
pub(crate) use usage::{Usage, mebibytes, resident, tree};
