use bytes::Bytes;
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

fn decode(json: &str) -> Result<Request, Malformed> {
    Request::decode(&Bytes::copy_from_slice(json.as_bytes()), None)
}

/// The complaint about a request whose one input is this.
fn complaint(input: &str) -> String {
    decode(&format!(r#"{{"inputs":[{input}]}}"#)).unwrap_err().0
}

fn check(input: &str, words: &str) {
    let complaint = complaint(input);
    assert!(complaint.contains(words), "expected {words:?} in {complaint:?}");
}

#[test]
fn nested_and_flat_data_are_the_same_tensor_whatever_the_order_of_fields() {
    let wanted = Tensor { name: "x".into(), shape: vec![2, 2], data: Data::Fp32(vec![1.0, 2.5, -3.0, 4e-3]) };
    for input in [
        r#"{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3,0.004]}"#,
        r#"{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,0.004]]}"#,
        r#"{"data":[[1,2.5],[-3,0.004]],"datatype":"FP32","shape":[2,2],"name":"x"}"#,
        r#"{"data":[1,2.5,-3,0.004],"shape":[2,2],"parameters":{"a":1},"datatype":"FP32","name":"x"}"#,
    ] {
        let request = decode(&format!(r#"{{"id":"7","inputs":[{input}]}}"#)).unwrap();
        assert_eq!(request.inputs, std::slice::from_ref(&wanted), "{input}");
        assert_eq!(request.id.as_deref(), Some("7"));
    }
}

#[test]
fn a_wrong_input_is_named_with_the_place_and_what_to_do() {
    check(
        r#"{"name":"x","shape":[2],"datatype":"FP32","data":[1,"two"]}"#,
        r#"(`x`): element 1 is the string "two", not a number"#,
    );
    check(
        r#"{"name":"x","shape":[2],"datatype":"INT8","data":[1,300]}"#,
        "element 1 is 300, not a whole number from -128 to 127",
    );
    check(r#"{"name":"x","shape":[2],"datatype":"INT64","data":[1,1.5]}"#, "element 1 is 1.5");
    check(r#"{"name":"x","shape":[2],"datatype":"FP32","data":[1,null]}"#, "element 1 is null");
    check(
        r#"{"name":"x","shape":[1],"datatype":"FP16","data":[70000]}"#,
        "element 0 is 70000, not a number in the range of FP16",
    );
    check(r#"{"name":"x","shape":[3],"datatype":"FP32","data":[1,2]}"#, "has 3 elements, `data` has 2");
    check(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1,2]}"#, "more elements than the 1 of the shape");
    check(
        r#"{"name":"x","shape":[2,3],"datatype":"FP32","data":[[1,2],[3,4],[5,6]]}"#,
        "holds 2 elements, the shape wants 3",
    );
    check(
        r#"{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,[2,3],4]}"#,
        "one flat list, or lists nested 2 deep",
    );
    check(r#"{"name":"x","shape":[2],"datatype":"FP32","data":[[1,2]]}"#, "nested");
    check(r#"{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}"#, "negative dimension -1");
    check(r#"{"name":"x","shape":[9223372036854775807,4],"datatype":"FP32","data":[1]}"#, "too large");
    let many = vec!["1"; 65].join(",");
    check(
        &format!(r#"{{"name":"x","shape":[{many}],"datatype":"FP32","data":[1]}}"#),
        "the shape has 65 dimensions, at most 64 are allowed",
    );
    check(r#"{"name":"x","shape":[1],"datatype":"FLOAT","data":[1]}"#, "did you mean `FP32`?");
    check(
        r#"{"name":"x","shape":[1],"datatpye":"FP32","data":[1]}"#,
        "`datatype` is missing in inputs[0] (`x`); `datatpye` is not a field: did you mean `datatype`?",
    );
    check(r#"{"name":"x","shape":[1],"datatype":"FP32","dta":[1]}"#, "did you mean `data`?");
    check(r#"{"nam":"x","shape":[1],"datatype":"FP32","data":[1]}"#, "did you mean `name`?");
    check(r#"{"name":"x","datatype":"FP32","data":[1]}"#, "`shape` is missing in inputs[0] (`x`)");
    check(r#"{"name":"x","shape":[1],"datatype":"FP32"}"#, "input `x` has no `data`");
    check(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[nan]}"#, "expected ident");
    check(r#"{"name":"x","name":"y","shape":[1],"datatype":"FP32","data":[1]}"#, "`name` occurs twice");
    check(r#"{"name":"x","shape":"2","datatype":"FP32","data":[1]}"#, "`shape` of inputs[0] (`x`)");
    assert!(decode(r#"{"input":[]}"#).unwrap_err().0.contains("did you mean `inputs`?"));
    assert!(decode(r"{}").unwrap_err().0.contains("`inputs` is missing: "));
    assert!(decode(r#"{"inputs":[]} x"#).unwrap_err().0.contains("not JSON"));
    assert!(decode(r"[]").unwrap_err().0.contains("an object as the body"));
}

#[test]
fn binary_bodies_name_what_does_not_fit() {
    let complaint = |parameters: &str, datatype: &str, shape: &str, tail: &[u8]| {
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{parameters}}}]}}"#
        );
        let mut body = json.clone().into_bytes();
        body.extend_from_slice(tail);
        Request::decode(&body.into(), Some(json.len())).unwrap_err().0
    };
    let eight = r#"{"binary_data_size":8}"#;
    assert!(complaint(eight, "FP32", "[2]", &[0; 7]).contains("only 7 bytes are left after the JSON"));
    assert!(complaint(eight, "FP32", "[3]", &[0; 8]).contains("take 12 bytes, 8 were sent"));
    assert!(complaint(eight, "FP32", "[2]", &[0; 9]).contains("1 bytes are left after the last binary tensor"));
    assert!(complaint(eight, "BOOL", "[8]", &[0, 1, 0, 1, 0, 1, 9, 0]).contains("element 6 is 9"));
    assert!(complaint(eight, "BYTES", "[1]", &[9, 0, 0, 0, 1, 2, 3, 4]).contains("element 0 claims 9 bytes, only 4"));
    assert!(complaint(eight, "BYTES", "[900000000]", &[0; 8]).contains("do not fit"));
    assert!(complaint(r#"{"binary_data_size":-1}"#, "FP32", "[1]", &[]).contains("whole number"));
    let body = Bytes::from_static(b"{}");
    assert!(Request::decode(&body, Some(3)).unwrap_err().0.contains("the body has only 2 bytes"));
}

#[test]
fn a_raw_body_is_the_one_input() {
    let body: Bytes = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let request = Request::from_raw(&body, "x", Datatype::Fp32, &[-1, 2]).unwrap();
    assert_eq!(
        request.inputs,
        [Tensor { name: "x".into(), shape: vec![2, 2], data: Data::Fp32(vec![1.0, 2.0, 3.0, 4.0]) }]
    );
    assert!(request.wants_binary("anything"));
    assert!(Request::from_raw(&body, "x", Datatype::Fp32, &[-1, 3]).is_err());
    let request = Request::from_raw(&body, "x", Datatype::Fp32, &[-1, -1]).unwrap();
    assert_eq!(request.inputs[0].shape, [1, 4]);
    let request = Request::from_raw(&Bytes::from_static(b"hello"), "x", Datatype::Bytes, &[-1]).unwrap();
    assert_eq!(request.inputs[0].data, Data::Bytes(vec![Bytes::from_static(b"hello")]));
}

#[test]
fn the_outputs_own_word_on_binary_wins_over_the_requests() {
    let request = decode(
        r#"{"inputs":[],"parameters":{"binary_data_output":true},
            "outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}"#,
    )
    .unwrap();
    assert!(!request.wants_binary("a"));
    assert!(request.wants_binary("b"));
}

#[test]
fn numbers_that_json_lacks_travel_as_words() {
    let data = Data::Fp32(vec![f32::INFINITY, f32::NEG_INFINITY, 1.0]);
    let response = Response { outputs: vec![Tensor { name: "y".into(), shape: vec![3], data }], ..Response::default() };
    let encoded = response.encode(Nan::Word, |_| false).unwrap();
    assert!(encoded.body.ends_with(br#""data":["Infinity","-Infinity",1.0]}]}"#), "{encoded:?}");
    assert_eq!(Response::decode(&encoded.body, None).unwrap(), response);
}

#[test]
fn bare_nan_and_infinity_are_floats_and_nothing_else() {
    let of = |datatype: &str, data: &str, order: bool| {
        let fields = [format!(r#""shape":[3],"datatype":"{datatype}""#), format!(r#""data":{data}"#)];
        let (first, second) = if order { (0, 1) } else { (1, 0) };
        decode(&format!(r#"{{"inputs":[{{"name":"x",{},{}}}]}}"#, fields[first], fields[second]))
    };
    for data in ["[NaN,Infinity,-Infinity]", "[ NaN , Infinity\n,-Infinity ]", r#"["NaN","Infinity","-Infinity"]"#] {
        for order in [true, false] {
            let wanted = "[NaN, inf, -inf]";
            for (datatype, kind) in [("FP16", "Fp16"), ("BF16", "Bf16"), ("FP32", "Fp32"), ("FP64", "Fp64")] {
                let read = of(datatype, data, order).unwrap();
                assert_eq!(format!("{:?}", read.inputs[0].data), format!("{kind}({wanted})"), "{data}");
            }
        }
    }
    for (datatype, words) in [
        ("INT64", "element 1 is NaN, not a whole number"),
        ("BOOL", "element 1 is NaN, not true or false"),
        ("BYTES", "NaN, not a string"),
    ] {
        let (first, refused) = if datatype == "BYTES" { ("\"a\"", "BYTES") } else { ("1", datatype) };
        let complaint = of(refused, &format!("[{first},NaN,{first}]"), true).unwrap_err().0;
        assert!(complaint.contains(words), "{complaint}");
    }
    let (shape, data) = nested_data("[[NaN, 1], [2, -Infinity]]", Datatype::Fp32).unwrap();
    assert_eq!((shape, format!("{data:?}")), (vec![2, 2], "Fp32([NaN, 1.0, 2.0, -inf])".to_owned()));
    let replaced = replace_bare_floats(b"[[NaN], [1]]").unwrap();
    let (shape, data) = nested_data(std::str::from_utf8(&replaced).unwrap(), Datatype::Fp64).unwrap();
    assert_eq!((shape, format!("{data:?}")), (vec![2, 1], "Fp64([NaN, 1.0])".to_owned()));
    let request = decode(r#"{"inputs":[],"parameters":{"low":-Infinity,"word":"NaN"}}"#).unwrap();
    assert_eq!(request.parameters["low"], Parameter::Float(f64::NEG_INFINITY));
    assert_eq!(request.parameters["word"], Parameter::Text("NaN".into()));
    assert!(decode(r#"{"inputs":[],"parameters":{"a":{}}}"#).is_err());
    let body = decode(r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}] x"#).unwrap_err().0;
    assert!(body.starts_with("the body is not JSON: ") && !body.contains("column"), "{body}");
}

#[test]
fn both_readers_read_the_words_for_floats_alike() {
    for data in [
        "[1,NaN,2.5]",
        r#"["-Infinity",1,"NaN"]"#,
        "[[Infinity],[-Infinity],[0]]",
        r#"[{"\u0000":0},{"\u0000":1},{"\u0000":-1}]"#,
    ] {
        let shape = if data.starts_with("[[") { "[3,1]" } else { "[3]" };
        let body = format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":{data}}}]}}"#);
        let fast = json_fast::request(body.as_bytes()).map(|read| format!("{read:?}"));
        let other = json_read::read::<json_read::ReadOutput>(body.as_bytes()).map(|read| format!("{read:?}"));
        assert_eq!(fast, other.ok(), "{data}");
        assert!(fast.is_some(), "{data}");
    }
}

#[test]
fn a_field_like_data_is_ignored_where_the_data_comes_behind_the_json() {
    let json =
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","parameters":{"binary_data_size":4},"date":1}]}"#;
    let body = Bytes::from([json.as_bytes(), &7_i32.to_le_bytes()].concat());
    let request = Request::decode(&body, Some(json.len())).unwrap();
    assert_eq!(request.inputs[0].data, Data::Int32(vec![7]));
    assert_eq!(request.ignored.header().as_deref(), Some("inputs[0].date"));
}

#[test]
fn fields_that_nobody_knows_are_ignored_and_named() {
    let request = decode(
        r#"{"model":"m","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"layout":{"a":[1,NaN]}},
            {"name":"y","shape":[1],"datatype":"FP32","unit":"m","data":[NaN]}],
            "outputs":[{"name":"z","classification":0}],"raw_request":null}"#,
    )
    .unwrap();
    assert_eq!((request.inputs.len(), request.outputs.len()), (2, 1));
    let named = "model, inputs[0].layout, inputs[1].unit, outputs[0].classification, raw_request";
    assert_eq!((request.ignored.count(), request.ignored.header().as_deref()), (5, Some(named)));
    let twice = decode(r#"{"inputs":[],"inputs":[]}"#).unwrap_err().0;
    assert!(twice.contains("`inputs` occurs twice"), "{twice}");
    assert!(decode(r#"{"inputs":[],"x":[1,}"#).unwrap_err().0.contains("not JSON"));
    let response = Bytes::from_static(br#"{"model_name":"m","outputs":[],"extra":1}"#);
    assert_eq!(Response::decode(&response, None).unwrap().model_name, "m");
}

#[test]
fn nested_lists_show_their_shape() {
    let (shape, data) = nested_data("[[1, 2], [3, 4], [5, 6]]", Datatype::Int64).unwrap();
    assert_eq!((shape.as_slice(), &data), (&[3, 2][..], &Data::Int64(vec![1, 2, 3, 4, 5, 6])));
    assert!(nested_data("[[1, 2], [3]]", Datatype::Int64).unwrap_err().0.contains("the shape wants 2"));
    let longer = nested_data("[[1, 2], [3, 4, 5]]", Datatype::Int64).unwrap_err();
    assert_eq!(longer.0, "its rows are not alike: by the first one the shape is [2, 2]");
    let mut out = Vec::new();
    write_nested(&mut out, &Tensor { name: String::new(), shape, data }, Nan::Word).unwrap();
    assert_eq!(out, b"[[1,2],[3,4],[5,6]]");
}

#[test]
fn a_float_that_is_missing_is_a_word_or_null() {
    let written = |data: Data, nan: Nan| {
        let tensor = Tensor { name: "y".into(), shape: vec![3], data };
        let mut out = Vec::new();
        write_nested(&mut out, &tensor, nan).unwrap();
        let response = Response { outputs: vec![tensor], ..Response::default() };
        let encoded = response.encode(nan, |_| false).unwrap().body;
        let text = String::from_utf8(out).unwrap();
        assert!(String::from_utf8(encoded.to_vec()).unwrap().contains(&format!("\"data\":{text}")));
        text
    };
    let floats = || Data::Fp32(vec![0.1, f32::NAN, f32::NEG_INFINITY]);
    assert_eq!(written(floats(), Nan::Word), r#"[0.1,"NaN","-Infinity"]"#);
    assert_eq!(written(floats(), Nan::Null), r#"[0.1,null,"-Infinity"]"#);
    assert_eq!(written(Data::Fp64(vec![1.0, 2.5, f64::NAN]), Nan::Null), "[1.0,2.5,null]");
    assert_eq!(written(Data::Int64(vec![1, 2, 3]), Nan::Null), "[1,2,3]");
}

#[test]
fn bytes_that_are_no_text_are_written_in_base64_and_read_again() {
    let data = Data::Bytes(vec![Bytes::from_static(b"\xff\x00"), Bytes::from_static(b"hi")]);
    let tensor = Tensor { name: String::new(), shape: vec![2, 1], data };
    let mut out = Vec::new();
    write_nested(&mut out, &tensor, Nan::Word).unwrap();
    assert_eq!(out, br#"[[{"b64":"/wA="}],[{"b64":"aGk="}]]"#);
    let (shape, data) = nested_data(std::str::from_utf8(&out).unwrap(), Datatype::Bytes).unwrap();
    assert_eq!((&shape, &data), (&tensor.shape, &tensor.data));
    let mut row = Vec::new();
    write_row(&mut row, &tensor, 0, Nan::Word).unwrap();
    assert_eq!(row, br#"[{"b64":"/wA="}]"#);
    assert!(nested_data(r#"[{"b64":"AA=="}]"#, Datatype::Fp32).unwrap_err().0.contains("base64, not a number"));
}

#[test]
fn the_usual_requests_are_read_by_the_fast_reader() {
    for body in [
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3,4e-3]}]}"#,
        r#"{"id": "7", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 0.25]]}]}"#,
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["a"]},{"name":"y","shape":[1],"datatype":"BOOL","data":[true]}],
            "parameters":{"timeout":5},"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#,
    ] {
        let read = json_fast::request(body.as_bytes());
        assert!(read.is_some(), "{body}");
        assert_eq!(read, json_read::read(body.as_bytes()).ok());
    }
    assert!(json_fast::nested(b"[[1, 2], [3, 4]]", Datatype::Int32).is_some());
    assert!(json_fast::nested(b"[[1, 2], [3]]", Datatype::Int32).is_none());
    assert!(json_fast::nested(b"[[1, 2], 3]", Datatype::Int32).is_none());
}

fn any_data(count: usize) -> BoxedStrategy<Data> {
    fn many<T: std::fmt::Debug + Clone + 'static>(
        one: impl Strategy<Value = T> + 'static,
        count: usize,
        make: fn(Vec<T>) -> Data,
    ) -> BoxedStrategy<Data> {
        prop::collection::vec(one, count).prop_map(make).boxed()
    }
    let finite32 = any::<f32>().prop_filter("finite", |n| n.is_finite());
    let finite64 = any::<f64>().prop_filter("finite", |n| n.is_finite());
    prop_oneof![
        many(any::<bool>(), count, Data::Bool),
        many(any::<u8>(), count, Data::Uint8),
        many(any::<u16>(), count, Data::Uint16),
        many(any::<u32>(), count, Data::Uint32),
        many(any::<u64>(), count, Data::Uint64),
        many(any::<i8>(), count, Data::Int8),
        many(any::<i16>(), count, Data::Int16),
        many(any::<i32>(), count, Data::Int32),
        many(any::<i64>(), count, Data::Int64),
        many(any::<u16>().prop_map(f16::from_bits).prop_filter("finite", |n| n.is_finite()), count, Data::Fp16),
        many(any::<u16>().prop_map(bf16::from_bits).prop_filter("finite", |n| n.is_finite()), count, Data::Bf16),
        many(finite32, count, Data::Fp32),
        many(finite64, count, Data::Fp64),
        many(any::<String>().prop_map(Bytes::from), count, Data::Bytes),
    ]
    .boxed()
}

prop_compose! {
    fn any_tensor()(shape in prop::collection::vec(0i64..4, 0..4))
        (data in any_data(element_count(&shape).unwrap()), shape in Just(shape), name in "[a-zé\"]{1,6}") -> Tensor {
        Tensor { name, shape, data }
    }
}

proptest! {
    #[test]
    fn requests_and_responses_survive_the_wire(tensors in prop::collection::vec(any_tensor(), 0..4), binary: bool, id: Option<String>) {
        let request = Request { id: id.clone(), inputs: tensors.clone(), ..Request::default() };
        let encoded = request.encode(binary).unwrap();
        let mut back = Request::decode(&encoded.body, encoded.header_length).unwrap();
        back.parameters.clear();
        prop_assert_eq!(&back, &request);
        let response = Response { id, outputs: tensors, ..Response::default() };
        let encoded = response.encode(Nan::Word, |_| binary).unwrap();
        prop_assert_eq!(Response::decode(&encoded.body, encoded.header_length).unwrap(), response);
    }

    #[test]
    fn the_fast_reader_reads_what_the_other_one_reads(
        tensors in prop::collection::vec(any_tensor(), 0..3), at: prop::sample::Index, byte in "[0-9a-z\\[\\]{},:\" .-]",
        nested: bool,
    ) {
        let mut body = Request { inputs: tensors.clone(), ..Request::default() }.encode(false).unwrap().body.to_vec();
        if let (true, Some(tensor)) = (nested, tensors.first()) {
            body = format!(
                r#"{{"inputs": [{{"name": "x", "shape": {:?}, "datatype": "{}", "data": "#, tensor.shape, tensor.datatype()
            ).into_bytes();
            write_nested(&mut body, tensor, Nan::Word).unwrap();
            body.extend_from_slice(b"}]}");
        }
        let at = at.index(body.len() * 2);
        if let Some(place) = body.get_mut(at) {
            *place = byte.as_bytes()[0];
        }
        if let Some(read) = json_fast::request(&body) {
            let wanted = json_read::read::<json_read::ReadOutput>(&body);
            prop_assert_eq!(Ok(read), wanted);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body: Vec<u8>, header: Option<u8>) {
        let body = Bytes::from(body);
        let _ = Request::decode(&body, header.map(usize::from));
        let _ = Response::decode(&body, header.map(usize::from));
    }

    #[test]
    fn a_damaged_request_is_read_or_refused(tensor in any_tensor(), binary: bool, at: prop::sample::Index, byte: u8) {
        let encoded = Request { inputs: vec![tensor], ..Request::default() }.encode(binary).unwrap();
        let mut body = encoded.body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = Request::decode(&body.into(), encoded.header_length);
    }
}
