//! Where requests and connections go by what they are.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
};

use maesh_config::{
    model::{Protocol, Route},
    rule::{BadRule, Hint, MatcherKind, Rule, parse_until},
};

use super::{About, Annotation, Scope, Side, target::Target};
use crate::diagnostic::did_you_mean;

const LINES: &str = "lines such as PathPrefix(`/api`) => api:8080, or Header(`x-beta`, `1`) => web-next 1, web 9";

/// Stands between a rule and its targets.
const ARROW: &str = "=>";

/// Regular expressions of one annotation that are read: each costs the compiler a millisecond or more, and each request that no
/// other rule takes is held against all of them.
const EXPRESSIONS: usize = 64;

/// Targets of one line, and different ones of one annotation. A proxy asks for each of them.
const TARGETS: usize = 64;
const TARGETS_IN_ALL: usize = 512;

/// Size of the routes of all ports of a Service, in bytes of their rules and so much for each target.
const LARGEST: usize = 1 << 20;
const TARGET_SIZE: usize = 64;

/// Largest weight of a target.
const HEAVIEST: u32 = 1_000_000;

/// What stands in the annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WrittenRoutes {
    /// The lines that can be used, as they are written.
    pub(crate) lines: Vec<RouteLine>,
    /// The others.
    pub(crate) bad: Vec<BadLine>,
}

/// A line that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteLine {
    /// Its number, from 1.
    pub(crate) number: usize,
    pub(crate) rule: Rule,
    /// Bytes of the rule as it is written: the longest wins.
    pub(crate) length: usize,
    /// Each target with its weight.
    pub(crate) targets: Vec<(Target, u32)>,
    /// What is written in an old way.
    pub(crate) hints: Vec<Hint>,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Where it is wrong, counted in characters from 1.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) what: String,
    /// The line.
    pub(crate) text: String,
}

impl RouteLine {
    /// Whether a port of this protocol has what the rule asks for.
    pub(crate) fn fits(&self, protocol: Protocol) -> bool {
        let fits: fn(MatcherKind) -> bool = match protocol {
            Protocol::Http => MatcherKind::is_of_requests,
            Protocol::Tcp => MatcherKind::is_of_connections,
            Protocol::Udp => |kind| kind == MatcherKind::ClientIp,
        };
        self.rule.conditions().iter().all(|matcher| fits(matcher.kind()))
    }
}

/// Where requests and connections go. [`RoutesReader`] reads the lines.
pub(crate) static ROUTES: Annotation<()> = Annotation {
    about: About {
        name: "routes",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: LINES,
        default: "none",
        purpose: "Where requests and connections go by what they are. One route a line: a rule as Traefik's routers have them, \
                  `=>`, and backends, each with a weight (1 if not given). Of the rules that match, the longest one is \
                  used, the first one among equals; what matches no rule goes to the Service itself. Without a namespace a \
                  backend is of the same one; without a port it is the port of the same number. Ports that carry TCP take \
                  rules of HostSNI, HostSNIRegexp and ClientIP alone, those that carry UDP rules of ClientIP.",
        example: "PathPrefix(`/api`) => api:8080",
    },
    scope: Scope::Port(|port| match port.routes.len() {
        0 => "none".into(),
        1 => "1 route".into(),
        more => format!("{more} routes"),
    }),
    // A bad line alone is left out, so no text is bad as a whole.
    parse: |_| Ok(()),
    unsupported: |_| None,
};

/// Reads each annotation of one Service once, however many ports it is for: its expressions take milliseconds.
#[derive(Debug, Default)]
pub(crate) struct RoutesReader {
    known: RefCell<Vec<(String, Rc<WrittenRoutes>)>>,
    /// Size of the routes of all ports so far.
    size: Cell<usize>,
}

impl RoutesReader {
    /// What stands in the annotation.
    pub(crate) fn read(&self, text: &str) -> Rc<WrittenRoutes> {
        let mut known = self.known.borrow_mut();
        if let Some((_, routes)) = known.iter().find(|(of, _)| of == text) {
            return routes.clone();
        }
        let routes = Rc::new(read(text));
        known.push((text.to_owned(), routes.clone()));
        routes
    }

    /// Whether one more port may have these routes. What a proxy is told of a Service has to fit into one message.
    pub(crate) fn has_room<'r>(&self, routes: impl IntoIterator<Item = &'r Route>) -> bool {
        let rule = |route: &Route| route.rule.as_ref().map_or(0, |rule| rule.to_string().len());
        let size = routes.into_iter().map(|route| rule(route) + TARGET_SIZE * route.backends.len()).sum::<usize>();
        let all = self.size.get().saturating_add(size);
        let fits = all <= LARGEST;
        if fits {
            self.size.set(all);
        }
        fits
    }
}

/// Reads all lines. Empty ones, and those that begin with `#`, are skipped.
fn read(text: &str) -> WrittenRoutes {
    let mut routes = WrittenRoutes::default();
    let (mut expressions, mut targets) = (0, HashSet::new());
    // Some editors begin a text with a mark that nobody sees.
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let own = expressions_in(line);
        expressions += own;
        let read = match own > 0 && expressions > EXPRESSIONS {
            true => Err((1, format!("at most {EXPRESSIONS} regular expressions are read for one Service"))),
            false => route(line, number),
        };
        let read = read.and_then(|line| within(line, &mut targets));
        match read {
            Ok(line) => routes.lines.push(line),
            Err((column, what)) => routes.bad.push(BadLine { number, column, what, text: line.trim().to_owned() }),
        }
    }
    routes
}

/// The line, if the annotation may have its targets too, beside those of the lines before.
fn within(line: RouteLine, targets: &mut HashSet<Target>) -> Result<RouteLine, (usize, String)> {
    let new: HashSet<_> = line.targets.iter().map(|(target, _)| target).filter(|it| !targets.contains(*it)).collect();
    if targets.len() + new.len() > TARGETS_IN_ALL {
        return Err((1, format!("at most {TARGETS_IN_ALL} different backends are read for one Service")));
    }
    let new: Vec<Target> = new.into_iter().cloned().collect();
    targets.extend(new);
    Ok(line)
}

/// How many expressions a line may have: also those that version 2 writes in braces.
fn expressions_in(line: &str) -> usize {
    line.matches("Regexp").count() + line.matches('{').count()
}

fn route(line: &str, number: usize) -> Result<RouteLine, (usize, String)> {
    let parsed = parse_until(line, Some(ARROW)).map_err(explained)?;
    let after = parsed.bytes + ARROW.len();
    let length = line[..parsed.bytes].trim().len();
    Ok(RouteLine { number, rule: parsed.rule, length, targets: targets(line, after)?, hints: parsed.hints })
}

fn explained(bad: BadRule) -> (usize, String) {
    let names = MatcherKind::ALL.iter().map(|(_, name)| *name);
    let meant = bad.unknown.as_deref().and_then(|name| did_you_mean(name, names));
    let what = match meant {
        Some(meant) => format!("{} (did you mean {meant}?)", bad.what),
        None => bad.what,
    };
    (bad.column, what)
}

/// Reads `TARGET [WEIGHT], TARGET [WEIGHT]` from this byte of the line on.
fn targets(line: &str, mut at: usize) -> Result<Vec<(Target, u32)>, (usize, String)> {
    let column = |at: usize| line[..at].chars().count() + 1;
    let mut targets = Vec::new();
    for part in line[at..].split(',') {
        let from = at + (part.len() - part.trim_start().len());
        at += part.len() + 1;
        let (to, weight) = part.trim().split_once(char::is_whitespace).unwrap_or_else(|| (part.trim(), "1"));
        let weight = weight.trim();
        let target = Target::parse(to).ok_or_else(|| {
            let what = match to {
                "" => "expected a backend such as web.shop:8080".to_owned(),
                _ => format!("{to:?} is no backend; expected SERVICE, SERVICE.NAMESPACE, or either with :PORT"),
            };
            (column(from), what)
        })?;
        let is_number = weight.bytes().all(|byte| byte.is_ascii_digit());
        let weight = weight.parse().ok().filter(|weight| is_number && *weight <= HEAVIEST).ok_or_else(|| {
            let at = from + part.trim().len() - weight.len();
            (column(at), format!("{weight:?} is no weight; expected a number from 0 to {HEAVIEST}"))
        })?;
        if targets.len() == TARGETS {
            return Err((column(from), format!("at most {TARGETS} backends are read for one rule")));
        }
        targets.push((target, weight));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "\n# a comment\nHost(`a.example`) && PathPrefix(`/api`) => api.shop:8080 3,  api-next 1\n\nPath(`/a=>b`)=>web\n";
        let routes = read(text);
        assert_eq!(routes.bad, []);
        let shown: Vec<_> = routes
            .lines
            .iter()
            .map(|line| {
                let to = |(target, weight): &(Target, u32)| {
                    (target.service.clone(), target.namespace.clone(), target.port, *weight)
                };
                (line.number, line.rule.to_string(), line.length, line.targets.iter().map(to).collect::<Vec<_>>())
            })
            .collect();
        let api = ("api".to_owned(), Some("shop".to_owned()), Some(8080), 3);
        let next = ("api-next".to_owned(), None, None, 1);
        let want = [
            (3, "Host(`a.example`) && PathPrefix(`/api`)".to_owned(), 39, vec![api, next]),
            (5, "Path(`/a=>b`)".to_owned(), 13, vec![("web".to_owned(), None, None, 1)]),
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn a_bad_line_alone_is_left_out() {
        for (line, column, what) in [
            ("Path(`/a`)", 11, "expected &&, || or =>"),
            ("Path(`/a`) => ", 15, "expected a backend such as web.shop:8080"),
            ("Path(`/a`) => web,", 19, "expected a backend such as web.shop:8080"),
            (
                "Path(`/a`) => Web",
                15,
                "\"Web\" is no backend; expected SERVICE, SERVICE.NAMESPACE, or either with :PORT",
            ),
            ("Path(`/a`) => web x", 19, "\"x\" is no weight; expected a number from 0 to 1000000"),
            ("Path(`/ä`) => web -1", 19, "\"-1\" is no weight; expected a number from 0 to 1000000"),
            ("Path(`/a`) => web 1 2", 19, "\"1 2\" is no weight; expected a number from 0 to 1000000"),
            ("PathPrefx(`/a`) => web", 1, "PathPrefx is no matcher (did you mean PathPrefix?)"),
            ("Foo(`/a`) => web", 1, "Foo is no matcher"),
            ("=> web", 1, "expected a matcher such as Host(`shop.example`) or PathPrefix(`/api`)"),
        ] {
            let routes = read(&format!("Path(`/`) => one\n{line}\nPath(`/b`) => two"));
            assert_eq!(routes.lines.len(), 2, "{line}");
            let bad: Vec<_> = routes.bad.iter().map(|bad| (bad.number, bad.column, bad.what.as_str())).collect();
            assert_eq!(bad, [(2, column, what)], "{line}");
        }
    }

    #[test]
    fn expressions_are_bounded() {
        let lines: String = (0..70).map(|number| format!("PathRegexp(`^/{number}`) => web\n")).collect();
        let routes = read(&(lines + "Path(`/`) => web"));
        assert_eq!((routes.lines.len(), routes.bad.len()), (65, 6));
        assert_eq!(
            (routes.bad[0].number, &*routes.bad[0].what),
            (65, "at most 64 regular expressions are read for one Service")
        );
    }

    #[test]
    fn an_annotation_is_read_once_for_all_ports() {
        let reader = RoutesReader::default();
        let first = reader.read("PathRegexp(`^/`) => web");
        assert!(Rc::ptr_eq(&first, &reader.read("PathRegexp(`^/`) => web")));
        assert_eq!(reader.read("Path(`/`) => web").lines.len(), 1, "another annotation");
    }

    #[test]
    fn targets_are_bounded() {
        let list = |from: usize, count: usize| {
            (from..from + count).map(|number| format!("t{number}")).collect::<Vec<_>>().join(", ")
        };
        let routes = read(&format!("Path(`/a`) => {}\nPath(`/b`) => {}", list(0, 64), list(0, 65)));
        assert_eq!((routes.lines.len(), routes.bad.len()), (1, 1));
        assert_eq!((routes.bad[0].number, &*routes.bad[0].what), (2, "at most 64 backends are read for one rule"));
        let lines = (0..9).map(|line| format!("Path(`/{line}`) => {}\n", list(line * 64, 64))).collect::<String>();
        let routes = read(&(lines + "Path(`/again`) => t1, t2"));
        assert_eq!((routes.lines.len(), routes.bad.len()), (9, 1), "targets that are there already cost nothing");
        assert_eq!(&*routes.bad[0].what, "at most 512 different backends are read for one Service");
    }

    #[test]
    fn a_mark_that_nobody_sees_is_skipped() {
        assert_eq!(read("\u{feff}Path(`/`) => web\r\nPath(`/b`) => web\r\n").lines.len(), 2);
    }

    #[test]
    fn a_rule_fits_ports_that_have_what_it_asks_for() {
        for (rule, http, tcp) in [
            ("Path(`/`)", true, false),
            ("HostSNI(`a`)", false, true),
            ("ClientIP(`10.0.0.1`)", true, true),
            ("HostSNI(`a`) && Path(`/`)", false, false),
        ] {
            let line = route(&format!("{rule} => web"), 1).expect("a route");
            assert_eq!((line.fits(Protocol::Http), line.fits(Protocol::Tcp)), (http, tcp), "{rule}");
            assert_eq!(line.fits(Protocol::Udp), http && tcp, "{rule}");
        }
    }
}
