//! Reads the specification of a deployment from JSON, and reports all faults at once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{
    READ_ONLY, check_deployment_name, check_digest, check_env, check_env_file, check_label, check_path, check_place,
    check_placement, check_python, check_version, is_mlflow,
};
use super::{
    BucketModel, DeploymentSpec, LogPayloads, MAX_REPLICAS, MachineType, ModelSource, RegisteredRef, Resources,
};
use crate::{
    decode::{Faults, Fields, pointer, short},
    problem::Fault,
    quantity::Quantity,
};

/// Keys and values in total.
const MAX_LABELS_BYTES: usize = 16 * 1024;
/// Keys and values in total. The kernel limits the environment of a program; on Linux, one variable may have 128 KiB.
const MAX_ENV_BYTES: usize = 64 * 1024;

impl DeploymentSpec {
    /// Reads a specification as in `POST /v1/modelDeployment`.
    ///
    /// # Errors
    /// All faults: unknown fields, wrong types, invalid quantities, a request above its limit.
    pub fn from_json(value: Value) -> Result<Self, Vec<Fault>> {
        Self::read(value, Purpose::New)
    }

    /// Reads a specification that replaces this one. It may be an edited response of the server: fields that only the
    /// server sets are ignored.
    ///
    /// # Errors
    /// As for a new specification, but the current name of the deployment is always accepted.
    pub fn replaced(&self, value: Value) -> Result<Self, Vec<Fault>> {
        Self::read(value, Purpose::Replaced(self))
    }

    pub(super) fn read(value: Value, purpose: Purpose<'_>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let spec = Fields::of(value, "", &mut faults).and_then(|fields| read_spec(fields, purpose));
        faults.into_result(spec)
    }
}

/// The purpose of reading a specification.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'s> {
    /// To create a deployment.
    New,
    /// To replace the specification of a deployment.
    Replaced(&'s DeploymentSpec),
    /// To change some fields of a deployment.
    Patched(&'s DeploymentSpec),
}

impl Purpose<'_> {
    /// The specification that there is already.
    fn old(&self) -> Option<&DeploymentSpec> {
        match self {
            Self::New => None,
            Self::Replaced(old) | Self::Patched(old) => Some(old),
        }
    }

    /// Whether the deployment already has this name. Older versions accepted names that are refused today.
    fn has_name(self, name: &str) -> bool {
        self.old().is_some_and(|old| old.name.as_deref() == Some(name))
    }
}

fn read_spec(mut fields: Fields<'_>, purpose: Purpose<'_>) -> Option<DeploymentSpec> {
    for field in READ_ONLY {
        if fields.take_unlisted(field).is_some() && !matches!(purpose, Purpose::Replaced(_)) {
            fields.fault(field, "read_only", format!("`{field}` is set by the server; leave it out"));
        }
    }
    let name = fields.text("name");
    if let Some(Err(reason)) = name.as_deref().filter(|name| !purpose.has_name(name)).map(check_deployment_name) {
        fields.fault("name", "invalid", reason);
    }
    let placement = read_placement(&mut fields, purpose);
    let labels = read_map(&mut fields, "labels", MAX_LABELS_BYTES, check_label);
    let env = read_map(&mut fields, "env", MAX_ENV_BYTES, check_env);
    let env_from_file = read_map(&mut fields, "env_from_file", MAX_ENV_BYTES, check_env_file);
    for name in env_from_file.keys().filter(|name| env.contains_key(*name)) {
        let at = pointer(&fields.pointer("env_from_file"), name);
        let name = short(name);
        let detail = format!("`{name}` is in `env` too; set it in one of them, and in the other to null or not at all");
        fields.fault_at(at, "conflict", detail);
    }
    let machine = fields.choice("type", &[("cpu", MachineType::Cpu), ("gpu", MachineType::Gpu)]);
    let model = if fields.require("model") { fields.object("model", read_model) } else { None };
    let replicas = fields.number("replicas", 0, u64::from(MAX_REPLICAS));
    let request_res = fields.object("request_res", read_resources).unwrap_or_default();
    let limit_res = fields.object("limit_res", read_resources).unwrap_or_default();
    for (resource, request, limit) in
        [("cpu", &request_res.cpu, &limit_res.cpu), ("memory", &request_res.memory, &limit_res.memory)]
    {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let detail = format!("{request} is more than limit_res.{resource}, {limit}; lower one or raise the other");
            let pointer = format!("/request_res/{resource}");
            fields.fault_at(pointer, "request_over_limit", detail);
        }
    }
    let python = fields.text("python");
    if let Some(Err(reason)) = python.as_deref().map(check_python) {
        fields.fault("python", "invalid", reason);
    }
    let request_timeout_ms = fields.number("request_timeout_ms", 1, 24 * 3_600_000);
    let idempotent = fields.boolean("idempotent");
    let log_payloads = fields.choice(
        "log_payloads",
        &[("none", LogPayloads::None), ("sample", LogPayloads::Sample), ("all", LogPayloads::All)],
    );
    fields.finish();
    Some(DeploymentSpec {
        name,
        labels,
        placement,
        machine: machine.unwrap_or_default(),
        model: model?,
        replicas: replicas.map_or(1, |n| u32::try_from(n).unwrap_or(MAX_REPLICAS)),
        request_res,
        limit_res,
        env,
        env_from_file,
        python,
        request_timeout_ms: request_timeout_ms.unwrap_or(DeploymentSpec::DEFAULT_REQUEST_TIMEOUT_MS),
        idempotent: idempotent.unwrap_or(true),
        log_payloads: log_payloads.unwrap_or_default(),
    })
}

/// Replicas do not move, so a deployment keeps the placement that it was created with.
fn read_placement(fields: &mut Fields<'_>, purpose: Purpose<'_>) -> Option<String> {
    let placement = fields.text("placement");
    if let Some(Err(reason)) = placement.as_deref().map(check_placement) {
        fields.fault("placement", "invalid", reason);
    }
    let Some(old) = purpose.old() else { return placement };
    let is_other = match (&placement, purpose) {
        (Some(placement), _) => placement != old.placement(),
        // A merge patch has the field of what it changes, unless it says null.
        (None, Purpose::Patched(_)) => old.placement.is_some(),
        (None, _) => false,
    };
    if is_other {
        let detail = format!(
            "the deployment is placed in `{}`, and that cannot change; leave `placement` out, or create another deployment \
             there and delete this one once it serves",
            old.placement()
        );
        fields.fault("placement", "immutable", detail);
    }
    old.placement.clone()
}

fn read_model(mut fields: Fields<'_>) -> Option<ModelSource> {
    if fields.has("name") && fields.has("bucket") {
        fields.fault("bucket", "conflict", "give either `bucket` (files) or `name` (a registered model), not both");
    }
    let version = fields.required_text("version");
    if let Some(Err(reason)) = version.as_deref().map(check_version) {
        fields.fault("version", "invalid", reason);
    }
    if fields.has("name") {
        let name = fields.text("name");
        // Mark the fields of the other form as known, so that one mistake is reported as one fault.
        let _ = fields.take("bucket");
        fields.finish();
        return Some(ModelSource::Registered(RegisteredRef { name: name?, version: version? }));
    }
    let kind = fields.choice("type", &[("single", "single")]);
    let bucket = fields.required_text("bucket");
    if let Some(Err(reason)) = bucket.as_deref().map(check_place) {
        fields.fault("bucket", "invalid", reason);
    }
    let prefix = fields.text("prefix").unwrap_or_default();
    if prefix.split('/').any(|part| part == "..") {
        fields.fault("prefix", "invalid", "`..` would leave the bucket; write the path itself");
    } else if !prefix.is_empty() && bucket.as_deref().is_some_and(is_mlflow) {
        let detail = "an MLflow address is complete by itself; leave out `prefix`";
        fields.fault("prefix", "conflict", detail);
    } else if let Err(reason) = check_path(&prefix) {
        fields.fault("prefix", "invalid", reason);
    }
    let digest = fields.text("digest");
    if let Some(Err(reason)) = digest.as_deref().map(check_digest) {
        fields.fault("digest", "invalid", reason);
    }
    fields.finish();
    Some(ModelSource::Bucket(BucketModel {
        version: version?,
        kind: kind.unwrap_or("single").to_owned(),
        bucket: bucket?,
        prefix,
        digest,
    }))
}

fn read_resources(mut fields: Fields<'_>) -> Option<Resources> {
    let cpu = fields.parsed::<Quantity>("cpu");
    let memory = fields.parsed::<Quantity>("memory");
    fields.finish();
    Some(Resources { cpu, memory })
}

fn read_map(
    fields: &mut Fields<'_>,
    field: &'static str,
    most: usize,
    check: fn(&str, &str) -> Result<(), String>,
) -> BTreeMap<String, String> {
    let map = fields.text_map(field).unwrap_or_default();
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > most {
        fields.fault(field, "too_large", format!("it has {bytes} bytes, at most {most} are allowed"));
    }
    for (key, value) in &map {
        if let Err(reason) = check(key, value) {
            fields.fault_at(pointer(&fields.pointer(field), key), "invalid", reason);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "type": "cpu",
            "model": {"version": "v1", "type": "single", "bucket": "s3://demmodels/", "prefix": "models"},
            "replicas": 1,
            "request_res": {"cpu": "500m", "memory": "512Mi"},
            "limit_res": {"cpu": "1", "memory": "1Gi"}
        })
    }

    #[test]
    fn the_public_sample_is_read_and_written_back_to_the_letter() {
        let spec = DeploymentSpec::from_json(sample()).expect("the sample is valid");
        let written = serde_json::to_value(spec).expect("it can be written");
        for (field, value) in sample().as_object().expect("an object") {
            assert_eq!(&written[field], value, "{field}");
        }
    }

    #[test]
    fn files_are_at_an_address_that_is_known_or_at_a_whole_path() {
        let files = ["s3://demmodels/", "gs://b/x", "http://h/x", "HTTPS://h", "file:///srv", "/srv/models", "/"];
        let mlflow = ["models:/iris/1", "models:/iris@champion", "models:/m-0a1b", "runs:/0a1b/model"];
        for place in files.into_iter().chain(mlflow) {
            assert_eq!(check_place(place), Ok(()), "{place}");
        }
        for wrong in ["", "models", "./x", "ftp://h/x", "s3:///x", "s3://", "file://srv", "models:/iris", "runs:/"] {
            assert!(check_place(wrong).is_err(), "{wrong}");
        }
        assert!(check_place("s4://b").is_err_and(|reason| reason.contains("did you mean `s3://`?")));
    }

    #[test]
    fn a_name_that_could_be_a_number_is_refused_and_one_that_is_there_already_stays() {
        let named = |name: &str| {
            let mut payload = sample();
            payload["name"] = name.into();
            payload
        };
        for wrong in ["3", "0003", "99999999999999999999", "md-3", "md-x"] {
            let fault = DeploymentSpec::from_json(named(wrong)).expect_err(wrong).remove(0);
            assert_eq!((fault.pointer.as_str(), fault.code.as_str()), ("/name", "invalid"), "{wrong}");
            let old =
                DeploymentSpec { name: Some(wrong.to_owned()), ..DeploymentSpec::from_json(sample()).expect("valid") };
            assert_eq!(old.replaced(named(wrong)).expect("it has this name").name, old.name);
            assert_eq!(old.patched(&json!({"name": wrong, "replicas": 2})).expect("it has this name").replicas, 2);
            assert!(old.patched(&json!({"name": "4"})).is_err());
        }
        for right in ["3a", "1.5", "v3", "3-4"] {
            assert!(DeploymentSpec::from_json(named(right)).is_ok(), "{right}");
        }
    }

    #[test]
    fn the_placement_of_a_deployment_does_not_change() {
        let with = |placement: Value| {
            let mut payload = sample();
            payload["placement"] = placement;
            payload
        };
        let old = DeploymentSpec::from_json(with(json!("east"))).expect("it is valid");
        assert_eq!(
            (old.placement(), DeploymentSpec::from_json(sample()).expect("valid").placement()),
            ("east", "local")
        );
        let fault = DeploymentSpec::from_json(with(json!("East 1"))).expect_err("it is no name").remove(0);
        assert_eq!((fault.pointer.as_str(), fault.code.as_str()), ("/placement", "invalid"));

        let kept = [old.replaced(sample()), old.replaced(with(json!("east"))), old.patched(&json!({"replicas": 2}))];
        for spec in kept {
            assert_eq!(spec.expect("it stays where it is").placement, old.placement);
        }
        let moved = [
            old.replaced(with(json!("west"))),
            old.patched(&json!({"placement": "west"})),
            old.patched(&json!({"placement": null})),
        ];
        for spec in moved {
            let fault = spec.expect_err("it would move").remove(0);
            assert_eq!((fault.pointer.as_str(), fault.code.as_str()), ("/placement", "immutable"));
            assert!(fault.detail.contains("`east`"), "{}", fault.detail);
        }
    }

    #[test]
    fn an_answer_can_be_edited_and_sent_back() {
        let old = DeploymentSpec::from_json(sample()).expect("it is valid");
        let mut answer = sample();
        for field in READ_ONLY {
            answer[field] = json!(null);
        }
        answer["replicas"] = json!(2);
        assert_eq!(old.replaced(answer.clone()).expect("it is valid").replicas, 2);
        for faults in [DeploymentSpec::from_json(answer.clone()), old.patched(&answer)] {
            assert_eq!(faults.expect_err("only the whole can be an edited answer").len(), READ_ONLY.len());
        }
        answer["colour"] = json!("red");
        assert_eq!(old.replaced(answer).expect_err("it is unknown")[0].code, "unknown_field");
    }

    #[test]
    fn what_no_process_could_be_started_with_is_refused() {
        let refused = |field: &str, value: Value| {
            let mut payload = sample();
            payload["env"] = json!({});
            payload["labels"] = json!({});
            *payload.pointer_mut(field).expect("it is there") = value;
            DeploymentSpec::from_json(payload).expect_err(field).remove(0)
        };
        assert_eq!(refused("/model/bucket", json!("/a\u{0}b")).code, "invalid");
        assert_eq!(refused("/model/bucket", json!(format!("/{}", "a".repeat(2048)))).code, "invalid");
        assert_eq!(refused("/model/prefix", json!("a\nb")).code, "invalid");
        assert_eq!(refused("/env", json!({"A": "a\u{0}"})).pointer, "/env/A");
        assert_eq!(refused("/env", json!({"A": "a".repeat(65_536)})).code, "too_large");
        assert_eq!(refused("/labels", json!({"a\u{0}": "b"})).code, "invalid");
        let many: serde_json::Map<_, _> = (0..1000).map(|i| (i.to_string(), json!("a".repeat(32)))).collect();
        assert_eq!(refused("/labels", many.into()).code, "too_large");
    }

    #[test]
    fn every_fault_is_reported_at_once_where_it_is() {
        let faults = DeploymentSpec::from_json(json!({
            "name": "md-7",
            "replica": 3,
            "id": 3,
            "model": {"bucket": "b", "type": "many", "prefix": "../x"},
            "request_res": {"cpu": "2", "memory": "lots"},
            "limit_res": {"cpu": "1"},
            "env": {"A-B": "1", "OK": 2}
        }))
        .expect_err("it is full of faults");
        let mut found: Vec<_> = faults.iter().map(|f| (f.pointer.as_str(), f.code.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("/env/A-B", "invalid"),
                ("/env/OK", "wrong_type"),
                ("/id", "read_only"),
                ("/model/bucket", "invalid"),
                ("/model/prefix", "invalid"),
                ("/model/type", "invalid"),
                ("/model/version", "required"),
                ("/name", "invalid"),
                ("/replica", "unknown_field"),
                ("/request_res/cpu", "request_over_limit"),
                ("/request_res/memory", "invalid"),
            ]
        );
        assert!(faults.iter().any(|f| f.detail.contains("did you mean `replicas`?")));
    }
}
