//! ModelInfer of the Open Inference Protocol, its messages written down as the protocol has them.

use std::collections::HashMap;

use prost::Message;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Contents {
    #[prost(bool, repeated, tag = "1")]
    pub(crate) bools: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(crate) int32: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) int64: Vec<i64>,
    #[prost(float, repeated, tag = "6")]
    pub(crate) fp32: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub(crate) fp64: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(crate) bytes: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(string, tag = "3")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Answered {
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    raw: Vec<Vec<u8>>,
}

/// One output.
pub(crate) struct Output {
    pub(crate) datatype: String,
    pub(crate) contents: Contents,
    pub(crate) raw: Vec<u8>,
}

impl Output {
    /// The elements of BYTES.
    pub(crate) fn texts(&self) -> Vec<Vec<u8>> {
        if self.raw.is_empty() {
            return self.contents.bytes.clone();
        }
        let (mut texts, mut rest) = (Vec::new(), self.raw.as_slice());
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (text, more) = more.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
            texts.push(text.to_vec());
            rest = more;
        }
        texts
    }
}

/// Contents of one datatype.
pub(crate) fn contents(fill: impl FnOnce(&mut Contents)) -> Contents {
    let mut contents = Contents::default();
    fill(&mut contents);
    contents
}

/// The elements as bytes.
fn bytes(contents: &Contents) -> Vec<u8> {
    let Contents { bools, int32, int64, fp32, fp64, bytes } = contents;
    let mut raw: Vec<u8> = bools.iter().map(|value| u8::from(*value)).collect();
    raw.extend(int32.iter().flat_map(|value| value.to_le_bytes()));
    raw.extend(int64.iter().flat_map(|value| value.to_le_bytes()));
    raw.extend(fp32.iter().flat_map(|value| value.to_le_bytes()));
    raw.extend(fp64.iter().flat_map(|value| value.to_le_bytes()));
    for text in bytes {
        raw.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        raw.extend(text);
    }
    raw
}

/// Asks the model `m` with columns of one dimension.
pub(crate) async fn infer(
    port: u16,
    inputs: Vec<(&str, &str, Contents)>,
    parameters: &[(&str, &str)],
    raw: bool,
) -> Result<Vec<Output>, Status> {
    let count =
        |c: &Contents| c.bools.len() + c.int32.len() + c.int64.len() + c.fp32.len() + c.fp64.len() + c.bytes.len();
    let tensor = |(name, datatype, contents): &(&str, &str, Contents)| Tensor {
        name: (*name).to_owned(),
        datatype: (*datatype).to_owned(),
        shape: vec![i64::try_from(count(contents)).unwrap()],
        contents: (!raw).then(|| contents.clone()),
    };
    let parameter = |(name, text): &(&str, &str)| ((*name).to_owned(), Parameter { text: (*text).to_owned() });
    let asked = Asked {
        model_name: "m".to_owned(),
        parameters: parameters.iter().map(parameter).collect(),
        inputs: inputs.iter().map(tensor).collect(),
        raw: inputs.iter().filter(|_| raw).map(|(.., contents)| bytes(contents)).collect(),
    };
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let codec = ProstCodec::<Asked, Answered>::default();
    let Answered { outputs, raw } = client.unary(Request::new(asked), path, codec).await?.into_inner();
    let output = |(place, output): (usize, Tensor)| Output {
        datatype: output.datatype,
        contents: output.contents.unwrap_or_default(),
        raw: raw.get(place).cloned().unwrap_or_default(),
    };
    Ok(outputs.into_iter().enumerate().map(output).collect())
}
