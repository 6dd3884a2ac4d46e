//! Interprets each field of a model's configuration.

use std::collections::BTreeMap;

use api::decode::nearest;
use inference::Datatype;

use super::{Declared, DeclaredTensor, Policy, Warmup, WarmupData, WarmupInput, reshape::agree};
use crate::{
    settings::Overrides,
    source::{
        fields::Fields,
        file::Kind,
        text::{Field, Wrong},
    },
};

/// Triton's word for a datatype.
pub(crate) fn type_name(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "TYPE_BOOL",
        Datatype::Uint8 => "TYPE_UINT8",
        Datatype::Uint16 => "TYPE_UINT16",
        Datatype::Uint32 => "TYPE_UINT32",
        Datatype::Uint64 => "TYPE_UINT64",
        Datatype::Int8 => "TYPE_INT8",
        Datatype::Int16 => "TYPE_INT16",
        Datatype::Int32 => "TYPE_INT32",
        Datatype::Int64 => "TYPE_INT64",
        Datatype::Fp16 => "TYPE_FP16",
        Datatype::Bf16 => "TYPE_BF16",
        Datatype::Fp32 => "TYPE_FP32",
        Datatype::Fp64 => "TYPE_FP64",
        Datatype::Bytes => "TYPE_STRING",
    }
}

/// What Triton's files call what is served here.
const BACKENDS: [(&str, Kind); 6] = [
    ("onnxruntime", Kind::Onnx),
    ("onnxruntime_onnx", Kind::Onnx),
    ("python", Kind::Python),
    ("modelway_python", Kind::Python),
    ("mlflow", Kind::Mlflow),
    ("modelway_mlflow", Kind::Mlflow),
];

/// Features of Triton that are elsewhere here, or need other hardware.
const NOT_HONOURED: [(&str, &str); 11] = [
    ("sequence_batching", "models with a memory of sequences are not served, and requests of a sequence are refused"),
    ("ensemble_scheduling", "models are not chained here"),
    ("optimization", "models run on CPUs, with ONNX Runtime's own optimisations"),
    ("batch_input", "inputs are not made up for a batch"),
    ("batch_output", "outputs are not cut for a batch"),
    ("cc_model_filenames", "models run on CPUs"),
    ("metric_tags", "metrics carry the model's name and version"),
    ("model_operations", "no libraries are loaded into the runtime"),
    ("model_repository_agents", "files are checked with --digest"),
    ("model_metrics", "metrics have fixed buckets"),
    ("runtime", "the runtime is chosen by the model's files"),
];

impl Declared {
    pub(super) fn of_fields(mut fields: Fields<'_>) -> Result<Self, Wrong> {
        let mut declared = Self { name: fields.text("name")?, ..Self::default() };
        declared.backend(&mut fields)?;
        declared.default_model_filename = fields.text("default_model_filename")?;
        declared.max_batch_size = fields.number("max_batch_size", 0)?;
        // 0 disables batching, which is 1 here.
        let max_batch_size = declared.max_batch_size.map(|size| usize::try_from(size.max(1)).unwrap_or(1));
        let mut overrides = Overrides { max_batch_size, ..Overrides::default() };
        declared.inputs = tensors(&mut fields, "input")?;
        declared.outputs = tensors(&mut fields, "output")?;
        declared.policy = policy(&mut fields)?;
        batching(&mut fields, &mut overrides)?;
        let preferred = overrides.preferred_batch_sizes.iter().flatten();
        if preferred.zip(max_batch_size.iter().cycle()).any(|(size, most)| size > most) {
            fields.note("preferred_batch_size", "one above max_batch_size is never reached");
        }
        overrides.instances = instances(&mut fields)?;
        declared.warmups = warmups(&mut fields)?;
        if let Some(mut cache) = fields.message("response_cache")? {
            declared.response_cache = cache.boolean("enable")?;
            cache.finish()?;
        }
        declared.parameters = parameters(&mut fields, &mut overrides)?;
        if let Some(mut transaction) = fields.message("model_transaction_policy")? {
            // Whether a model streams depends on the model.
            transaction.boolean("decoupled")?;
            transaction.finish()?;
        }
        for (name, why) in NOT_HONOURED {
            fields.not_honoured(name, why);
        }
        declared.overrides = overrides;
        fields.finish()?;
        Ok(declared)
    }

    fn backend(&mut self, fields: &mut Fields<'_>) -> Result<(), Wrong> {
        for name in ["platform", "backend"] {
            let Some((word, field)) = fields.word(name)? else { continue };
            if word.is_empty() {
                continue;
            }
            let known = BACKENDS.iter().find(|(known, _)| *known == word);
            let Some((_, kind)) = known else {
                let what = format!("is {word:?}, which is not served; onnxruntime, python and mlflow are");
                return Err(fields.wrong(&field, &what));
            };
            if self.kind.is_some_and(|other| other != *kind) {
                return Err(fields.wrong(&field, &format!("is {word:?}, and `platform` says something else")));
            }
            self.kind = Some(*kind);
            if name == "platform" {
                self.platform = Some(word);
            }
        }
        Ok(())
    }
}

/// A datatype by its name in Triton.
fn datatype(fields: &Fields<'_>, word: &str, field: &Field) -> Result<Datatype, Wrong> {
    let known = Datatype::ALL.iter().find(|datatype| type_name(**datatype) == word);
    known.copied().ok_or_else(|| {
        let hint = match nearest(word, Datatype::ALL.iter().map(|datatype| type_name(*datatype))) {
            Some(near) => format!("did you mean {near}?"),
            None => "it is TYPE_FP32, TYPE_INT64, TYPE_STRING or the like".to_owned(),
        };
        fields.wrong(field, &format!("is {word}, which is no datatype; {hint}"))
    })
}

fn tensors(fields: &mut Fields<'_>, which: &'static str) -> Result<Vec<DeclaredTensor>, Wrong> {
    let mut tensors = Vec::new();
    for field in fields.many(which) {
        let line = field.line;
        let mut inner = fields.open(field)?;
        let name = inner.text("name")?;
        let datatype = match inner.word("data_type")? {
            Some((word, field)) => Some(datatype(&inner, &word, &field)?),
            None => None,
        };
        let dims = inner.numbers("dims", -1)?;
        let reshape = match inner.message("reshape")? {
            Some(mut reshape) => {
                let shape = reshape.numbers("shape", -1)?;
                reshape.finish()?;
                Some(shape)
            }
            None => None,
        };
        inner.not_honoured("format", "tensors are handed on as they come");
        inner.not_honoured("label_filename", "labels come from the model");
        inner.not_honoured("is_shape_tensor", "models run on CPUs");
        inner.not_honoured("is_non_linear_format_io", "models run on CPUs");
        inner.not_honoured("allow_ragged_batch", "rows of a batch have one shape");
        let optional = inner.boolean("optional")?.unwrap_or_default();
        inner.finish()?;
        let Some(name) = name else {
            return Err(Wrong { line, reason: format!("an `{which}` has no `name`") });
        };
        if let Some(shape) = reshape.as_ref().filter(|shape| !agree(&dims, shape)) {
            let reason = format!(
                "{which} `{name}` has `dims` {dims:?} and is reshaped to {shape:?}: both need as many variable dimensions \
                 (-1), in the same order, and as many elements between them"
            );
            return Err(Wrong { line, reason });
        }
        tensors.push(DeclaredTensor { name, datatype, dims, reshape, optional });
    }
    Ok(tensors)
}

fn policy(fields: &mut Fields<'_>) -> Result<Policy, Wrong> {
    let Some(mut inner) = fields.message("version_policy")? else { return Ok(Policy::All) };
    let mut policies = Vec::new();
    if let Some(mut latest) = inner.message("latest")? {
        let count = latest.number("num_versions", 1)?.unwrap_or(1);
        latest.finish()?;
        policies.push(Policy::Latest(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    if let Some(all) = inner.message("all")? {
        all.finish()?;
        policies.push(Policy::All);
    }
    if let Some(mut specific) = inner.message("specific")? {
        let versions = specific.numbers("versions", 0)?;
        specific.finish()?;
        policies.push(Policy::Specific(versions));
    }
    inner.finish()?;
    match policies.len() {
        0 | 1 => Ok(policies.pop().unwrap_or_default()),
        _ => Err(Wrong { line: 0, reason: "`version_policy` is one of `latest`, `all` and `specific`".to_owned() }),
    }
}

fn batching(fields: &mut Fields<'_>, overrides: &mut Overrides) -> Result<(), Wrong> {
    let Some(mut inner) = fields.message("dynamic_batching")? else { return Ok(()) };
    let sizes = inner.numbers("preferred_batch_size", 1)?;
    if !sizes.is_empty() {
        overrides.preferred_batch_sizes = Some(sizes.into_iter().filter_map(|size| size.try_into().ok()).collect());
    }
    overrides.max_queue_delay_us = inner.number("max_queue_delay_microseconds", 0)?.and_then(|us| us.try_into().ok());
    overrides.priority_levels = inner.number("priority_levels", 0)?.and_then(|levels| levels.try_into().ok());
    overrides.default_priority = inner.number("default_priority_level", 0)?.and_then(|level| level.try_into().ok());
    if inner.boolean("preserve_ordering")? == Some(true) {
        inner.note("preserve_ordering", "each request gets its own answer as soon as it is there");
    }
    if let Some(mut policy) = inner.message("default_queue_policy")? {
        let limit = policy.number("max_queue_size", 0)?;
        // 0 means unlimited, which does not exist here.
        overrides.queue_limit = limit.filter(|limit| *limit > 0).and_then(|limit| limit.try_into().ok());
        if let Some((word, field)) = policy.word("timeout_action")? {
            match word.as_str() {
                "REJECT" => {}
                "DELAY" => policy.note("timeout_action", "a request past its time is refused"),
                _ => return Err(policy.wrong(&field, "is REJECT or DELAY")),
            }
        }
        policy.not_honoured(
            "default_timeout_microseconds",
            "a request has the time of serve.request_timeout_ms, or its own `timeout`",
        );
        policy.not_honoured("allow_timeout_override", "a request's own `timeout` can only shorten its time");
        policy.finish()?;
    }
    inner.not_honoured("priority_queue_policy", "all priorities share one bounded queue");
    inner.finish()
}

fn instances(fields: &mut Fields<'_>) -> Result<Option<usize>, Wrong> {
    /// Maximum number of copies of one model: more are a mistake.
    const MOST: i64 = 256;
    let mut total = 0;
    let groups = fields.many("instance_group");
    let Some(line) = groups.first().map(|group| group.line) else { return Ok(None) };
    for group in groups {
        let mut inner = fields.open(group)?;
        let count = inner.number("count", 0)?.unwrap_or(1);
        if count == 0 {
            inner.note("count: 0", "a model has one instance at least");
        }
        total += count.max(1);
        if let Some((word, field)) = inner.word("kind")? {
            match word.as_str() {
                "KIND_CPU" | "KIND_AUTO" | "KIND_MODEL" => {}
                "KIND_GPU" => inner.note("kind", "models run on CPUs, not on a GPU"),
                _ => return Err(inner.wrong(&field, "is KIND_CPU, KIND_AUTO, KIND_MODEL or KIND_GPU")),
            }
        }
        inner.text("name")?;
        for name in ["gpus", "rate_limiter", "profile", "passive", "secondary_devices", "host_policy"] {
            inner.not_honoured(name, "instances are placed on CPUs by the server");
        }
        inner.finish()?;
    }
    if total > MOST {
        return Err(Wrong {
            line,
            reason: format!("`instance_group` asks for {total} copies; at most {MOST} are made"),
        });
    }
    Ok(usize::try_from(total).ok())
}

fn parameters(fields: &mut Fields<'_>, overrides: &mut Overrides) -> Result<BTreeMap<String, String>, Wrong> {
    let mut parameters = BTreeMap::new();
    for (key, field) in fields.map("parameters")? {
        let line = field.line;
        let mut inner = fields.open(field)?;
        let value = inner.text("string_value")?.unwrap_or_default();
        inner.finish()?;
        match key.as_str() {
            "intra_op_thread_count" => {
                let count = value.parse().map_err(|_| Wrong {
                    line,
                    reason: format!("parameter `{key}` is {value:?}, not a number of threads"),
                })?;
                overrides.intra_op_threads = Some(count);
            }
            "inter_op_thread_count" => fields.note("parameters.inter_op_thread_count", "operators run one by one"),
            "EXECUTION_ENV_PATH" => fields.note(
                "parameters.EXECUTION_ENV_PATH",
                "a Python model's environment comes from its requirements.txt or conda.yaml",
            ),
            _ => {}
        }
        parameters.insert(key, value);
    }
    Ok(parameters)
}

fn warmups(fields: &mut Fields<'_>) -> Result<Vec<Warmup>, Wrong> {
    /// The number of runs of one sample.
    const MOST_RUNS: i64 = 10_000;
    let mut warmups = Vec::new();
    for field in fields.many("model_warmup") {
        let line = field.line;
        let mut inner = fields.open(field)?;
        let name = inner.text("name")?.unwrap_or_default();
        let batch_size = inner.number("batch_size", 0)?.unwrap_or(0);
        let count = inner.number("count", 0)?.unwrap_or(1).max(1);
        if count > MOST_RUNS {
            let reason = format!("`model_warmup` runs {count} times; at most {MOST_RUNS} are run");
            return Err(Wrong { line, reason });
        }
        let mut inputs = BTreeMap::new();
        for (key, field) in inner.map("inputs")? {
            let input = warmup_input(&key, field.line, inner.open(field)?)?;
            inputs.insert(key, input);
        }
        inner.finish()?;
        warmups.push(Warmup { name, batch_size, inputs, count: u32::try_from(count).unwrap_or(1) });
    }
    Ok(warmups)
}

fn warmup_input(key: &str, line: usize, mut inner: Fields<'_>) -> Result<WarmupInput, Wrong> {
    let wrong = |reason: String| Wrong { line, reason };
    let datatype = match inner.word("data_type")? {
        Some((word, field)) => datatype(&inner, &word, &field)?,
        None => return Err(wrong(format!("the warm-up's input `{key}` has no `data_type`"))),
    };
    let dims = inner.numbers("dims", 1)?;
    let zero = inner.boolean("zero_data")?.unwrap_or_default();
    let random = inner.boolean("random_data")?.unwrap_or_default();
    let file = inner.text("input_data_file")?;
    inner.finish()?;
    let data = match (zero, random, file) {
        (true, false, None) => WarmupData::Zero,
        (false, true, None) => WarmupData::Random,
        (false, false, Some(file)) => WarmupData::File(file),
        _ => {
            return Err(wrong(format!(
                "the warm-up's input `{key}` has one of `zero_data: true`, `random_data: true` and `input_data_file`"
            )));
        }
    };
    Ok(WarmupInput { datatype, dims, data })
}
