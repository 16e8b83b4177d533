//! A node that is switched off, as far as others can tell: packets to it and from it vanish.

use anyhow::Result;
use maesh_test_support::program;

use crate::command::checked;
use crate::node::inside;

/// Nothing is refused or answered: an address that others know stays known, as that of a machine behind a router does.
const VANISH: &str = "add table ip cut_off;
add chain ip cut_off from { type filter hook prerouting priority -400; };
add rule ip cut_off from iifname eth0 drop;
add chain ip cut_off to { type filter hook postrouting priority 400; };
add rule ip cut_off to oifname eth0 drop";

/// A node of our cluster that nobody reaches over IPv4. Dropped, it is reached again.
#[derive(Debug)]
pub struct CutOff {
    node: String,
}

impl CutOff {
    /// Cuts `node` off. What runs there runs on, and neither hears nor is heard.
    ///
    /// # Errors
    /// When there is no such node, or nft refuses.
    pub fn new(node: &str) -> Result<Self> {
        nft(node, VANISH)?;
        Ok(Self { node: node.to_owned() })
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.node, "delete table ip cut_off") {
            eprintln!("node {} stays cut off: {error:#}", self.node);
        }
    }
}

fn nft(node: &str, rules: &str) -> Result<()> {
    let nft = program("nft").unwrap_or_else(|| "nft".into());
    checked(inside(node, nft)?.arg(rules)).map(drop)
}
