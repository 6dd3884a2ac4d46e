use serde::Deserialize;

use super::*;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    gateway: Gateway,
    store: Store,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gateway: Gateway::default(), store: Store { url: "memory:".to_owned() } }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Gateway {
    addr: String,
    threads: u32,
    roots: Vec<String>,
    host: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Store {
    url: String,
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refused(layers: Layers) -> Vec<(String, String)> {
    let error = layers.load::<Settings>().expect_err("it must be refused");
    error.0.into_iter().map(|fault| (fault.source, fault.detail)).collect()
}

impl Section for Settings {
    fn check(&self, faults: &mut Faults) {
        faults.below("gateway", |faults| {
            faults.address("addr", &self.gateway.addr);
            faults.positive(&[("threads", self.gateway.threads.into())]);
        });
    }
}

#[test]
fn values_that_cannot_work_are_said_all_at_once_with_their_sources() {
    let layers = Layers::new().toml("modelway.toml", "[gateway]\nthreads = 0").flag("--addr", "gateway.addr", "here");
    let error = layers.load::<Settings>().expect("the types fit").checked().expect_err("the values do not");
    let said = error.to_string();
    let expected = "the settings are invalid:
  flag --addr: `gateway.addr` is `here`, which is not an address; write HOST:PORT, as in 127.0.0.1:8080
  file modelway.toml: `gateway.threads` is 0, and must be at least 1";
    assert_eq!(said, expected);
}

#[test]
fn a_later_layer_wins_and_the_dump_names_the_source_of_each_value() {
    let loaded = Layers::new()
        .toml("modelway.toml", "[gateway]\naddr = \"a:1\"\nthreads = 2\nlabels = { zone = \"b\" }")
        .variables(variables(&[
            ("MODELWAY__GATEWAY__ADDR", "b:2"),
            ("MODELWAY__GATEWAY__ROOTS", "/a, /b"),
            ("MODELWAY__GATEWAY__LABELS__TIER", "x"),
            ("MODELWAY_PORT", "tcp://10.0.0.1"),
        ]))
        .flag("--store-url", "store.url", "postgres://me:secret@db:5432/x")
        .load::<Settings>()
        .expect("all of it is known");
    let dump = loaded.dump();
    assert_eq!(
        dump,
        r#"[gateway]
addr = "b:2" # variable MODELWAY__GATEWAY__ADDR
threads = 2 # file modelway.toml
roots = ["/a", "/b"] # variable MODELWAY__GATEWAY__ROOTS
# host is not set

[gateway.labels]
zone = "b" # file modelway.toml
tier = "x" # variable MODELWAY__GATEWAY__LABELS__TIER

[store]
url = "postgres://me:***@db:5432/x" # flag --store-url
"#
    );
    assert_eq!(loaded.settings.store.url, "postgres://me:secret@db:5432/x");
    assert_eq!(loaded.source("gateway.threads"), Some("file modelway.toml"));
    assert_eq!(loaded.source("gateway.host"), None);
}

#[test]
fn an_unknown_key_in_any_layer_is_a_fault_that_names_the_nearest_and_the_source() {
    let faults = refused(
        Layers::new()
            .toml("x.toml", "[gatway]\naddr = \"a\"\n[store]\nurll = \"b\"")
            .variables(variables(&[("MODELWAY__GATEWAY__ADRR", "b:2"), ("MODELWAY__STORE__URL__X", "1")])),
    );
    let expected = [
        ("file x.toml", "`gatway` is not a setting; did you mean `gateway`?"),
        ("file x.toml", "`store.urll` is not a setting; did you mean `store.url`?"),
        ("variable MODELWAY__GATEWAY__ADRR", "`gateway.adrr` is not a setting; did you mean `gateway.addr`?"),
        ("variable MODELWAY__STORE__URL__X", "`store.url` is a single value and has no keys below it"),
    ];
    assert_eq!(faults, expected.map(|(source, detail)| (source.to_owned(), detail.to_owned())));
}

#[test]
fn a_value_of_the_wrong_type_is_reported_with_its_source() {
    let faults = refused(
        Layers::new()
            .toml("x.toml", "[gateway]\naddr = 7")
            .variables(variables(&[("MODELWAY__GATEWAY__THREADS", "many"), ("MODELWAY__GATEWAY", "x")])),
    );
    let text = format!("{faults:?}");
    assert_eq!(faults.len(), 3, "{text}");
    assert!(text.contains("`gateway.addr` cannot be used: invalid type: integer `7`, expected a string"), "{text}");
    assert!(text.contains("`gateway.threads` cannot be used"), "{text}");
    assert!(text.contains("`gateway` is a section"), "{text}");
}

#[test]
fn a_number_in_the_environment_can_be_text_where_text_is_wanted() {
    let loaded = Layers::new()
        .variables(variables(&[("MODELWAY__GATEWAY__HOST", "123"), ("MODELWAY__GATEWAY__ADDR", "5")]))
        .load::<Settings>()
        .expect("both are text");
    assert_eq!(loaded.settings.gateway.host.as_deref(), Some("123"));
    assert_eq!(loaded.settings.gateway.addr, "5");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let faults = refused(Layers::new().file(Some(Path::new("/nowhere/at/all.toml"))));
    assert!(faults[0].1.contains("cannot be read"), "{faults:?}");
}

#[test]
fn a_derived_default_gives_way_to_every_layer() {
    let layers = || Layers::new().toml("x.toml", "[store]\nurl = \"a\"");
    let loaded = layers()
        .text("flag --set", "gateway.threads", "3")
        .derived("data_dir", "store.url", "b")
        .derived("data_dir", "gateway.addr", "c")
        .load::<Settings>()
        .expect("all of it is known");
    assert_eq!(loaded.settings.store.url, "a");
    assert_eq!(loaded.settings.gateway.addr, "c");
    assert_eq!(loaded.settings.gateway.threads, 3);
    assert_eq!(loaded.source("gateway.addr"), Some("default from data_dir"));
}

/// Sections below names that anybody may choose.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Named {
    models: BTreeMap<String, One>,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct One {
    instances: Option<u32>,
    max_batch_size: Option<u32>,
    sizes: Option<Vec<u32>>,
}

#[test]
fn sections_below_chosen_names_come_from_every_layer_each_value_with_its_source() {
    let loaded = Layers::new()
        .toml("modelway.toml", "[models.iris]\ninstances = 1\nmax_batch_size = 4\n[models.\"a b\"]\nsizes = [1, 2]")
        .variables(variables(&[("MODELWAY__MODELS__IRIS__MAX_BATCH_SIZE", "8")]))
        .load::<Named>()
        .expect("all of it is known");
    let iris = &loaded.settings.models["iris"];
    assert_eq!((iris.instances, iris.max_batch_size), (Some(1), Some(8)));
    assert_eq!(loaded.settings.models["a b"].sizes, Some(vec![1, 2]));
    let dump = loaded.dump();
    assert!(dump.contains("instances = 1 # file modelway.toml"), "{dump}");
    assert!(dump.contains("max_batch_size = 8 # variable MODELWAY__MODELS__IRIS__MAX_BATCH_SIZE"), "{dump}");
    let whole = [("MODELWAY__MODELS", "{\"Iris.v2\": {\"instances\": 3}}")];
    let loaded = Layers::new().variables(variables(&whole)).load::<Named>().expect("JSON is read");
    assert_eq!(loaded.settings.models["Iris.v2"].instances, Some(3));
}

#[test]
fn an_unknown_key_below_a_chosen_name_is_a_fault_that_names_the_nearest() {
    let refused = |layers: Layers| layers.load::<Named>().expect_err("it must be refused").to_string();
    let text = "[models.iris]\ninstances = 1\nmax_batchsize = 4\n[models.wine]\ninstances = \"x\"";
    let said = refused(Layers::new().toml("m.toml", text));
    assert!(
        said.contains(
            "m.toml: `models.iris.max_batchsize` is not a setting; did you mean `models.iris.max_batch_size`?"
        ),
        "{said}"
    );
    assert!(said.contains("`models.wine.instances` cannot be used: invalid type"), "{said}");
    assert!(!said.contains("`models.iris.instances`"), "{said}");
    let said = refused(Layers::new().variables(variables(&[("MODELWAY__MODELS__IRIS__INSTANCE", "4")])));
    assert!(said.contains("did you mean `models.iris.instances`?"), "{said}");
}
