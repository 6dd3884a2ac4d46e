//! The control plane's API beside that of the last release: what clients of that one use must still be there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::collections::BTreeSet;

use modelway_e2e::{Modelway, Release, Role};
use reqwest::Method;
use serde_json::{Value, json};

const LAST_RELEASE: &str = "0.1.0";
/// Tags of paths that are not stable (`docs/stability.md`).
const UNSTABLE: [&str; 2] = ["routes", "strays"];

/// An API as its document says.
struct Api<'d>(&'d Value);

/// Which way a schema goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Clients send it.
    In,
    /// Clients read it.
    Out,
}

impl<'d> Api<'d> {
    /// The operations that are stable: `GET /path`, and what the document says of it.
    fn operations(&self) -> Vec<(String, &'d Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let all = paths.flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, of)| (format!("{} {path}", method.to_uppercase()), of))
        });
        all.filter(|(_, of)| !of["tags"].as_array().unwrap().iter().any(|tag| UNSTABLE.iter().any(|it| tag == it)))
            .collect()
    }

    fn operation(&self, name: &str) -> Option<&'d Value> {
        self.operations().into_iter().find_map(|(other, of)| (other == name).then_some(of))
    }

    /// A schema behind its references, with the name that it has.
    fn resolve(&self, schema: &'d Value) -> (&'d Value, Option<&'d str>) {
        let name = schema["$ref"].as_str().map(|it| it.rsplit('/').next().unwrap());
        (name.map_or(schema, |name| &self.0["components"]["schemas"][name]), name)
    }
}

/// Finds what has changed between two documents so that a client of the old one can fail.
struct Difference<'d> {
    old: Api<'d>,
    new: Api<'d>,
    seen: BTreeSet<(String, bool)>,
    found: Vec<String>,
}

impl<'d> Difference<'d> {
    fn between(old: &'d Value, new: &'d Value) -> Vec<String> {
        let mut difference = Self { old: Api(old), new: Api(new), seen: BTreeSet::new(), found: Vec::new() };
        for (name, was) in difference.old.operations() {
            match difference.new.operation(&name) {
                Some(is) => difference.operation(&name, was, is),
                None => difference.found.push(format!("{name} is gone")),
            }
        }
        difference.found
    }

    fn operation(&mut self, name: &str, was: &'d Value, is: &'d Value) {
        let parameters = |of: &'d Value| of["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let find = |all: &'d [Value], wanted: &Value| {
            all.iter().find(|it| (&it["name"], &it["in"]) == (&wanted["name"], &wanted["in"]))
        };
        for old in parameters(was) {
            let at = format!("{name}, parameter {}", old["name"]);
            match find(parameters(is), old) {
                Some(new) => self.schema(&at, &old["schema"], &new["schema"], Way::In),
                None => self.found.push(format!("{at} is gone")),
            }
        }
        for new in parameters(is).iter().filter(|new| new["required"] == true) {
            if find(parameters(was), new).is_none_or(|old| old["required"] != true) {
                self.found.push(format!("{name}, parameter {} is required now", new["name"]));
            }
        }
        self.bodies(&format!("{name}, body"), &was["requestBody"], &is["requestBody"], Way::In);
        if is["requestBody"]["required"] == true && was["requestBody"]["required"] != true {
            self.found.push(format!("{name} requires a body now"));
        }
        for (status, old) in was["responses"].as_object().unwrap() {
            match is["responses"].get(status) {
                Some(new) => self.bodies(&format!("{name}, answer {status}"), old, new, Way::Out),
                None => self.found.push(format!("{name} no longer answers {status}")),
            }
        }
    }

    fn bodies(&mut self, at: &str, was: &'d Value, is: &'d Value, way: Way) {
        for (kind, old) in was["content"].as_object().into_iter().flatten() {
            match is["content"].get(kind) {
                Some(new) => self.schema(at, &old["schema"], &new["schema"], way),
                None => self.found.push(format!("{at} is no longer {kind}")),
            }
        }
    }

    fn schema(&mut self, at: &str, was: &'d Value, is: &'d Value, way: Way) {
        let (was, name) = self.old.resolve(was);
        let (is, _) = self.new.resolve(is);
        if let Some(name) = name
            && !self.seen.insert((name.to_owned(), way == Way::In))
        {
            return;
        }
        let at = name.map_or_else(|| at.to_owned(), |name| format!("{at} ({name})"));
        self.types(&at, was, is, way);
        for (name, old) in was["properties"].as_object().into_iter().flatten() {
            match is["properties"].get(name) {
                Some(new) => self.schema(&format!("{at}, `{name}`"), old, new, way),
                None => self.found.push(format!("{at}, `{name}` is gone")),
            }
        }
        let required = |of: &Value, name: &Value| of["required"].as_array().is_some_and(|all| all.contains(name));
        let (from, to) = if way == Way::In { (is, was) } else { (was, is) };
        for name in from["required"].as_array().into_iter().flatten().filter(|name| !required(to, name)) {
            let how = if way == Way::In { "is required now" } else { "may be missing now" };
            self.found.push(format!("{at}, {name} {how}"));
        }
        for part in ["items", "additionalProperties"] {
            if was[part].is_object() {
                self.schema(&format!("{at}, {part}"), &was[part], &is[part], way);
            }
        }
        for several in ["allOf", "oneOf", "anyOf"] {
            let all = |of: &'d Value| of[several].as_array().map(Vec::as_slice).unwrap_or_default();
            if all(is).len() < all(was).len() {
                self.found.push(format!("{at}, {several} has fewer members"));
            }
            for (place, (old, new)) in all(was).iter().zip(all(is)).enumerate() {
                self.schema(&format!("{at}, {several} {place}"), old, new, way);
            }
        }
    }

    /// Types, enumerations and bounds.
    fn types(&mut self, at: &str, was: &Value, is: &Value, way: Way) {
        let types = |of: &Value| match of["type"].as_array() {
            Some(types) => types.clone(),
            None => of.get("type").into_iter().cloned().collect::<Vec<_>>(),
        };
        let (mut old, new) = (types(was), types(is));
        if at.contains("parameter") {
            // It is text, and cannot be null.
            old.retain(|it| *it != "null");
        }
        // Who sends may send all that was taken; who reads can read all that was told.
        let (all, within) = if way == Way::In { (&old, &new) } else { (&new, &old) };
        if !all.iter().all(|it| within.contains(it)) {
            self.found.push(format!("{at} was {} and is {}", json!(old), json!(new)));
        }
        let values = |of: &Value| of["enum"].as_array().cloned().unwrap_or_default();
        for value in values(was).iter().filter(|_| way == Way::In) {
            if !values(is).contains(value) {
                self.found.push(format!("{at} no longer takes {value}"));
            }
        }
        if way == Way::Out {
            return;
        }
        for (bound, narrower) in [("maximum", -1.0), ("maxLength", -1.0), ("minimum", 1.0), ("minLength", 1.0)] {
            let by = match (was[bound].as_f64(), is[bound].as_f64()) {
                (_, None) => 0.0,
                (None, Some(_)) => 1.0,
                (Some(was), Some(is)) => (is - was) * narrower,
            };
            if by > 0.0 {
                self.found.push(format!("{at}: {bound} was {} and is {}", was[bound], is[bound]));
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_the_last_release_finds_all_that_it_uses() {
    let mut modelway = Modelway::new();
    modelway.start(Role::Control).await;
    let new = modelway.ask(Method::GET, &modelway.control("/openapi.json"), Value::Null).await.body;
    let old: Value = serde_json::from_str(&Release::of(LAST_RELEASE).read("openapi.json", &modelway)).unwrap();
    assert_eq!(Difference::between(&old, &old), Vec::<String>::new());
    assert_eq!(Difference::between(&old, &new), Vec::<String>::new(), "see docs/stability.md");

    let changed = |pointer: &str, value: Value| {
        let mut changed = old.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        Difference::between(&old, &changed)
    };
    for (pointer, value) in [
        ("/paths/~1v1~1events", json!({})),
        ("/paths/~1v1~1modelDeployment/post/responses", json!({"201": {}})),
        ("/paths/~1v1~1modelDeployment/get/parameters", json!([])),
        ("/paths/~1v1~1modelDeployment/get/parameters/0/required", json!(true)),
        ("/components/schemas/DeploymentSpec/required", json!(["model", "name"])),
        ("/components/schemas/DeploymentSpec/properties/replicas/maximum", json!(10)),
        ("/components/schemas/DeploymentSpec/properties/idempotent/type", json!("string")),
        ("/components/schemas/DeploymentStatus/required", json!([])),
        ("/components/schemas/LogPayloads/enum", json!(["none"])),
        ("/components/schemas/Event/properties", json!({})),
    ] {
        assert!(!changed(pointer, value).is_empty(), "{pointer}");
    }
    let mut states = old["components"]["schemas"]["State"]["enum"].clone();
    states.as_array_mut().unwrap().push(json!("paused"));
    let more = changed("/components/schemas/State/enum", states);
    assert_eq!(more, Vec::<String>::new(), "a client ignores states that it does not know");
}
