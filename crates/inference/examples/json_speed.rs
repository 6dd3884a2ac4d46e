//! How long the bodies of typical requests take to read and to write, on one core:
//! `cargo run --release -p modelway-inference --example json_speed`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people to read")]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use modelway_inference::{Data, Datatype, Nan, Request, Response, Tensor, nested_data, write_nested};

/// Rounds of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 21;

fn fastest(mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..200 {
            work();
        }
        best = best.min(began.elapsed().as_secs_f64() / 200.0);
    }
    best * 1e6
}

fn tensor(name: &str, shape: &[i64], data: Data) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), data }
}

/// Numbers as a client has them that turns 32 bits into 64 before it writes them: 16 digits and more.
fn long_floats(count: u16) -> Vec<f64> {
    (0..count).map(|n| f64::from((f32::from(n) * 0.731).sin())).collect()
}

fn main() {
    let short = |count: u16| Data::Fp32((0..count).map(|n| (f32::from(n) * 0.731).sin()).collect());
    let ints = |count: i64| Data::Int64((0..count).map(|n| n * 7919 % 30_522).collect());
    let bodies = [
        ("iris", vec![tensor("X", &[1, 4], Data::Fp32(vec![5.1, 3.5, 1.4, 0.2]))]),
        ("MLP, short floats", vec![tensor("x", &[1, 768], short(768))]),
        ("MLP, long floats", vec![tensor("x", &[1, 768], Data::Fp64(long_floats(768)))]),
        ("encoder", vec![tensor("ids", &[1, 64], ints(64)), tensor("mask", &[1, 64], ints(64))]),
    ];
    println!("{:20} {:>8} {:>10} {:>10} {:>10} {:>10}", "", "bytes", "read µs", "V1 µs", "binary µs", "write µs");
    for (name, inputs) in bodies {
        let request = Request { inputs, ..Request::default() };
        let encoded = request.encode(false).unwrap().body;
        let body = Bytes::from(String::from_utf8(encoded.to_vec()).unwrap().replace("FP64", "FP32"));
        let read = fastest(|| drop(black_box(Request::decode(black_box(&body), None).unwrap())));
        let mut instances = Vec::new();
        write_nested(&mut instances, &request.inputs[0], Nan::Word).unwrap();
        let instances = String::from_utf8(instances).unwrap();
        let sent = request.inputs[0].datatype();
        let datatype = if sent == Datatype::Fp64 { Datatype::Fp32 } else { sent };
        let rows = fastest(|| drop(black_box(nested_data(black_box(&instances), datatype).unwrap())));
        let packed = Request::decode(&body, None).unwrap().encode(true).unwrap();
        let binary = fastest(|| drop(black_box(Request::decode(&packed.body, packed.header_length).unwrap())));
        let response = Response { outputs: request.inputs.clone(), ..Response::default() };
        let write = fastest(|| drop(black_box(response.encode(Nan::Word, |_| false).unwrap())));
        println!("{name:20} {:>8} {read:>10.2} {rows:>10.2} {binary:>10.2} {write:>10.2}", body.len());
    }
}
