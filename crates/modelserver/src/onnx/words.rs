//! What ONNX Runtime says, in words for whoever sent the request or exported the model.
//!
//! Its messages come with source locations, C++ signatures and status names around the one sentence that helps.
//! What is not known here is passed on without that wrapping, never dropped.

mod source;

use std::path::Path;

use inference::{Tensor, TensorMetadata};
use ort::ErrorCode;

use source::without_source;

/// The oldest version of ONNX's operators that the runtime has.
const OLDEST_OPSET: u64 = 7;

/// Whose fault a failed run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// With other inputs it may work.
    Inputs,
    /// It is the model's or the runtime's.
    Model,
}

/// A model computes from its inputs alone, so whatever an operator refuses is in the inputs: sizes that do not go
/// together, an axis that is not there, a division by zero, a size beyond all memory.
pub(super) fn fault(code: ErrorCode, has_run: bool) -> Fault {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the rest say that something else is broken")]
    match code {
        ErrorCode::GenericFailure | ErrorCode::InvalidArgument | ErrorCode::RuntimeException => Fault::Inputs,
        // Kernels say so of sizes that they are not made for.
        ErrorCode::NotImplemented if has_run => Fault::Inputs,
        _ => Fault::Model,
    }
}

/// Why a model could not be loaded. `opset` is that of ONNX's own operators in the model.
pub(super) fn of_load(message: &str, file: &Path, opset: impl FnOnce() -> Option<u64>) -> String {
    let beginning = format!("Load model from {} failed:", file.display());
    let message = message.strip_prefix(&beginning).unwrap_or(message);
    if message.contains("Protobuf parsing failed") {
        return "it is no ONNX model, or its end is missing".to_owned();
    }
    if let Some(versions) = after(message, "Unsupported model IR version: ") {
        let (given, most) = versions.split_once(", max supported IR version: ").unwrap_or((versions, "a lower one"));
        return format!(
            "its IR version is {given}, this ONNX Runtime reads up to {most}: export it for an older one \
             (`model.ir_version = {most}`) or install a newer onnxruntime"
        );
    }
    if let Some(opset) = after(message, "Opset ").filter(|_| message.contains("under development")) {
        let opset = opset.split(' ').next().unwrap_or(opset);
        let most = after(message, "Current official support for domain ")
            .and_then(|rest| after(rest, "is till opset "))
            .map(|rest| rest.trim_end_matches('.').to_owned());
        let most = most.map_or_else(String::new, |most| format!(", which knows up to {most}"));
        return format!(
            "its opset {opset} is newer than this ONNX Runtime{most}: export it for an older opset or install a \
             newer onnxruntime"
        );
    }
    if let Some(operator) = after(message, "Could not find an implementation for ") {
        let operator = operator.split([' ', '(']).next().unwrap_or(operator);
        return match opset() {
            Some(opset) if opset < OLDEST_OPSET => format!(
                "its opset {opset} is older than this ONNX Runtime, which has operator {operator} from opset \
                 {OLDEST_OPSET} on: export the model for opset {OLDEST_OPSET} or newer"
            ),
            _ => format!(
                "this ONNX Runtime cannot run operator {operator} on a CPU with the datatypes that the model gives it: \
                 export the model with others (float32 is always there), or install a newer onnxruntime"
            ),
        };
    }
    if let Some(operator) = after(message, "No Op registered for ") {
        let (name, version) = operator.split_once(" with domain_version of ").unwrap_or((operator, "its own"));
        return format!("there is no operator `{name}` in opset {version}; custom operators are not loaded");
    }
    without_source(message)
}

/// Why a run failed.
pub(super) fn of_run(message: &str, fault: Fault, wanted: &[TensorMetadata], given: &[Tensor]) -> String {
    if let Some(rest) = after(message, "Got invalid dimensions for input: ") {
        let name = rest.split(' ').next().unwrap_or(rest);
        let shapes = wanted.iter().zip(given).find(|(wanted, _)| wanted.name == name);
        if let Some((wanted, given)) = shapes {
            return format!("input `{name}` has the shape {:?}, the model wants {:?}", given.shape, wanted.shape);
        }
    }
    // Where graphs are in graphs, the last of each is the operator that failed, and its words.
    let last = |word: &str| message.rfind(word).map(|place| message[place + word.len()..].trim());
    let operator = last("while running ").and_then(|rest| rest.split(' ').next());
    let said = without_source(last("Status Message: ").unwrap_or(message));
    if is_of_memory(message) {
        let operator = operator.map_or_else(String::new, |operator| format!(" in its {operator}"));
        return format!(
            "the model asks for more memory{operator} than there is, with inputs of the shapes {}",
            shapes(given)
        );
    }
    let whose = match fault {
        Fault::Inputs => "the model refuses these inputs",
        Fault::Model => "the model failed",
    };
    match operator {
        Some(operator) => format!("{whose} in its {operator}: {said} (the inputs' shapes: {})", shapes(given)),
        None => format!("{whose}: {said}"),
    }
}

/// Why a run failed whose memory other runs hold.
pub(super) fn of_crowded_memory(given: &[Tensor]) -> String {
    format!(
        "the model asks for more memory than other requests leave now, with inputs of the shapes {}: try again",
        shapes(given)
    )
}

fn shapes(given: &[Tensor]) -> String {
    given.iter().map(|input| format!("`{}` {:?}", input.name, input.shape)).collect::<Vec<_>>().join(", ")
}

/// Whether the runtime says that it got no memory.
pub(super) fn is_of_memory(message: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|word| message.contains(word))
}

/// What the runtime and its libraries say of a size that there is no memory for.
const OUT_OF_MEMORY: [&str; 8] = [
    "Failed to allocate memory",
    "storage size overflowed",
    "size overflow",
    "Integer overflow",
    "bad_alloc",
    "bad_array_new_length",
    "larger than max_size()",
    "vector::_M_",
];

/// Whether dimensions that the model gives one name have different sizes. The runtime does not mind by itself, since
/// many an export names its dimensions carelessly: it tells only of a run that failed whose fault that was.
pub(super) fn of_symbols(symbols: &[Vec<String>], given: &[Tensor]) -> Option<String> {
    let mut seen: Vec<(&str, i64, &str)> = Vec::new();
    for (names, input) in symbols.iter().zip(given) {
        for (name, &size) in names.iter().zip(&input.shape).filter(|(name, _)| !name.is_empty()) {
            match seen.iter().find(|(known, ..)| known == name) {
                None => seen.push((name, size, &input.name)),
                Some((_, other, _)) if *other == size => {}
                Some((_, other, first)) => {
                    return Some(format!(
                        "dimension `{name}` is {other} in input `{first}` and {size} in input `{}`: the model wants \
                         it the same everywhere",
                        input.name
                    ));
                }
            }
        }
    }
    None
}

fn after<'m>(message: &'m str, word: &str) -> Option<&'m str> {
    message.find(word).map(|place| message[place + word.len()..].trim())
}

#[cfg(test)]
mod tests {
    use inference::{Data, Datatype};

    use super::*;

    #[test]
    fn the_reason_of_a_failed_load_is_plain_and_does_not_name_the_file_again() {
        let file = Path::new("/m/model.onnx");
        let check = |said: &str, expected: &str| assert_eq!(of_load(said, file, || Some(6)), expected);
        check(
            "Load model from /m/model.onnx failed:Protobuf parsing failed.",
            "it is no ONNX model, or its end is missing",
        );
        check("no memory", "no memory");
        check(
            "Load model from /m/model.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:256 \
             onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::ModelOptions&) Unsupported model IR \
             version: 99, max supported IR version: 13\n",
            "its IR version is 99, this ONNX Runtime reads up to 13: export it for an older one \
             (`model.ir_version = 13`) or install a newer onnxruntime",
        );
        check(
            "Load model from /m/model.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model_load_utils.h:46 void \
             onnxruntime::f(int) ONNX Runtime only *guarantees* support for models stamped with official released \
             onnx opset versions. Opset 99 is under development and support for this is limited. The operator schemas \
             and or other functionality may change before next ONNX release and in this case ONNX Runtime will not \
             guarantee backward compatibility. Current official support for domain ai.onnx is till opset 26.",
            "its opset 99 is newer than this ONNX Runtime, which knows up to 26: export it for an older opset or \
             install a newer onnxruntime",
        );
        check(
            "Could not find an implementation for Relu(1) node with name ''",
            "its opset 6 is older than this ONNX Runtime, which has operator Relu from opset 7 on: export the model for \
             opset 7 or newer",
        );
        let said = of_load("Could not find an implementation for Cos(7) node with name 'c'", file, || Some(17));
        assert!(said.starts_with("this ONNX Runtime cannot run operator Cos on a CPU with the datatypes"), "{said}");
    }

    #[test]
    fn a_named_dimension_with_two_sizes_is_told_with_both_inputs() {
        let tensor = |name: &str, shape: &[i64]| Tensor {
            name: name.into(),
            shape: shape.into(),
            data: Data::zeros(Datatype::Fp32, inference::element_count(shape).unwrap()),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let symbols = [names(&["n", ""]), names(&["m", "n"])];
        assert_eq!(of_symbols(&symbols, &[tensor("a", &[4, 2]), tensor("b", &[3, 4])]), None);
        let words = "dimension `n` is 4 in input `a` and 2 in input `b`: the model wants it the same everywhere";
        assert_eq!(of_symbols(&symbols, &[tensor("a", &[4, 2]), tensor("b", &[4, 2])]).as_deref(), Some(words));
    }

    #[test]
    fn a_failed_run_names_the_input_or_the_operator_and_not_the_source_file() {
        let wanted =
            TensorMetadata { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 2], labels: Vec::new() };
        let given = Tensor { name: "x".into(), shape: vec![3], data: Data::Fp32(vec![0.0; 3]) };
        let of_run =
            |said: &str| of_run(said, Fault::Inputs, std::slice::from_ref(&wanted), std::slice::from_ref(&given));
        let said = "Got invalid dimensions for input: x for the following indices\n index: 1 Got: 3 Expected: 2\n";
        assert_eq!(of_run(said), "input `x` has the shape [3], the model wants [-1, 2]");
        let said = "Non-zero status code returned while running Reshape node. Name:'' Status Message: \
                    /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:84 \
                    onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) size != 0 was \
                    false. The input tensor cannot be reshaped. Input shape:{3}, requested shape:{-1,2}\n";
        let words = "the model refuses these inputs in its Reshape: size != 0 was false. The input tensor cannot be reshaped. Input \
                     shape:{3}, requested shape:{-1,2} (the inputs' shapes: `x` [3])";
        assert_eq!(of_run(said), words);
        let said = "Non-zero status code returned while running Expand node. Name:'' Status Message: \
                    /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* f(size_t) Failed to allocate \
                    memory for requested buffer of size 140737488355328\n";
        let words = "the model asks for more memory in its Expand than there is, with inputs of the shapes `x` [3]";
        assert_eq!(of_run(said), words);
    }
}
