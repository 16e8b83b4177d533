//! The cases, and which client cannot run one.

use super::clients::Client;

pub(super) struct Case {
    /// What the programs call it.
    pub(super) name: &'static str,
    pub(super) shows: &'static str,
    /// What a client that runs it sees.
    pub(super) want: &'static str,
}

const TEXT: &str = "grüße, 世界 🦀";

/// What servers and clients give as the reason of a close.
pub(super) const REASON: &str = "bye ü";

/// A message of 1 MiB that has become smaller than this was compressed.
pub(super) const COMPRESSED: u64 = 64 * 1024;

/// The codes of the cases on closing.
pub(super) const CODES: [u16; 4] = [1000, 1001, 3000, 4999];

const fn case(name: &'static str, shows: &'static str, want: &'static str) -> Case {
    Case { name, shows, want }
}

pub(super) const CASES: &[Case] = &[
    case("text", "a text with characters of one to four bytes comes back", TEXT),
    case("binary", "a binary message of all bytes comes back", "256 bytes"),
    case("empty", "an empty message comes back", "0 bytes"),
    case("large-text", "a text of 1 MiB comes back", "same"),
    case("large-binary", "a binary message of 1 MiB comes back", "same"),
    case("order", "200 messages, sent at once, come back in order", "200 in order"),
    case("first", "the server speaks first", "first"),
    case("subprotocol", "of two subprotocols offered, the one that the server knows is chosen", "two"),
    case("fragments-sent", "a text that the client sends in fragments, which end within characters", TEXT),
    case("fragments-received", "a text that the server sends in fragments, which end within characters", TEXT),
    case("ping-sent", "a ping of the client gets its pong", "pong are you there"),
    case("ping-received", "a ping of the server gets its pong", "pong are you there"),
    case("deflate", "permessage-deflate is negotiated, and 1 MiB comes back", "negotiated, same"),
    case("deflate-sent", "the proxy carries less than 64 KiB of it from the client", "compressed"),
    case("deflate-received", "the proxy carries less than 64 KiB of it from the server", "compressed"),
    case("refused", "the server refuses the handshake: status and body reach the client", "403 no entry"),
    case(
        "close-1000-sent",
        "the client closes with 1000 and a reason: both reach the server, its answer the client",
        "1000 bye ü",
    ),
    case("close-1001-sent", "the client closes with 1001 and a reason", "1001 bye ü"),
    case("close-3000-sent", "the client closes with 3000 and a reason", "3000 bye ü"),
    case("close-4999-sent", "the client closes with 4999 and a reason", "4999 bye ü"),
    case("close-1000-received", "the server closes with 1000 and a reason: both reach the client", "1000 bye ü"),
    case("close-1001-received", "the server closes with 1001 and a reason", "1001 bye ü"),
    case("close-3000-received", "the server closes with 3000 and a reason", "3000 bye ü"),
    case("close-4999-received", "the server closes with 4999 and a reason", "4999 bye ü"),
    case("dropped", "the server ends without a close: the client sees 1006", "1006"),
];

/// What clients cannot do.
pub(super) struct Limit {
    pub(super) clients: &'static [&'static str],
    pub(super) cases: &'static [&'static str],
    pub(super) why: &'static str,
}

pub(super) const LIMITS: &[Limit] = &[
    Limit {
        clients: &["undici", "chromium"],
        cases: &["fragments-sent", "ping-sent", "close-1001-sent", "refused"],
        why: "the WebSocket interface of browsers sends no fragments, no pings and no code 1001, and does not tell why a \
              handshake was refused",
    },
    Limit { clients: &["wsproto"], cases: &["fragments-sent"], why: "fragments of a text end with a character" },
    Limit { clients: &["undici"], cases: &["deflate-sent"], why: "it negotiates compression, and sends without it" },
];

/// Why this client cannot run this case, if it cannot.
pub(super) fn reason_against(client: &Client, case: &Case) -> Option<&'static Limit> {
    LIMITS.iter().find(|limit| limit.clients.contains(&client.name) && limit.cases.contains(&case.name))
}
