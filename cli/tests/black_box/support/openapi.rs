//! The document of the status API, and how answers are held against it.

use std::collections::{BTreeMap, BTreeSet};

use maesh_test_support::repository;
use serde_json::{Value, json};

/// The committed document.
pub struct Document(pub Value);

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dev,
    /// Of manifests.
    Controller,
    /// Of a cluster.
    ClusterController,
    Dns,
    Proxy,
}

impl Kind {
    fn role(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Controller | Self::ClusterController => "controller",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
        }
    }
}

impl Document {
    pub fn read() -> Self {
        let text = std::fs::read_to_string(repository().join("docs/reference/status-api.yaml")).expect("the document");
        Self(serde_saphyr::from_str(&text).expect("YAML"))
    }

    /// The paths that such a process has.
    pub fn paths(&self, kind: Kind) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().expect("paths");
        let has = |operation: &Value| {
            let roles = operation["x-maesh-roles"].as_array().expect("roles");
            roles.iter().any(|role| role == kind.role())
                && (kind == Kind::ClusterController || operation["x-maesh-cluster"] != true)
        };
        paths.iter().filter(|(_, path)| has(&path["get"])).map(|(name, _)| name.clone()).collect()
    }

    /// What is wrong with an answer of `path`; nothing if it is as the document says.
    pub fn errors(&self, path: &str, method: &str, answer: &Value) -> Vec<String> {
        let content = &self.0["paths"][path][method]["responses"]["200"]["content"];
        let schema = content["application/json"]["schema"]["$ref"].as_str();
        let schema = schema.unwrap_or_else(|| panic!("{method} {path} has no schema of JSON"));
        let root = json!({ "$ref": schema, "components": self.0["components"] });
        let validator = jsonschema::draft202012::new(&root).unwrap_or_else(|error| panic!("{path}: {error}"));
        validator.iter_errors(answer).map(|error| format!("{path} at {}: {error}", error.instance_path())).collect()
    }

    /// Holds an answer against its schema; and the schema against answers that lack a field or have one more.
    pub fn check(&self, path: &str, answer: &Value) {
        let errors = self.errors(path, "get", answer);
        assert!(errors.is_empty(), "{errors:#?}\n{answer:#}");
        if path == "/api/openapi.json" {
            return;
        }
        let fields = answer.as_object().expect("an object");
        for (bad, what) in without_each(fields).into_iter().chain([(with_another(fields), "one more field".to_owned())])
        {
            assert!(!self.errors(path, "get", &bad).is_empty(), "{path}: an answer with {what} is taken");
        }
    }
}

/// Copies that lack one field each, of those that are not left out where there is nothing to say.
fn without_each(fields: &serde_json::Map<String, Value>) -> Vec<(Value, String)> {
    let optional = ["next", "accessControl", "account"];
    let names = fields.keys().filter(|name| !optional.contains(&name.as_str()));
    let without = |name: &String| {
        let mut fields = fields.clone();
        fields.remove(name);
        (Value::Object(fields), format!("no {name}"))
    };
    names.map(without).collect()
}

fn with_another(fields: &serde_json::Map<String, Value>) -> Value {
    let mut fields = fields.clone();
    fields.insert("surprise".to_owned(), Value::Null);
    Value::Object(fields)
}

/// Which schemas hold at least one of the values that were seen, by the names of their fields: what a test has looked at.
pub fn seen_shapes(answers: &BTreeMap<String, Vec<Value>>) -> BTreeSet<String> {
    let mut shapes = BTreeSet::new();
    let mut rest: Vec<&Value> = answers.values().flatten().collect();
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(fields) => {
                shapes.extend(fields.keys().cloned());
                rest.extend(fields.values());
            }
            Value::Array(items) => rest.extend(items),
            _ => {}
        }
    }
    shapes
}
