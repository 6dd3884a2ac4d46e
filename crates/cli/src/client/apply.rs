//! `apply`: deployments as a YAML file says.
//!
//! First everything is read and checked, and all faults of all documents are reported at once; only then is
//! anything changed. A document that says what holds already changes nothing.

use std::{collections::BTreeMap, io::Read as _, path::Path, time::Instant};

use api::{Deployment, DeploymentSpec, Fault};
use reqwest::Method;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    Config,
    http::{Control, DEPLOYMENTS, Found, found},
    source, view,
    wait::until_serving,
};
use crate::{
    args,
    exit::Failure,
    output::{Format, print, show, tell, yaml},
};

/// The most that is read from standard input or a file, in bytes.
const MANIFEST_BYTES: u64 = 16 << 20;

/// One document of the file.
#[derive(Debug, PartialEq)]
struct Document {
    number: usize,
    name: String,
    spec: DeploymentSpec,
}

/// What is to be done for a document.
struct Step {
    document: Document,
    present: Option<Found>,
}

impl Step {
    fn is_change(&self) -> bool {
        self.present.as_ref().is_none_or(|present| present.deployment.spec != self.document.spec)
    }
}

/// Makes deployments as a file says.
///
/// # Errors
/// Every fault of every document; the control plane's refusal; with `--wait`, what [`until_serving`] says.
pub async fn apply(config: &Config, args: &args::Apply) -> Result<(), Failure> {
    let (text, folder) = read(&args.file)?;
    let documents = documents(&text, &folder).map_err(|faults| refusal(&args.file, &faults))?;
    let control = Control::new(config)?;
    let mut steps = Vec::new();
    for document in documents {
        let present = control.by_name(&document.name).await?;
        steps.push(Step { document, present });
    }
    if args.dry_run {
        return steps.iter().try_for_each(|step| print(dry_run(step, &args.file)?));
    }
    let mut applied = Vec::new();
    for step in steps {
        let verb = match (step.is_change(), &step.present) {
            (false, _) => "is unchanged",
            (true, Some(_)) => "is changed",
            (true, None) => "is created",
        };
        let now = write(&control, step).await?;
        if args.output.output == Format::Table {
            print(format!("{} {verb}\n", view::who(&now.deployment)))?;
        }
        applied.push(now);
    }
    if args.wait {
        let end = Instant::now() + args.patience.wait_timeout;
        for one in &mut applied {
            let patience = end.saturating_duration_since(Instant::now());
            let (id, revision) = (one.deployment.id, one.deployment.revision);
            *one = until_serving(&control, config, id, revision, patience).await?;
            tell(format!("{} is {}", view::who(&one.deployment), one.deployment.status.state));
        }
    }
    let items: Vec<_> = applied.into_iter().map(|one| one.raw).collect();
    show(args.output.output, &serde_json::json!({"items": items}), String::new)
}

async fn write(control: &Control, step: Step) -> Result<Found, Failure> {
    let changes = step.is_change();
    let body = serde_json::to_value(&step.document.spec).map_err(|error| Failure::of(&error))?;
    match step.present {
        Some(present) if !changes => Ok(present),
        Some(present) => {
            let path = format!("{DEPLOYMENTS}/{}", present.deployment.id.0);
            let mut request = control.request(Method::PUT, &path).json(&body);
            if let Some(etag) = &present.etag {
                request = request.header("if-match", etag);
            }
            found(control.send(request).await?).await
        }
        None => {
            let key = uuid::Uuid::new_v4().to_string();
            let request = control.request(Method::POST, DEPLOYMENTS).header("idempotency-key", key).json(&body);
            found(control.send(request).await?).await
        }
    }
}

/// The text, and the folder that relative paths in it are taken from.
fn read(file: &Path) -> Result<(String, std::path::PathBuf), Failure> {
    let unreadable = |error: std::io::Error| Failure::failed(format!("{} cannot be read: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MANIFEST_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        return Ok((text, source::here()?));
    }
    let input = std::fs::File::open(file).map_err(unreadable)?;
    input.take(MANIFEST_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let folder = std::fs::canonicalize(file).map_err(unreadable)?.parent().map(Path::to_owned);
    Ok((text, folder.unwrap_or_else(|| "/".into())))
}

/// A fault and the number of its document.
type Misplaced = (usize, Fault);

fn documents(text: &str, folder: &Path) -> Result<Vec<Document>, Vec<Misplaced>> {
    let mut documents = Vec::new();
    let mut faults: Vec<Misplaced> = Vec::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let mut value = match Value::deserialize(document) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(error) => {
                faults.push((number, fault("", "malformed_yaml", format!("this is not YAML: {error}"))));
                // What follows a syntax error cannot be told apart.
                break;
            }
        };
        let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
        match &name {
            None if value.is_object() && value.get("name").is_none_or(Value::is_null) => {
                let detail = "`name` is required: it finds the deployment to change";
                faults.push((number, fault("/name", "required", detail.to_owned())));
            }
            None => {}
            Some(name) => {
                if let Some(first) = names.insert(name.clone(), number) {
                    let detail = format!("`{name}` is the name of document {first} already");
                    faults.push((number, fault("/name", "name_taken", detail)));
                }
            }
        }
        if let Some(Value::String(bucket)) = value.pointer_mut("/model/bucket")
            && !bucket.is_empty()
        {
            *bucket = source::absolute(bucket, folder);
        }
        match (DeploymentSpec::from_json(value), name) {
            (Ok(spec), Some(name)) => documents.push(Document { number, name, spec }),
            (Ok(_), None) => {}
            (Err(more), _) => faults.extend(more.into_iter().map(|fault| (number, fault))),
        }
    }
    if documents.is_empty() && faults.is_empty() {
        faults.push((1, fault("", "empty", "there is no document".to_owned())));
    }
    if faults.is_empty() { Ok(documents) } else { Err(faults) }
}

fn fault(pointer: &str, code: &str, detail: String) -> Fault {
    Fault { pointer: pointer.to_owned(), code: code.to_owned(), detail }
}

fn refusal(file: &Path, faults: &[Misplaced]) -> Failure {
    let mut message = format!("{} cannot be applied; nothing was changed", file.display());
    for (number, fault) in faults {
        let gap = if fault.pointer.is_empty() { "" } else { " " };
        message.push_str(&format!("\n  document {number}{gap}{}: {}", fault.pointer, fault.detail));
    }
    Failure::failed(message)
}

fn dry_run(step: &Step, file: &Path) -> Result<String, Failure> {
    let document = &step.document;
    let present = step.present.as_ref().map(|found| &found.deployment);
    if !step.is_change() {
        return Ok(present.map(|present| format!("{} would not change\n", view::who(present))).unwrap_or_default());
    }
    diff(present, document, &format!("{} (document {})", file.display(), document.number))
}

/// A unified diff from what holds to what a document says.
fn diff(present: Option<&Deployment>, document: &Document, place: &str) -> Result<String, Failure> {
    let (old, from) = match present {
        Some(present) => (yaml(&present.spec)?, format!("{}, revision {}", view::who(present), present.revision)),
        None => (String::new(), "/dev/null".to_owned()),
    };
    let new = yaml(&document.spec)?;
    let diff = similar::TextDiff::from_lines(&old, &new);
    Ok(diff.unified_diff().header(&from, place).to_string())
}

#[cfg(test)]
mod tests {
    use api::deployment::ModelSource;

    use super::*;

    const TWO: &str = "\
name: iris
model: {bucket: models, prefix: iris, version: '3'}
replicas: 2
---
name: digits
model: {name: digits, version: v1}
request_res: {cpu: 1}
";

    fn read(text: &str) -> Result<Vec<Document>, Vec<(usize, String)>> {
        documents(text, Path::new("/srv"))
            .map_err(|faults| faults.into_iter().map(|(number, fault)| (number, fault.pointer)).collect())
    }

    fn present(document: &Document) -> Deployment {
        let mut value = serde_json::to_value(&document.spec).expect("it can be written");
        for (field, more) in [
            ("id", serde_json::json!(1)),
            ("status", "active".into()),
            ("ready_replicas", 2.into()),
            ("serving_revision", 1.into()),
            ("url", Value::Null),
            ("revision", 1.into()),
            ("created_at", "2025-03-09T02:16:33.792720".into()),
            ("updated_at", "2025-03-09T02:16:33.792720".into()),
        ] {
            value[field] = more;
        }
        serde_json::from_value(value).expect("a deployment")
    }

    #[test]
    fn each_document_is_a_deployment_and_paths_are_the_files() {
        let documents = read(TWO).expect("both are right");
        assert_eq!(documents.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["iris", "digits"]);
        let ModelSource::Bucket(model) = &documents[0].spec.model else { panic!("not a bucket") };
        assert_eq!(model.bucket, "/srv/models");
    }

    #[test]
    fn all_faults_of_all_documents_are_found_at_once() {
        let text =
            "name: a\nreplica: 1\n---\nmodel: {bucket: b, version: '1'}\n---\nname: a\nmodel: {version: v1, name: m}\n";
        let faults = read(text).expect_err("it is full of faults");
        let expected = [(1, "/model"), (1, "/replica"), (2, "/name"), (3, "/name")];
        assert_eq!(faults, expected.map(|(number, pointer)| (number, pointer.to_owned())));
        assert_eq!(read("").expect_err("it is empty"), [(1, String::new())]);
        assert_eq!(read("name: [").expect_err("it is no YAML"), [(1, String::new())]);
    }

    #[test]
    fn a_document_that_says_what_holds_is_no_change() {
        let document = read(TWO).expect("both are right").remove(0);
        let deployment = present(&document);
        let found = Found { raw: Value::Null, deployment, etag: None };
        assert!(!Step { document, present: Some(found) }.is_change());
    }

    #[test]
    fn a_change_is_shown_as_a_diff() {
        let mut documents = read(TWO).expect("both are right");
        let deployment = present(&documents[0]);
        documents[0].spec.replicas = 3;
        let text = diff(Some(&deployment), &documents[0], "x.yaml (document 1)").expect("a diff");
        insta::assert_snapshot!(text);
        let new = diff(None, &documents[1], "x.yaml (document 2)").expect("a diff");
        assert!(new.starts_with("--- /dev/null\n+++ x.yaml (document 2)\n"), "{new}");
        assert!(new.contains("+name: digits"), "{new}");
    }
}
