//! What each reason means, for the reference and for programs that show findings.

use super::Reason;

impl Reason {
    /// Every reason, in the order of the reference.
    pub const ALL: [Self; 26] = [
        Self::InvalidAnnotation,
        Self::UnknownAnnotation,
        Self::UnsupportedAnnotation,
        Self::InvalidPort,
        Self::InvalidAddress,
        Self::ForbiddenEndpoint,
        Self::InvalidObject,
        Self::UnsupportedProtocol,
        Self::UnsupportedService,
        Self::Shadowed,
        Self::SplitNotUsed,
        Self::SplitBackend,
        Self::NothingGranted,
        Self::EverythingGranted,
        Self::HeadlessPortDiffers,
        Self::ListenFailed,
        Self::TooManyPorts,
        Self::ListenPortExhausted,
        Self::AddressRangeExhausted,
        Self::OwnAddressRefused,
        Self::WatchFailed,
        Self::UnreadableFile,
        Self::UnparsableFile,
        Self::OnlyComments,
        Self::DuplicateObject,
        Self::UnknownKind,
    ];

    /// What it means, in Markdown. A new reason does not compile until it is here, and then it belongs into
    /// [`Self::ALL`].
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UnreadableFile => "`maesh dev` and `maesh analyze`: a file or folder cannot be read.",
            Self::UnparsableFile => {
                "`maesh dev` and `maesh analyze`: a file is not YAML or JSON. In `maesh dev` also: it became empty. What it said \
                 before stays in force there."
            }
            Self::OnlyComments => "`maesh dev`: a file holds only comments; the objects that it held are removed.",
            Self::InvalidObject => {
                "A field that is required is missing, or a field has a value that it cannot have: the object is left out, or \
                 what the field says."
            }
            Self::DuplicateObject => "`maesh dev` and `maesh analyze`: the same object is written twice.",
            Self::UnknownKind => "`maesh dev` and `maesh analyze`: the mesh does not read objects of this kind.",
            Self::InvalidAnnotation => "An annotation has a value that it cannot have; the default is used.",
            Self::UnknownAnnotation => {
                "No annotation has this name, the Service has no such port, or the annotation has no effect on a Namespace; it \
                 is ignored."
            }
            Self::UnsupportedAnnotation => "This version of the mesh does not support the annotation or its value.",
            Self::InvalidPort => {
                "A port number is out of range, or there twice; or an EndpointSlice has a port that its Service does not have."
            }
            Self::Shadowed => {
                "A TrafficSplit is not used: an older one takes all traffic of the Service, or the Service has the annotation \
                 `routes` for the ports that the Event names. On other ports the split is used."
            }
            Self::SplitNotUsed => {
                "A TrafficSplit is not used: its Service or an HTTPRouteGroup is missing, or it matches nothing."
            }
            Self::SplitBackend => {
                "A backend of a TrafficSplit is missing or lacks a port, or no backend has a weight above 0. Or a backend is the \
                 Service itself: that is allowed, and its share goes to its own endpoints."
            }
            Self::NothingGranted => {
                "A TrafficTarget, or a part of it, admits nothing: what it names is missing, there are too many, or access control is \
                 off."
            }
            Self::EverythingGranted => {
                "A TrafficTarget of v1alpha1 or v1alpha2 names no rule, so it admits every request and connection of its sources, as \
                 these versions define it. Or it names a match of an HTTPRouteGroup that has a name and no condition."
            }
            Self::UnsupportedProtocol => "The mesh does not carry this transport protocol.",
            Self::UnsupportedService => "An annotation asks for a Service to be meshed whose type cannot be.",
            Self::InvalidAddress => "An address is malformed, or of a kind that the mesh does not use.",
            Self::ForbiddenEndpoint => {
                "An endpoint is an address that the mesh never dials, such as the mesh itself, loopback, or a range of \
                 `--deny-endpoint-cidr`; it is left out."
            }
            Self::TooManyPorts => {
                "The Services of a namespace need more ports of the proxies than one namespace may have \
                 (`--ports-per-namespace`); the Services beyond that resolve to ClusterIPs."
            }
            Self::HeadlessPortDiffers => {
                "A headless Service has a port that differs from its target port: callers that go around the mesh cannot reach \
                 it on that port."
            }
            Self::AddressRangeExhausted => "The range of own addresses (`--address-range`) is used up.",
            Self::OwnAddressRefused => {
                "The API server refuses the Service `maesh-own-N` that would be an own address, or somebody else's object has its \
                 name; the names on it resolve to ClusterIPs."
            }
            Self::ListenPortExhausted => "`maesh dev`: no port is left to listen on instead of one below 1024.",
            Self::ListenFailed => "A proxy cannot listen on a port.",
            Self::WatchFailed => "The Kubernetes API refuses or lacks something that the controller has to watch.",
        }
    }
}
