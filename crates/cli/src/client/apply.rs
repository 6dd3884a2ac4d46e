//! `apply`: creates and changes deployments from a YAML file.
//!
//! First all documents are read and checked, and all their faults are reported at once; only then is anything changed.
//! A document changes only the fields that it contains; if they have these values already, nothing changes.

mod manifest;
mod step;

use std::{path::Path, time::Instant};

use base::visible;
use reqwest::Method;

use self::{manifest::Misplaced, step::Step};
use super::{
    Config,
    http::{Control, DEPLOYMENTS, Found, found},
    view,
    wait::until_serving,
};
use crate::{
    args,
    exit::Failure,
    output::{Format, print, show, tell},
};

/// Applies a file.
///
/// # Errors
/// All faults of all documents; an error of the control plane; with `--wait`, the errors of [`until_serving`].
pub async fn apply(config: &Config, sources: &artifact::Config, args: &args::Apply) -> Result<(), Failure> {
    let (text, folder) = manifest::read(&args.file)?;
    let (documents, mut faults) = manifest::documents(&text, &folder);
    let control = Control::new(config)?;
    let mut steps = Vec::new();
    for document in documents {
        let number = document.number;
        if !document.read_only.is_empty() {
            let fields = document.read_only.join(", ");
            tell(format!("document {number}: the server sets these fields, they are not applied: {fields}"));
        }
        let present = match &document.name {
            Some(name) => control.by_name(name).await?,
            None => None,
        };
        match Step::new(document, present) {
            Ok(step) => steps.push(step),
            Err(more) => faults.extend(more.into_iter().map(|fault| (number, fault))),
        }
    }
    if !faults.is_empty() {
        faults.sort_by_key(|(number, _)| *number);
        return Err(refusal(&args.file, &faults));
    }
    for step in &mut steps {
        step.look(&control, sources).await?;
    }
    if args.dry_run {
        let file = args.file.display().to_string();
        return steps.iter().try_for_each(|step| print(step.dry_run(&file)?));
    }
    let mut applied = Vec::new();
    for step in steps {
        let verb = match (step.is_change() || step.again.is_some(), &step.present) {
            (false, _) => "is unchanged",
            (true, Some(_)) => "is changed",
            (true, None) => "is created",
        };
        let left = Some(step.left()).filter(|left| !left.is_empty()).map(|left| format!("; {left}"));
        let now = write(&control, step).await?;
        if args.output.output == Format::Table {
            print(format!("{} {verb}{}\n", view::who(&now.deployment), left.unwrap_or_default()))?;
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
    match step.present {
        Some(present) if step.again.is_some() => control.redeploy(&present).await,
        Some(present) if !changes => Ok(present),
        Some(present) => control.patch(&present, &step.patch).await,
        None => {
            let key = uuid::Uuid::new_v4().to_string();
            let request = control.request(Method::POST, DEPLOYMENTS).header("idempotency-key", key);
            found(control.send(request.json(&step.wanted)).await?).await
        }
    }
}

fn refusal(file: &Path, faults: &[Misplaced]) -> Failure {
    let mut message = format!("{} cannot be applied; nothing was changed", file.display());
    for (number, fault) in faults {
        let gap = if fault.pointer.is_empty() { "" } else { " " };
        let (pointer, detail) = (visible::line(&fault.pointer), visible::part(&fault.detail));
        message.push_str(&format!("\n  document {number}{gap}{pointer}: {detail}"));
    }
    Failure::failed(message)
}

#[cfg(test)]
mod tests {
    use api::{Deployment, deployment::ModelSource};
    use serde_json::{Value, json};

    use super::{manifest::Document, *};

    const TWO: &str = "\
name: iris
model: {bucket: models, prefix: iris, version: '3'}
replicas: 2
---
name: digits
model: {name: digits, version: v1}
request_res: {cpu: 1}
";

    fn documents(text: &str) -> Vec<Document> {
        let (documents, faults) = manifest::documents(text, Path::new("/srv"));
        assert_eq!(faults, []);
        documents
    }

    /// The faults of all documents if nothing is deployed.
    fn faults(text: &str) -> Vec<(usize, String)> {
        let (documents, mut faults) = manifest::documents(text, Path::new("/srv"));
        for document in documents {
            let number = document.number;
            let more = Step::new(document, None).err().unwrap_or_default();
            faults.extend(more.into_iter().map(|fault| (number, fault)));
        }
        faults.sort_by_key(|(number, _)| *number);
        faults.into_iter().map(|(number, fault)| (number, fault.pointer)).collect()
    }

    /// The deployed deployment with these fields.
    fn present(mut spec: Value) -> Found {
        for (field, more) in [
            ("id", json!(1)),
            ("status", "active".into()),
            ("ready_replicas", 2.into()),
            ("serving_revision", 1.into()),
            ("url", Value::Null),
            ("revision", 1.into()),
            ("created_at", "2025-03-09T02:16:33.792720".into()),
            ("updated_at", "2025-03-09T02:16:33.792720".into()),
        ] {
            spec[field] = more;
        }
        let deployment: Deployment = serde_json::from_value(spec).expect("a deployment");
        Found { raw: Value::Null, deployment, etag: None }
    }

    fn iris(more: Value) -> Found {
        let mut spec = json!({
            "name": "iris", "model": {"bucket": "/srv/models", "prefix": "iris", "version": "3"}, "replicas": 2
        });
        for (field, value) in more.as_object().expect("an object") {
            spec[field] = value.clone();
        }
        present(json!(api::DeploymentSpec::from_json(spec).expect("it is valid")))
    }

    fn step(text: &str, present: Found) -> Step {
        Step::new(documents(text).remove(0), Some(present)).expect("it is valid")
    }

    #[test]
    fn each_document_is_a_deployment_and_paths_are_the_files() {
        let documents = documents(TWO);
        assert_eq!(documents.iter().map(|d| d.name.as_deref()).collect::<Vec<_>>(), [Some("iris"), Some("digits")]);
        assert_eq!(documents[0].fields["model"]["bucket"], "/srv/models");
    }

    #[test]
    fn all_faults_of_all_documents_are_found_at_once() {
        let text =
            "name: a\nreplica: 1\n---\nmodel: {bucket: b, version: '1'}\n---\nname: a\nmodel: {version: v1, name: m}\n";
        let expected = [(1, "/model"), (1, "/replica"), (2, "/name"), (3, "/name")];
        assert_eq!(faults(text), expected.map(|(number, pointer)| (number, pointer.to_owned())));
        assert_eq!(faults(""), [(1, String::new())]);
        assert_eq!(faults("name: ["), [(1, String::new())]);
        assert_eq!(faults("name: 3\nmodel: {version: v1, name: m}\n"), [(1, "/name".to_owned())]);
    }

    #[test]
    fn a_document_that_says_what_holds_is_no_change() {
        let step = step(TWO, iris(json!({})));
        assert!(!step.is_change());
        assert_eq!(step.dry_run("x").expect("text"), "iris (md-1) would not change\n");
    }

    #[test]
    fn what_a_document_does_not_name_stays_and_is_told() {
        let grown = || iris(json!({"replicas": 7, "env": {"A": "1", "B": "2"}, "limit_res": {"cpu": "2"}}));
        let same = step("name: iris\nenv: {A: '1'}\n", grown());
        assert!(!same.is_change());
        let told = same.dry_run("x").expect("text");
        assert!(told.ends_with("# not in the file and left as they are: replicas, limit_res.cpu, env.B\n"), "{told}");

        let reset = step("name: iris\nreplicas: null\nenv: {B: null}\nlimit_res: null\n", grown());
        assert_eq!((reset.wanted.replicas, reset.wanted.env.len()), (1, 1));
        assert_eq!(reset.left(), "not in the file and left as they are: env.A");
        let step = Step::new(documents("name: iris\nreplica: null\n").remove(0), Some(grown()));
        assert_eq!(step.expect_err("it is unknown")[0].pointer, "/replica");
    }

    #[test]
    fn nothing_of_another_model_stays_beside_the_one_that_is_named() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let model = json!({"bucket": "/srv/models", "prefix": "iris", "version": "3", "digest": digest});
        let pinned = || iris(json!({"model": model}));
        let model =
            |text: &str, present: Found| match step(&format!("name: iris\nmodel: {text}\n"), present).wanted.model {
                ModelSource::Bucket(model) => (model.bucket, model.prefix, model.version, model.digest.is_some()),
                ModelSource::Registered(model) => (model.name, String::new(), model.version, false),
            };
        let is =
            |place: &str, prefix: &str, version: &str, digest| (place.into(), prefix.into(), version.into(), digest);
        assert_eq!(model("{version: '3'}", pinned()), is("/srv/models", "iris", "3", true));
        assert_eq!(model("{version: '4'}", pinned()), is("/srv/models", "iris", "4", false));
        assert_eq!(model("{bucket: /b, version: '3'}", pinned()), is("/b", "", "3", false));
        assert_eq!(model("{name: iris, version: v1}", pinned()), is("iris", "", "v1", false));
        let registered = iris(json!({"model": {"name": "iris", "version": "v1"}}));
        assert_eq!(model("{bucket: /b, version: '3'}", registered), is("/b", "", "3", false));
    }

    #[test]
    fn an_answer_of_the_server_can_be_applied() {
        let document = documents("name: iris\nid: 7\nstatus: active\nreplicas: 2\n").remove(0);
        assert_eq!(document.read_only, ["id", "status"]);
        assert!(!Step::new(document, Some(iris(json!({})))).expect("it is valid").is_change());
    }

    #[test]
    fn a_change_is_shown_as_a_diff_without_secrets() {
        let text = TWO.replace("replicas: 2", "replicas: 3\nenv: {HF_TOKEN: new, COLOUR: red}");
        let changed = step(&text, iris(json!({"env": {"HF_TOKEN": "old"}, "labels": {"team": "botany"}})));
        insta::assert_snapshot!(changed.dry_run("x.yaml").expect("a diff"));
        let new = Step::new(documents(TWO).remove(1), None).expect("it is valid").dry_run("x.yaml").expect("a diff");
        assert!(new.starts_with("--- /dev/null\n+++ x.yaml (document 2)\n"), "{new}");
        assert!(new.contains("+name: digits"), "{new}");
    }
}
