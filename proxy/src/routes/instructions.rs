//! Which of a thousand rules a request takes, for [`crate::instructions`].

use std::hint::black_box;

use http::HeaderMap;
use maesh_config::rule::{Rule, parse};

use super::{ReadFacts, RouteFacts, RouteIndex};
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
    Part {
        name: "rules: parameter among 1,000",
        prepare: || looking_up(|number| format!("Query(`team`, `{number}`)")),
    },
    Part {
        name: "rules: none of 1,000 cookies",
        prepare: || looking_up(|number| format!("Cookie(`team`, `{number}`)")),
    },
    Part {
        name: "rules: none of 1,000 fields",
        prepare: || looking_up(|number| format!("Header(`team`, `{number}`)")),
    },
    Part {
        name: "rules: none of 1,000 parameters, in a long query",
        prepare: || {
            let query = "x&".repeat(5_000);
            looking_up_with(|number| format!("Query(`x`, `{number}`)"), move |_| query.clone())
        },
    },
];

/// Requests for `/team-N/items?team=N`, with a rule for each of a thousand numbers.
fn looking_up(rule: fn(usize) -> String) -> Step {
    looking_up_with(rule, |number| format!("team={number}"))
}

/// The same with a query of its own.
fn looking_up_with(rule: fn(usize) -> String, query: impl Fn(usize) -> String + 'static) -> Step {
    let rules: Vec<Rule> = (0..1_000).map(|number| parse(&rule(number)).expect("a rule").rule).collect();
    let index = RouteIndex::new(rules.iter().map(Some)).unwrap_or_else(|number| panic!("rule {number}"));
    let (fields, mut step) = (HeaderMap::new(), 0);
    Box::new(move |counted| {
        step += 7;
        let number = step % 1_000;
        let (path, query) = (format!("/team-{number}/items"), query(number));
        counted(&mut || {
            let facts = RouteFacts {
                sent_host: Some(b"shop.example"),
                sent_path: &path,
                query: Some(&query),
                method: "GET",
                fields: &fields,
                caller: [10, 1, 0, 1].into(),
                every_line: false,
                read: ReadFacts::default(),
            };
            black_box(index.find(&facts));
        });
    })
}
