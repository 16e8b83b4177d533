//! How a role consumes the discovery stream, whatever carries it: a connection to the controller, the state kept on
//! disk, or a test.
//!
//! A role owns one [`Updates`] receiver, applies each [`Update`] and answers it. It says what it needs on demand through
//! its [`Interest`], and how it is through [`Report`].

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use maesh_config::{Kind, NodeName, Resource};

/// Receives updates, in order, one kind at a time.
pub type Updates = mpsc::Receiver<Update>;

/// A batch of one kind.
#[derive(Debug)]
pub struct Update {
    /// The kind of everything in it.
    pub kind: Kind,
    /// New or changed resources.
    pub upserts: Vec<Arc<Resource>>,
    /// Names of resources that are gone, or that were asked for and do not exist.
    pub removed: Vec<Arc<str>>,
    /// With this update everything subscribed of this kind has been delivered at least once.
    pub complete: bool,
    /// To be answered once the update is in force.
    pub ack: Ack,
}

/// The answer owed for one [`Update`]. Dropping it unanswered accepts everything.
#[derive(Debug)]
pub struct Ack(Option<oneshot::Sender<Vec<Rejected>>>);

/// A resource that could not be put in force; its last good version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Name of the resource.
    pub name: Arc<str>,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Ack {
    /// An answer and the receiver that awaits it.
    pub fn new() -> (Self, oneshot::Receiver<Vec<Rejected>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Nobody waits for this answer (state from disk, tests).
    pub fn unheard() -> Self {
        Self(None)
    }

    /// Everything but `rejected` is in force.
    pub fn answer(mut self, rejected: Vec<Rejected>) {
        if let Some(sender) = self.0.take() {
            // The stream may have ended meanwhile; the next one starts over.
            let _ = sender.send(rejected);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(Vec::new());
        }
    }
}

/// A request to get, or to get no longer, one resource of a kind that is subscribed on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Deliver this resource, now and whenever it changes; [`Update::removed`] if there is none.
    Subscribe(Kind, Arc<str>),
    /// Deliver it no longer.
    Unsubscribe(Kind, Arc<str>),
    /// Deliver this resource once more. It was rejected, and would be accepted now.
    Again(Kind, Arc<str>),
}

/// Says what is needed on demand.
#[derive(Clone, Debug)]
pub struct Interest(mpsc::UnboundedSender<Demand>);

impl Interest {
    /// A handle, and what it says.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Demand>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Asks for one resource. Asking twice is the same as once.
    pub fn subscribe(&self, kind: Kind, name: Arc<str>) {
        // A closed channel means that the role is ending.
        let _ = self.0.send(Demand::Subscribe(kind, name));
    }

    /// Lets go of one resource.
    pub fn unsubscribe(&self, kind: Kind, name: Arc<str>) {
        let _ = self.0.send(Demand::Unsubscribe(kind, name));
    }

    /// Asks for a resource that was rejected once more, of any kind, because it would be accepted now.
    pub fn again(&self, kind: Kind, name: Arc<str>) {
        let _ = self.0.send(Demand::Again(kind, name));
    }
}

/// Which process subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it does in the mesh.
    pub role: Role,
    /// Stable name: the pod's name.
    pub id: Arc<str>,
    /// Node it runs on.
    pub node: Option<NodeName>,
    /// Addresses at which callers reach it (a proxy's).
    pub addresses: Vec<IpAddr>,
    /// Version of the program.
    pub version: Arc<str>,
}

/// The roles that subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers names.
    Dns,
    /// Carries requests.
    Proxy,
}

/// What a subscriber says of itself while it is connected: whether it takes new work.
pub type Report = watch::Sender<bool>;

/// Whether the stream to the controller is up.
pub type Connected = watch::Receiver<bool>;
