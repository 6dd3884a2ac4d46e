//! Checks whether a request fits the signature of a model, before the model gets it.

use api::decode::nearest;
use inference::{RequestedOutput, SHARED_MEMORY, Tensor, TensorMetadata};

use crate::{
    error::InferError,
    mlflow,
    runtime::{Signature, absent},
};

/// Puts the inputs into the order of the signature, if each of them fits.
pub(crate) fn order_inputs(signature: &Signature, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
    let mut inputs = mlflow::table::fit(signature, inputs)?;
    // Nearly every request has one input, at its position.
    if let ([wanted], [given]) = (signature.inputs.as_slice(), inputs.as_mut_slice())
        && wanted.name == given.name
    {
        fits(wanted, signature.unranked.contains(&0), given)?;
        return Ok(inputs);
    }
    let known = || signature.inputs.iter().chain(&signature.defaults);
    let mut places: Vec<Option<Tensor>> = known().map(|_| None).collect();
    for mut input in inputs {
        let Some((place, wanted)) = known().enumerate().find(|(_, wanted)| wanted.name == input.name) else {
            return Err(unknown(&input.name, "input", known()));
        };
        fits(wanted, signature.unranked.contains(&place), &mut input)?;
        if places[place].is_some() {
            return Err(InferError::Invalid(format!("input `{}` was sent twice", input.name)));
        }
        places[place] = Some(input);
    }
    for place in &signature.optional {
        places[*place].get_or_insert_with(|| absent(&signature.inputs[*place]));
    }
    let missing = signature.inputs.iter().zip(&places).find(|(_, given)| given.is_none());
    match missing {
        Some((wanted, _)) => Err(InferError::Invalid(format!(
            "input `{}` is missing: the model wants it as {} of shape {:?}",
            wanted.name, wanted.datatype, wanted.shape
        ))),
        None => Ok(places.into_iter().flatten().collect()),
    }
}

/// For a table, whose columns have equal lengths: checks that all given inputs have the same number of rows.
pub(crate) fn same_rows(signature: &Signature, inputs: &[Tensor]) -> Result<(), InferError> {
    let rows = |input: &Tensor| input.shape.first().copied().unwrap_or(0);
    let left_out = |place: usize, input: &Tensor| rows(input) == 0 && signature.optional.contains(&place);
    let mut sent = inputs.iter().enumerate().filter(|(place, input)| !left_out(*place, input)).map(|(_, input)| input);
    let Some(first) = sent.next() else { return Ok(()) };
    match sent.find(|other| rows(other) != rows(first)) {
        Some(other) => Err(InferError::Invalid(format!(
            "input `{}` has {} rows and input `{}` {}: the first dimension of all inputs must be the same",
            first.name,
            rows(first),
            other.name,
            rows(other)
        ))),
        None => Ok(()),
    }
}

/// Options of Triton's clients for an output that are not supported, and what to do without them.
const UNSERVED: [(&str, &str); 2] = [
    ("classification", "leave it out, and take the largest of the scores that come"),
    (SHARED_MEMORY, "outputs come in the answer, as `binary_data` if you like"),
];

/// The positions of the requested outputs; all of them if none is named, but intermediate features only if they are
/// named.
pub(crate) fn choose_outputs(signature: &Signature, wanted: &[RequestedOutput]) -> Result<Vec<usize>, InferError> {
    if wanted.is_empty() {
        let features = features(signature);
        return Ok((0..signature.outputs.len()).filter(|place| !features.contains(place)).collect());
    }
    let mut places: Vec<usize> = Vec::with_capacity(wanted.len());
    for output in wanted {
        if let Some((name, instead)) = UNSERVED.iter().find(|(name, _)| output.parameters.contains_key(*name)) {
            return Err(InferError::Invalid(format!("output `{}`: there is no `{name}` here: {instead}", output.name)));
        }
        let place = signature.outputs.iter().position(|known| known.name == output.name);
        let place = place.ok_or_else(|| unknown(&output.name, "output", signature.outputs.iter()))?;
        if places.contains(&place) {
            return Err(InferError::Invalid(format!("output `{}` was asked for twice", output.name)));
        }
        places.push(place);
    }
    Ok(places)
}

/// The positions of the outputs that are intermediate features of a Python model.
pub(crate) fn features(signature: &Signature) -> Vec<usize> {
    if !signature.platform.starts_with("python") {
        return Vec::new();
    }
    let named = |(place, output): (usize, &TensorMetadata)| output.name.starts_with("features.").then_some(place);
    signature.outputs.iter().enumerate().filter_map(named).collect()
}

fn unknown<'s>(name: &str, kind: &str, known: impl Iterator<Item = &'s TensorMetadata> + Clone) -> InferError {
    let names = || known.clone().map(|tensor| tensor.name.as_str());
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<_> = names().take(16).map(|name| format!("`{name}`")).collect();
            format!("it has {}", names.join(", "))
        }
    };
    InferError::Invalid(format!("the model has no {kind} `{name}`; {hint}"))
}

/// Whether an input is what the model wants. Extra dimensions of 1 at its end are removed: MLServer's clients write a
/// list as `[n, 1]`, and a scalar as `[1]`. The dimensions of an `unranked` input are known only to the model.
fn fits(wanted: &TensorMetadata, unranked: bool, given: &mut Tensor) -> Result<(), InferError> {
    if wanted.datatype != given.datatype() {
        return Err(InferError::Invalid(format!(
            "input `{}` is {}, the model wants {}",
            wanted.name,
            given.datatype(),
            wanted.datatype
        )));
    }
    let alike = |(wanted, given): (&i64, &i64)| *wanted < 0 || wanted == given;
    let rank = wanted.shape.len();
    if unranked {
        return given.check_shape().map_err(|e| InferError::Invalid(format!("input `{}`: {e}", wanted.name)));
    }
    if given.shape.get(rank..).is_some_and(|rest| rest.iter().all(|size| *size == 1)) {
        given.shape.truncate(rank);
    }
    if wanted.shape.len() == given.shape.len() && wanted.shape.iter().zip(&given.shape).all(alike) {
        return given.check_shape().map_err(|e| InferError::Invalid(format!("input `{}`: {e}", wanted.name)));
    }
    let any = match wanted.shape.as_slice() {
        [] => ": one value, a scalar",
        shape if shape.contains(&-1) => " (-1 is any size)",
        _ => "",
    };
    Err(InferError::Invalid(format!(
        "input `{}` has the shape {:?}, the model wants {:?}{any}",
        wanted.name, given.shape, wanted.shape
    )))
}

#[cfg(test)]
mod tests {
    use inference::{Data, Datatype};

    use super::*;
    use crate::runtime::is_absent;

    fn signature() -> Signature {
        let tensor = |name: &str, datatype, shape: &[i64]| TensorMetadata {
            name: name.into(),
            datatype,
            shape: shape.into(),
            labels: Vec::new(),
        };
        Signature {
            platform: "test",
            rows: false,
            inputs: vec![tensor("image", Datatype::Fp32, &[-1, 2]), tensor("scale", Datatype::Int64, &[1])],
            outputs: vec![tensor("label", Datatype::Int64, &[-1]), tensor("score", Datatype::Fp32, &[-1, 3])],
            ..Signature::default()
        }
    }

    fn image(shape: &[i64]) -> Tensor {
        let count = inference::element_count(shape).unwrap();
        Tensor { name: "image".into(), shape: shape.into(), data: Data::zeros(Datatype::Fp32, count) }
    }

    fn scale() -> Tensor {
        Tensor { name: "scale".into(), shape: vec![1], data: Data::Int64(vec![2]) }
    }

    #[track_caller]
    fn check(inputs: Vec<Tensor>, words: &str) {
        assert_eq!(order_inputs(&signature(), inputs).unwrap_err().to_string(), words);
    }

    #[test]
    fn inputs_come_in_any_order() {
        let ordered = order_inputs(&signature(), vec![scale(), image(&[7, 2])]).unwrap();
        assert_eq!((ordered[0].name.as_str(), ordered[1].name.as_str()), ("image", "scale"));
    }

    #[test]
    fn what_may_be_left_out_is_marked_as_absent() {
        let optional = Signature { optional: vec![0], ..signature() };
        let ordered = order_inputs(&optional, vec![scale()]).unwrap();
        assert!(is_absent(&ordered[0]) && !is_absent(&ordered[1]));
        assert!(!is_absent(&order_inputs(&optional, vec![scale(), image(&[1, 2])]).unwrap()[0]));
        assert!(order_inputs(&optional, vec![image(&[1, 2])]).unwrap_err().to_string().contains("`scale` is missing"));
    }

    #[test]
    fn dimensions_of_one_that_are_too_many_are_taken_away() {
        let listed = Tensor { name: "scale".into(), shape: vec![1, 1], data: Data::Int64(vec![2]) };
        let ordered = order_inputs(&signature(), vec![image(&[7, 2, 1, 1]), listed]).unwrap();
        assert_eq!((&ordered[0].shape, &ordered[1].shape), (&vec![7, 2], &vec![1]));
        check(
            vec![image(&[7, 2, 2]), scale()],
            "input `image` has the shape [7, 2, 2], the model wants [-1, 2] (-1 is any size)",
        );
    }

    #[test]
    fn what_does_not_fit_is_said_in_plain_words() {
        check(vec![image(&[7, 2])], "input `scale` is missing: the model wants it as INT64 of shape [1]");
        check(
            vec![image(&[7, 3]), scale()],
            "input `image` has the shape [7, 3], the model wants [-1, 2] (-1 is any size)",
        );
        check(vec![image(&[2]), scale()], "input `image` has the shape [2], the model wants [-1, 2] (-1 is any size)");
        check(vec![image(&[1, 2]), scale(), scale()], "input `scale` was sent twice");
        let wrong = Tensor { data: Data::Fp64(vec![1.0]), ..scale() };
        check(vec![image(&[1, 2]), wrong], "input `scale` is FP64, the model wants INT64");
        let wrong = Tensor { name: "imagee".into(), ..image(&[1, 2]) };
        check(vec![wrong, scale()], "the model has no input `imagee`; did you mean `image`?");
        let wrong = Tensor { name: "pixels".into(), ..image(&[1, 2]) };
        check(vec![wrong, scale()], "the model has no input `pixels`; it has `image`, `scale`");
    }

    #[test]
    fn outputs_are_chosen_by_name_and_all_by_default() {
        let named = |name: &str| RequestedOutput { name: name.into(), parameters: Default::default() };
        assert_eq!(choose_outputs(&signature(), &[]).unwrap(), [0, 1]);
        assert_eq!(choose_outputs(&signature(), &[named("score")]).unwrap(), [1]);
        let said = choose_outputs(&signature(), &[named("scores")]).unwrap_err().to_string();
        assert_eq!(said, "the model has no output `scores`; did you mean `score`?");
        let parameters = [("classification".to_owned(), inference::Parameter::Int(2))].into();
        let said = choose_outputs(&signature(), &[RequestedOutput { name: "score".into(), parameters }]).unwrap_err();
        assert!(said.to_string().starts_with("output `score`: there is no `classification` here"), "{said}");
    }

    #[test]
    fn intermediate_features_are_only_for_those_who_ask() {
        let mut signature = Signature { platform: "python_class", ..signature() };
        signature.outputs[1].name = "features.score".into();
        let named = |name: &str| RequestedOutput { name: name.into(), parameters: Default::default() };
        assert_eq!(choose_outputs(&signature, &[]).unwrap(), [0]);
        assert_eq!(choose_outputs(&signature, &[named("features.score")]).unwrap(), [1]);
        assert_eq!(features(&signature), [1]);
        // The output of another runtime may have any name.
        assert_eq!(choose_outputs(&Signature { platform: "test", ..signature }, &[]).unwrap(), [0, 1]);
    }
}
