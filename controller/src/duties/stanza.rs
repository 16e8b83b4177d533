//! The stanza: the server block by which the cluster's DNS forwards the mesh's zones to ours.
//!
//! The text of a Corefile belongs to somebody else, and a mistake in it takes all names of the cluster away. So the
//! editor is pure (text in, text out), stands between marks, and undoes itself to the byte; what it does not understand
//! it leaves alone and says so.

mod cluster;
mod corefile;
mod edit;
mod guard;
mod leave;
mod lexer;
mod look;
mod own_lines;
mod place;
mod plan;
mod stubs;
mod writers;

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, net::IpAddr};

use maesh_config::Zone;

pub use self::{
    cluster::{Cluster, ClusterError, Mesh, Right, There},
    edit::{Facts, StanzaState, add, beside, facts, remove, state},
    guard::{Guard, Memory, Phase, Status, Times, answers, guard, looks, said},
    leave::{Leave, still_leading, take_out},
    look::{Answered, Look, ReloadWatch, Verdict, look},
    place::{MapName, Place, Software, Unplaced},
    plan::{Change, CorefileRef, FileState, Maps, Report, StanzaRefusal},
    stubs::{NotStubs, add_stubs, has_stubs, remove_stubs},
};

/// What stands in the first line that is ours. The rest of that line is for people, and may change.
const BEGIN: &str = "# maesh begin";
/// The last line that is ours.
const END: &str = "# maesh end";
/// Before each line of somebody else's block that must rest while ours is there, and is given back with its removal.
const KEPT: &str = "# maesh keeps: ";
/// Tells the mesh's dns who asks: the caller's address, set over whatever the caller claims.
const SUBNET: &str = "rewrite edns0 subnet set 32 128";

/// What the stanza says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// The mesh's zones.
    pub zones: Vec<Zone>,
    /// The port that the cluster's DNS listens on for the other zones.
    pub port: u16,
    /// The address of the Service of our dns.
    pub forward: IpAddr,
}

impl Stanza {
    /// The server block alone, as a person would write it: never `cache` (it knows nothing of client subnets), `loop`,
    /// `loadbalance`, `reload` (that is the whole file's) or `max_fails`.
    pub fn block(&self) -> String {
        let mut text = String::new();
        for zone in &self.zones {
            let _ = write!(text, "{}:{} ", zone.as_str(), self.port);
        }
        let _ = write!(text, "{{\n    errors\n    {SUBNET}\n    forward . {}\n}}\n", self.forward);
        text
    }

    /// The block between its marks.
    pub fn text(&self) -> String {
        format!(
            "{BEGIN}: changes up to the end mark are undone; `maesh dns uninstall` takes it out\n{}{END}\n",
            self.block()
        )
    }
}

/// Why a Corefile was left as it is. Whose fault it is: the file's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// CoreDNS would not start with it, either.
    #[error("line {line}: {what}; CoreDNS could not start with this. Mend it first")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The short form for a single block, beside which there can be no other.
    #[error("line {line}: a server block without braces has no room for another beside it. Put braces around it")]
    Unbraced {
        /// The line, from 1.
        line: usize,
    },
    /// A key that only the process of CoreDNS can know.
    #[error(
        "line {line}: the zone {key} is set by an environment variable, and could be one of the mesh's. Write the zone \
         itself, or add the stanza by hand"
    )]
    Environment {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// The zone is served by a block that is not ours; a second one would stop CoreDNS from starting.
    #[error(
        "line {line}: zone {zone} is served by a block that is not the mesh's. Remove that block, or keep it and \
             take the zone out of the mesh's (--zone)"
    )]
    Taken {
        /// The line of the block.
        line: usize,
        /// The zone.
        zone: String,
    },
    /// A person's stanza over TLS does not do what it should.
    #[error(
        "line {line}: the stanza there forwards over TLS, which the mesh never writes, and is not the only one, or not for \
         {wanted}. Correct it, or remove it: `maesh dns uninstall`"
    )]
    Tls {
        /// The line of the block.
        line: usize,
        /// The zones that it should be for, and the address that it should lead to.
        wanted: String,
    },
    /// Somebody wrote a block of their own between our marks.
    #[error("line {line}: a block that is not the mesh's stands between the mesh's marks. Move it out of them")]
    Between {
        /// The line of the block.
        line: usize,
    },
    /// One of our marks is missing, and what is left cannot be told from the rest.
    #[error("line {line}: a mark of the mesh without its counterpart. Remove what is left of the mesh's stanza there")]
    Half {
        /// The line of the mark.
        line: usize,
    },
    /// No block says on which port the cluster's DNS listens.
    #[error("no block for the zone \".\" says on which port the cluster's DNS listens. Add the stanza by hand")]
    NoPort,
    /// The result would not have been what was meant.
    #[error("the stanza could not be added so that it can be taken out again to the byte. Add it by hand")]
    Irreversible,
}
