use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Declared {
    Declared::of("config.pbtxt".to_owned(), text::parse(text)).unwrap()
}

fn refused(text: &str) -> String {
    Declared::of("config.pbtxt".to_owned(), text::parse(text)).unwrap_err().to_string()
}

#[test]
fn what_is_not_honoured_is_noted_once_by_name_and_what_nobody_knows_is_an_error_with_its_line() {
    let text =
        "sequence_batching { max_sequence_idle_microseconds: 5 }\ninstance_group { kind: KIND_GPU gpus: [ 0, 1 ] }";
    let notes = read(text).notes;
    let names: Vec<_> = notes.iter().filter_map(|note| note.split('`').nth(1)).collect();
    assert_eq!(names, ["instance_group.kind", "instance_group.gpus", "sequence_batching"]);
    assert_eq!(
        refused("\nmax_batch_sise: 4"),
        "config.pbtxt: line 2: `max_batch_sise` is no field; did you mean `max_batch_size`?"
    );
    assert!(refused("max_batch_size: -1").contains("line 1: `max_batch_size` wants a whole number from 0 on"));
    assert!(
        refused("max_batch_size: 1\nmax_batch_size: 2").contains("line 2: `max_batch_size` is there more than once")
    );
    assert!(refused("input { name: \"x\" data_type: TYPE_FP23 }").contains("did you mean TYPE_FP32?"));
    assert!(refused("response_cache: 1").contains("`response_cache` wants a message in braces, not a word"));
    assert!(refused("backend: \"pytorch\"").contains("onnxruntime, python and mlflow are"));
}

#[test]
fn json_and_text_mean_the_same() {
    let text = "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 2, 4 ] }
        parameters { key: \"intra_op_thread_count\" value { string_value: \"3\" } }
        input { name: \"x\" data_type: TYPE_INT64 dims: [ -1 ] }";
    let json = r#"{"max_batch_size": 8, "dynamic_batching": {"preferred_batch_size": [2, 4]},
        "parameters": {"intra_op_thread_count": {"string_value": "3"}},
        "input": [{"name": "x", "data_type": "TYPE_INT64", "dims": ["-1"]}]}"#;
    let (text, json) = (read(text), Declared::from_json(json).unwrap());
    assert_eq!(json, Declared { place: json.place.clone(), by_request: true, ..text.clone() });
    let settings = text.settings(&Config::default(), "m");
    assert_eq!((settings.intra_op_threads, settings.max_batch_size), (3, 8));
    assert_eq!(read("max_batch_size: 0").settings(&Config::default(), "m").max_batch_size, 1);
}

#[test]
fn the_configuration_of_one_model_wins_over_its_file_and_the_request_that_loads_it_over_both() {
    let mut config = Config { max_batch_size: 9, ..Config::default() };
    let (max_batch_size, response_cache_bytes) = (Some(2), Some(77));
    config.models.insert("iris".to_owned(), Overrides { max_batch_size, response_cache_bytes, ..Overrides::default() });
    let file = read("max_batch_size: 4 response_cache { enable: true }");
    let request = Declared::from_json(r#"{"max_batch_size": 5, "response_cache": {"enable": true}}"#).unwrap();
    let size = |declared: &Declared, name| declared.settings(&config, name).max_batch_size;
    assert_eq!((size(&file, "iris"), size(&file, "digits")), (2, 4));
    assert_eq!((size(&request, "iris"), size(&request, "digits")), (5, 5));
    assert_eq!((size(&read(""), "iris"), size(&read(""), "digits")), (2, 9));
    assert_eq!(size(&Declared::from_json("{}").unwrap(), "iris"), 2, "a request that does not say");
    let kept = |declared: &Declared, name| declared.settings(&config, name).response_cache_bytes;
    assert_eq!((kept(&file, "iris"), kept(&request, "iris"), kept(&request, "digits")), (77, 77, CACHE_BYTES));
}

#[test]
fn the_version_policy_chooses_by_number() {
    let file = |version: &str| ModelFile {
        name: "m".into(),
        version: Some(version.into()),
        kind: Kind::Onnx,
        path: "m.onnx".into(),
    };
    let chosen = |policy: &str| {
        let files = read(policy).choose(["1", "10", "2"].map(file).to_vec());
        files.map(|files| files.into_iter().filter_map(|file| file.version).collect::<Vec<_>>())
    };
    assert_eq!(chosen("").unwrap(), ["1", "10", "2"]);
    assert_eq!(chosen("version_policy { latest { num_versions: 2 } }").unwrap(), ["2", "10"]);
    assert_eq!(chosen("version_policy { specific { versions: [ 1, 10 ] } }").unwrap(), ["1", "10"]);
    let said = chosen("version_policy { specific { versions: 3 } }").unwrap_err().to_string();
    assert!(said.contains("names version 3, which is not there; there is 1, 10, 2"), "{said}");
}

proptest! {
    #[test]
    fn no_configuration_makes_it_panic(
        name in "input|output|dynamic_batching|version_policy|instance_group|model_warmup|parameters|name",
        inside in "(key|value|name|dims|latest|count|inputs|\\{|\\}|:|1|\"x\"| ){0,30}",
    ) {
        let _ = Declared::of(String::new(), text::parse(&format!("{name} {{ {inside} }}")));
        let _ = Declared::from_json(&format!("{{\"{name}\": [{{\"{name}\": 1}}, 2]}}"));
    }
}

#[test]
fn dimensions_that_the_model_leaves_open_are_as_it_is_described() {
    let tensor = |name: &str, shape: &[i64]| inference::TensorMetadata {
        name: name.to_owned(),
        datatype: inference::Datatype::Fp32,
        shape: shape.to_vec(),
        labels: Vec::new(),
    };
    let signature = crate::runtime::Signature {
        platform: "test",
        inputs: vec![tensor("x", &[-1, 3])],
        outputs: vec![tensor("y", &[-1])],
        rows: true,
        ..Default::default()
    };
    let shapes = |text: &str| {
        let narrowed = read(text).narrowed(&signature);
        (narrowed.inputs[0].shape.clone(), narrowed.outputs[0].shape.clone())
    };
    assert_eq!(shapes("input { name: \"x\" dims: [ 1, 3 ] }"), (vec![1, 3], vec![-1]));
    let scalar = "max_batch_size: 4 input { name: \"x\" dims: [ 3 ] } output { name: \"y\" dims: [ 1 ] }";
    assert_eq!(shapes(scalar), (vec![-1, 3], vec![-1]));
}

#[test]
fn numbers_that_mean_nothing_are_noted() {
    let notes = read("max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 8 ] }").notes;
    assert!(notes.len() == 1 && notes[0].contains("above max_batch_size is never reached"), "{notes:?}");
    let notes = read("instance_group { count: 0 }").notes;
    assert!(notes.len() == 1 && notes[0].contains("one instance at least"), "{notes:?}");
}
