//! The key of a request: requests with the same key are equal.
//!
//! A cryptographic hash represents the whole content, so no other request can be answered by mistake or by attack, and
//! only the hash is stored. Every part is hashed with its length before it.

use bytes::BytesMut;
use inference::{Data, Json, Parameter, Parameters, Request, Tensor};
use sha2::{Digest as _, Sha256};

/// How many elements are converted to bytes at one time.
const PIECE: usize = 16 << 10;

/// Parameters that change when or in which form an answer comes, but not its content.
const WITHOUT_MEANING: [&str; 6] = [
    "timeout",
    "priority",
    "binary_data",
    "binary_data_output",
    "binary_data_size",
    "triton_enable_empty_final_response",
];

/// The content of a request to one version of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The order of inputs and of outputs matters: the answer keeps the order of the outputs.
    pub(crate) fn of(request: &Request) -> Self {
        let mut hash = Hasher(Sha256::new());
        hash.parameters(&request.parameters);
        hash.number(request.inputs.len());
        for input in &request.inputs {
            hash.tensor(input);
        }
        hash.number(request.input_parameters.len());
        for (name, parameters) in &request.input_parameters {
            hash.bytes(name.as_bytes());
            hash.parameters(parameters);
        }
        hash.number(request.outputs.len());
        for output in &request.outputs {
            hash.bytes(output.name.as_bytes());
            hash.parameters(&output.parameters);
        }
        Self(hash.0.finalize().into())
    }

    #[cfg(test)]
    pub(super) fn numbered(number: u8) -> Self {
        Self([number; 32])
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.bytes(tensor.name.as_bytes());
        self.bytes(tensor.datatype().name().as_bytes());
        self.number(tensor.shape.len());
        tensor.shape.iter().for_each(|dimension| self.0.update(dimension.to_le_bytes()));
        self.data(&tensor.data);
    }

    fn data(&mut self, data: &Data) {
        self.number(data.len());
        if let Data::Bytes(elements) | Data::Json(Json { texts: elements, .. }) = data {
            elements.iter().for_each(|element| self.bytes(element));
            return;
        }
        let mut bytes = BytesMut::new();
        for start in (0..data.len()).step_by(PIECE) {
            let mut piece = Data::empty(data.datatype());
            piece.append(data, start..(start + PIECE).min(data.len()));
            bytes.clear();
            piece.write_binary(&mut bytes);
            self.0.update(&bytes);
        }
    }

    fn parameters(&mut self, parameters: &Parameters) {
        let meant = || parameters.iter().filter(|(name, _)| !WITHOUT_MEANING.contains(&name.as_str()));
        self.number(meant().count());
        for (name, value) in meant() {
            self.bytes(name.as_bytes());
            let (kind, bytes) = match value {
                Parameter::Bool(value) => (0, vec![u8::from(*value)]),
                Parameter::Int(value) => (1, value.to_le_bytes().to_vec()),
                Parameter::Uint(value) => (2, value.to_le_bytes().to_vec()),
                Parameter::Float(value) => (3, value.to_le_bytes().to_vec()),
                Parameter::Text(value) => (4, value.as_bytes().to_vec()),
            };
            self.number(kind);
            self.bytes(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use inference::RequestedOutput;

    use super::*;

    fn request(name: &str, shape: &[i64], data: Data) -> Request {
        let input = Tensor { name: name.into(), shape: shape.into(), data };
        Request { inputs: vec![input], ..Request::default() }
    }

    #[test]
    fn everything_that_may_change_an_answer_makes_another_key() {
        let numbers = |n: f32| Data::Fp32(vec![1.0, n]);
        let mut named = request("x", &[1, 2], numbers(2.0));
        named.outputs = vec![RequestedOutput { name: "y".into(), parameters: Parameters::new() }];
        let mut seeded = request("x", &[1, 2], numbers(2.0));
        seeded.parameters.insert("seed".into(), Parameter::Int(1));
        let mut worded = seeded.clone();
        worded.parameters.insert("seed".into(), Parameter::Text("1".into()));
        let texts =
            |texts: &[&str]| Data::Bytes(texts.iter().map(|t| bytes::Bytes::copy_from_slice(t.as_bytes())).collect());
        let different = [
            request("x", &[1, 2], numbers(2.0)),
            request("z", &[1, 2], numbers(2.0)),
            request("x", &[2, 1], numbers(2.0)),
            request("x", &[2], numbers(2.0)),
            request("x", &[1, 2], numbers(3.0)),
            request("x", &[1, 2], numbers(-0.0)),
            request("x", &[1, 2], numbers(0.0)),
            request("x", &[1, 2], Data::Int32(vec![1, 2])),
            request("x", &[1, 2], texts(&["ab", "c"])),
            request("x", &[1, 2], texts(&["a", "bc"])),
            named,
            seeded,
            worded,
        ];
        for (place, one) in different.iter().enumerate() {
            for (other_place, other) in different.iter().enumerate() {
                assert_eq!(Key::of(one) == Key::of(other), place == other_place, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_id_and_the_form_of_the_answer_do_not_matter_and_the_end_of_long_data_does() {
        let long = |last: f64| {
            let mut data = vec![0.0; PIECE + 1];
            data[PIECE] = last;
            request("x", &[1], Data::Fp64(data))
        };
        let mut other = long(1.0);
        other.id = Some("7".into());
        other.parameters.insert("timeout".into(), Parameter::Int(7));
        other.parameters.insert("binary_data_output".into(), Parameter::Bool(true));
        assert_eq!(Key::of(&long(1.0)), Key::of(&other));
        assert_ne!(Key::of(&long(1.0)), Key::of(&long(2.0)));
    }
}
