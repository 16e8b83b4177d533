//! HTTPRouteGroups: what requests can be, by name.

use std::sync::Arc;

use maesh_config::rule::{Matcher, Regexp, Rule, parse_checked};
use serde_json::Value;

use super::{only, spec};
use crate::kinds::{
    BadField, Meta, Names, Object, ObjectKind, ReadContext, Registration,
    read::{BadValues, Fields},
};

/// Matches of one group that are read: each may have an expression, and each request is held against it.
const MOST_MATCHES: usize = 64;

/// Expressions of one group that are read: each takes some time to be made ready, here and in every proxy.
const MOST_EXPRESSIONS: usize = 256;

/// What is kept of an HTTPRouteGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteGroup {
    /// Metadata.
    pub meta: Meta,
    /// Its matches; a request has to be one of them.
    pub matches: Box<[HttpRouteMatch]>,
}

/// What a request has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteMatch {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Path, method and headers; `None` where it asks for none of them, so that every request is one.
    pub rule: Option<Rule>,
    /// Bytes of the rule as it is written to proxies.
    pub size: u16,
    /// Expressions in it.
    pub expressions: u16,
    /// Nothing is written but its name, so every request is one.
    pub is_bare: bool,
}

impl HttpRouteGroup {
    pub(in crate::kinds) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::HttpRouteGroup,
        group: "specs.smi-spec.io",
        name: "HTTPRouteGroup",
        plural: "httproutegroups",
        versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
        namespaced: true,
        always_served: false,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::HttpRouteGroup),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = spec(value)?;
        if bad.keep(only(value, &spec, &["matches"]), "no request counts as a match of the group").is_none() {
            return Ok(Self { meta, matches: Box::default() });
        }
        let listed = spec.list("matches")?;
        let (mut matches, mut expressions) = (Vec::new(), 0);
        for (index, one) in listed.iter().take(MOST_MATCHES).enumerate() {
            let path = format!("{}[{index}]", spec.path("matches"));
            let read = HttpRouteMatch::read(&path, one, MOST_EXPRESSIONS - expressions, door);
            let read = bad.keep(read, "no request counts as a match of it");
            expressions += read.as_ref().map_or(0, |one| usize::from(one.expressions));
            matches.extend(read);
        }
        if listed.len() > MOST_MATCHES {
            let many = BadField::new(spec.path("matches"), format!("has {} entries", listed.len()));
            bad.push(many.instead("the first 64 are read", "the first 64"));
        }
        if matches.len() < listed.len() || matches.iter().any(|one: &HttpRouteMatch| one.name.is_empty()) {
            leave_out_bare(&mut matches, &spec.path("matches"), bad);
        }
        Ok(Self { meta, matches: matches.into_boxed_slice() })
    }
}

/// Leaves out matches that have only a name, in a group with a match that has none or cannot be used: its conditions may have been
/// meant for them. One `-` too many is enough for that.
fn leave_out_bare(matches: &mut Vec<HttpRouteMatch>, path: &str, bad: &mut BadValues) {
    for one in matches.extract_if(.., |one| one.is_bare) {
        let text = format!(
            "has the match {:?} without any condition, beside one without a name or one that cannot be used",
            &*one.name
        );
        let odd = BadField::new(path, text).instead("no request counts as a match of it", "nothing");
        bad.push(BadField { fix: "Put its conditions into the same entry of the list.".into(), ..odd });
    }
}

/// What a match may ask for.
const CONDITIONS: [&str; 3] = ["pathRegex", "methods", "headers"];

impl HttpRouteMatch {
    /// Reads a match of which `most` expressions are left to be read.
    fn read(path: &str, value: &Value, most: usize, door: &ReadContext) -> Result<Self, BadField> {
        let fields = Fields::of(value, &path)?;
        fields.only(&["name", "pathRegex", "methods", "headers"])?;
        for condition in CONDITIONS {
            fields.not_empty(condition)?;
        }
        if expressions_in(&fields) > most {
            let text = format!("has more regular expressions than are read: {MOST_EXPRESSIONS} in one group");
            return Err(BadField::new(path, text));
        }
        let mut parts = Vec::new();
        parts.extend(methods(&fields)?);
        parts.extend(path_of(&fields)?);
        parts.extend(headers(&fields)?);
        let rule = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Rule::All(parts)),
        };
        // It is written to proxies as a text, and what is longer is not read there.
        let written = rule.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(Err(bad)) = rule.as_ref().map(|_| parse_checked(&written)) {
            return Err(BadField::new(path, format!("cannot be told to proxies as a rule: {}", bad.what)));
        }
        let conditions = rule.as_ref().map(Rule::conditions).unwrap_or_default();
        let expressions = conditions.iter().filter(|matcher| matcher.has_expression()).count();
        Ok(Self {
            name: door.interner.get(fields.text("name")?.unwrap_or_default()),
            size: u16::try_from(written.len()).unwrap_or(u16::MAX),
            expressions: u16::try_from(expressions).unwrap_or(u16::MAX),
            is_bare: CONDITIONS.iter().all(|condition| fields.get(condition).is_none()),
            rule,
        })
    }
}

/// How many expressions a match has, before any is made ready.
fn expressions_in(fields: &Fields<'_>) -> usize {
    let of_map = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
    let headers = match fields.get("headers") {
        Some(Value::Array(list)) => list.iter().map(of_map).sum(),
        one => one.map_or(0, of_map),
    };
    headers + usize::from(fields.get("pathRegex").is_some())
}

/// One of the methods; `*`, or none at all, is every method.
fn methods(fields: &Fields<'_>) -> Result<Option<Rule>, BadField> {
    let texts = fields.texts("methods")?;
    if texts.is_empty() || texts.contains(&"*") {
        return Ok(None);
    }
    let mut methods = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !is_method {
            return Err(BadField::text(format!("{}[{index}]", fields.path("methods")), text, "a method such as GET"));
        }
        methods.push(Rule::Is(Matcher::Method((*text).into())));
    }
    Ok(Some(if methods.len() == 1 { methods.remove(0) } else { Rule::Any(methods) }))
}

/// The path, which begins as the expression says. One that begins with neither `/` nor `^` is also tried behind the first `/`.
fn path_of(fields: &Fields<'_>) -> Result<Option<Rule>, BadField> {
    let Some(text) = fields.text("pathRegex")? else { return Ok(None) };
    // By itself first, so that parentheses that are not closed do not close ours.
    expression(fields, "pathRegex", text)?;
    let anchored = if text.starts_with(['/', '^']) { format!("^(?:{text})") } else { format!("^/?(?:{text})") };
    Ok(Some(Rule::Is(Matcher::PathRegexp(expression(fields, "pathRegex", &anchored)?))))
}

/// All of the headers: a map, or a list of maps.
fn headers(fields: &Fields<'_>) -> Result<Vec<Rule>, BadField> {
    let path = fields.path("headers");
    let maps = match fields.get("headers") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    let mut rules = Vec::new();
    for map in maps {
        let Value::Object(pairs) = map else {
            return Err(BadField::wrong(&path, map, "a map of names and expressions"));
        };
        if pairs.is_empty() {
            return Err(BadField::empty(&path));
        }
        for (name, value) in pairs {
            let path = format!("{path}[{name}]");
            let Value::String(text) = value else { return Err(BadField::wrong(&path, value, "a string")) };
            let expression = Regexp::new(text).map_err(|why| bad_expression(&path, text, &why))?;
            rules.push(Rule::Is(match name.to_ascii_lowercase().as_str() {
                "host" | ":authority" => Matcher::HostRegexp(expression),
                name => Matcher::HeaderRegexp(name.into(), expression),
            }));
        }
    }
    Ok(rules)
}

fn expression(fields: &Fields<'_>, key: &str, text: &str) -> Result<Regexp, BadField> {
    Regexp::new(text).map_err(|why| bad_expression(&fields.path(key), text, &why))
}

fn bad_expression(path: &str, text: &str, why: &str) -> BadField {
    BadField::text(path, text, &format!("a regular expression: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(matches: &Value) -> (Vec<(String, String)>, Vec<String>) {
        let value = json!({"metadata": {"name": "g"}, "spec": {"matches": matches}});
        let read = HttpRouteGroup::REGISTRATION.read(&value, &ReadContext::default());
        let (Object::HttpRouteGroup(group), bad) = read.expect("a group") else { panic!("another kind") };
        let shown = |one: &HttpRouteMatch| {
            (one.name.to_string(), one.rule.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string))
        };
        (group.matches.iter().map(shown).collect(), bad.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_match_is_a_rule() {
        for (one, want) in [
            (json!({"name": "all"}), "any"),
            (json!({"methods": ["GET"], "pathRegex": "/api"}), "Method(`GET`) && PathRegexp(`^(?:/api)`)"),
            (json!({"methods": ["GET", "*"]}), "any"),
            (json!({"methods": ["GET", "HEAD"]}), "Method(`GET`) || Method(`HEAD`)"),
            (json!({"pathRegex": "metrics"}), "PathRegexp(`^/?(?:metrics)`)"),
            (json!({"pathRegex": "^/a$"}), "PathRegexp(`^(?:^/a$)`)"),
            (json!({"headers": {"X-A": "1", "x-b": "2"}}), "HeaderRegexp(`x-a`, `1`) && HeaderRegexp(`x-b`, `2`)"),
            (json!({"headers": [{"X-A": "1"}, {"x-b": "2"}]}), "HeaderRegexp(`x-a`, `1`) && HeaderRegexp(`x-b`, `2`)"),
            (json!({"headers": {"host": "^b\\."}}), "HostRegexp(`^b\\.`)"),
        ] {
            let (matches, bad) = group(&json!([one]));
            assert_eq!((matches[0].1.as_str(), bad), (want, vec![]), "{one}");
        }
    }

    #[test]
    fn a_group_has_no_more_expressions_than_are_read() {
        let headers =
            |count: usize| (0..count).map(|i| (format!("x-{i}"), json!("a"))).collect::<serde_json::Map<_, _>>();
        let (matches, bad) = group(&json!([
            {"name": "half", "headers": headers(128), "methods": ["GET"]},
            {"name": "but-one", "headers": headers(127)},
            {"name": "two", "pathRegex": "/a", "headers": {"x": "1"}},
            {"name": "one", "pathRegex": "/a"},
            {"name": "none", "methods": ["PUT"]},
        ]));
        let names: Vec<_> = matches.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, bad.len()), (vec!["half", "but-one", "one", "none"], 1), "{bad:?}");
        assert!(bad[0].contains("more regular expressions than are read: 256 in one group"), "{bad:?}");
    }

    #[test]
    fn a_bad_match_alone_is_left_out() {
        for one in [
            json!({"pathRegex": "("}),
            json!({"pathRegex": "a)(b"}),
            json!({"headers": {"x": "["}}),
            json!({"headers": "x"}),
            json!({"methods": ["get it"]}),
            json!({"headers": {"x y": "1"}}),
            json!({"pathRegex": "/".repeat(5000)}),
            json!("all"),
        ] {
            let (matches, bad) = group(&json!([{"name": "good", "methods": ["GET"]}, one]));
            assert_eq!((matches.len(), bad.len()), (1, 1), "{one}: {bad:?}");
        }
    }

    /// A blank value is what is left of a template whose value is missing. It must not open what it was to restrict.
    #[test]
    fn a_blank_condition_is_none() {
        for one in [
            json!({"name": "a", "pathRegex": ""}),
            json!({"name": "a", "pathRegex": null}),
            json!({"name": "a", "pathRegex": "/a", "methods": []}),
            json!({"name": "a", "pathRegex": "/a", "methods": null}),
            json!({"name": "a", "headers": {}}),
            json!({"name": "a", "headers": []}),
            json!({"name": "a", "headers": [{}]}),
            json!({"name": "a", "headers": null}),
        ] {
            let (matches, bad) = group(&json!([one]));
            assert!(matches.is_empty() && bad[0].contains("is empty"), "{one}: {bad:?}");
        }
    }

    /// Conditions that are not where they belong are no reason to take every request.
    #[test]
    fn a_condition_in_the_wrong_place_opens_nothing() {
        for matches in [
            json!([{"name": "read"}, {"pathRegex": "/ok", "methods": ["GET"]}]),
            json!([{"name": "read"}, {"name": "b", "pathRegex": "("}]),
        ] {
            let (read, bad) = group(&matches);
            assert!(read.iter().all(|(name, _)| name != "read"), "{matches}");
            assert!(bad.iter().any(|it| it.contains("the match \"read\" without any condition")), "{bad:?}");
        }
        for (value, says) in [
            (json!({"spec": {"matches": [{"name": "read"}], "pathRegex": "/ok"}}), "spec.pathRegex is no field"),
            (json!({"spec": {"matches": [{"name": "read"}]}, "methods": ["GET"]}), "methods is no field"),
            (json!({"spec": {"matches": [{"name": "read"}]}, "matches": []}), "matches stands beside spec"),
            (json!({"matches": [{"name": "read"}], "pathRegex": "/ok"}), "pathRegex is no field"),
            (
                json!({"metadata": {"name": "g", "pathRegex": "/ok"}, "spec": {"matches": [{"name": "read"}]}}),
                "metadata.pathRegex stands under metadata",
            ),
        ] {
            let mut value = value;
            if value["metadata"].is_null() {
                value["metadata"] = json!({"name": "g"});
            }
            let read = HttpRouteGroup::REGISTRATION.read(&value, &ReadContext::default());
            let (Object::HttpRouteGroup(group), bad) = read.expect("a group") else { panic!("another kind") };
            let said = bad[0].to_string();
            assert!(group.matches.is_empty(), "{value}");
            assert!(said.starts_with(says) && said.contains("no request counts as a match of the group"), "{said}");
        }
    }
}
