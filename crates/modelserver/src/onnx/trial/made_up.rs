//! Inputs that are made up to be like those of a request.

use bytes::Bytes;
use inference::{Data, Datatype, Tensor, TensorMetadata, element_count};

use crate::runtime::{Signature, is_no_count, sample};

/// Made-up inputs with more elements are not tried.
const MOST_ELEMENTS: usize = 1 << 20;

/// What is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Zero,
    One,
}

/// Inputs like those of a request, with `sized` sizes where the model leaves them open and nothing is empty. Numbers of 0
/// or less stay what they are. `None`: they would be too large.
pub(super) fn like(
    inputs: &[Tensor],
    signature: &Signature,
    sized: impl Fn(i64) -> i64,
    values: Values,
) -> Option<Vec<Tensor>> {
    let one = |input: &Tensor| {
        let mut all = signature.inputs.iter().chain(&signature.defaults);
        tensor(input, all.find(|described| described.name == input.name), &sized, values)
    };
    inputs.iter().map(one).collect()
}

fn tensor(
    input: &Tensor,
    described: Option<&TensorMetadata>,
    sized: impl Fn(i64) -> i64,
    values: Values,
) -> Option<Tensor> {
    if is_no_count(input) {
        return Some(input.clone());
    }
    let open = |place: usize| {
        let shape = described.map(|described| &described.shape);
        shape.is_none_or(|shape| shape.len() != input.shape.len() || shape[place] < 0)
    };
    let sized = |(place, given): (usize, &i64)| if *given != 0 && open(place) { sized(*given) } else { *given };
    let shape: Vec<i64> = input.shape.iter().enumerate().map(sized).collect();
    let count = element_count(&shape).ok().filter(|count| *count <= MOST_ELEMENTS)?;
    let data = match (input.datatype(), values) {
        (Datatype::Bytes, Values::Zero) => Data::Bytes(vec![Bytes::new(); count]),
        (Datatype::Bytes, Values::One) => Data::Bytes(vec![Bytes::from_static(b"a"); count]),
        (datatype, Values::Zero) => Data::zeros(datatype, count),
        (datatype, Values::One) => sample::all_one(datatype, count),
    };
    Some(Tensor { name: input.name.clone(), shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_tensor_is_empty_where_the_request_is_and_sized_where_the_model_leaves_it_open() {
        let open = TensorMetadata {
            name: "x".to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![-1, -1, 4],
            labels: Vec::new(),
        };
        let given = Tensor { name: "x".to_owned(), shape: vec![0, 7, 4], data: Data::zeros(Datatype::Fp32, 0) };
        assert_eq!(tensor(&given, Some(&open), |_| 2, Values::One).unwrap().shape, [0, 2, 4]);
        assert_eq!(tensor(&given, Some(&open), |given| given / 2, Values::One).unwrap().shape, [0, 3, 4]);
    }
}
