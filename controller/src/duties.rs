//! What the leader writes to the cluster: own addresses, the stanza in the cluster's DNS, Events, and the way back from all
//! of that. Every write needs the leadership.

pub mod addresses;
pub mod events;
pub mod owner;
pub mod stanza;
pub mod uninstall;
