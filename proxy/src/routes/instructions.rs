//! Which of a thousand rules a request takes, for [`crate::instructions`].

use std::{cell::OnceCell, hint::black_box};

use http::HeaderMap;
use maesh_config::rule::{Rule, parse};

use super::{RouteFacts, RouteIndex};
use crate::instructions::{Part, Step};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "rules: path among 1,000", prepare: || looking_up(|number| format!("Path(`/team-{number}/items`)")) },
    Part {
        name: "rules: prefix among 1,000",
        prepare: || looking_up(|number| format!("PathPrefix(`/team-{number}/`)")),
    },
    Part {
        name: "rules: host and prefix among 1,000",
        prepare: || looking_up(|number| format!("Host(`shop.example`) && PathPrefix(`/team-{number}/`)")),
    },
    Part {
        name: "rules: none of 1,000 prefixes",
        prepare: || looking_up(|number| format!("PathPrefix(`/other-{number}/`)")),
    },
];

/// Requests for `/team-N/items`, with a rule for each of a thousand numbers.
fn looking_up(rule: fn(usize) -> String) -> Step {
    let rules: Vec<Rule> = (0..1_000).map(|number| parse(&rule(number)).expect("a rule").rule).collect();
    let index = RouteIndex::new(rules.iter().map(Some)).unwrap_or_else(|number| panic!("rule {number}"));
    let (fields, mut step) = (HeaderMap::new(), 0);
    Box::new(move |counted| {
        step += 7;
        let path = format!("/team-{}/items", step % 1_000);
        counted(&mut || {
            let facts = RouteFacts {
                host: "shop.example",
                sent_path: &path,
                query: None,
                method: "GET",
                fields: &fields,
                caller: [10, 1, 0, 1].into(),
                path: OnceCell::new(),
            };
            black_box(index.find(&facts));
        });
    })
}
