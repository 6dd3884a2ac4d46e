use super::{super::Function, *};

fn model(nodes: &[(&str, &[&str], &[&str])]) -> Model {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let value = |name: &str| Value { name: name.to_owned(), ..Value::default() };
    let node = |(operator, inputs, outputs): &(&str, &[&str], &[&str])| Node {
        operator: (*operator).to_owned(),
        inputs: names(inputs),
        outputs: names(outputs),
        ..Node::default()
    };
    let graph = Graph {
        nodes: nodes.iter().map(node).collect(),
        inputs: vec![value("x"), value("weight")],
        outputs: vec![value("y")],
        initializers: ["weight".to_owned(), "less".to_owned()].into(),
        numbers: [("weight".to_owned(), vec![5]), ("less".to_owned(), vec![-5])].into(),
    };
    Model { graph, ..Model::default() }
}

/// The operator, if any, for which a model is not run in the server.
fn anyhow(model: &Model) -> Option<String> {
    match model.fatal() {
        Some(Fatal::Anyhow(operator)) => Some(operator),
        Some(Fatal::BySizes { .. }) | None => None,
    }
}

fn fatal(change: impl FnOnce(&mut Model), nodes: &[(&str, &[&str], &[&str])]) -> Option<String> {
    let mut model = model(nodes);
    change(&mut model);
    anyhow(&model)
}

/// Whether the sizes of a request's inputs say whether a model can be run.
fn by_sizes(nodes: &[(&str, &[&str], &[&str])]) -> bool {
    match model(nodes).fatal() {
        Some(Fatal::BySizes { numbers }) => !numbers,
        Some(Fatal::Anyhow(operator)) => panic!("{operator}"),
        None => false,
    }
}

#[test]
fn a_size_that_may_be_0_inside_is_told_by_the_inputs_sizes_where_it_grows_with_them() {
    let gru = ("GRU", &["s", "weight"][..], &["y"][..]);
    let shape = ("Shape", &["x"][..], &["n"][..]);
    for first in [
        &[("Slice", &["x", "weight", "weight"][..], &["s"][..])][..],
        &[("Conv", &["x", "weight"], &["c"]), ("Relu", &["c"], &["r"]), ("Transpose", &["r"], &["s"])],
        &[shape, ("Slice", &["x", "weight", "n"], &["s"])],
        &[shape, ("Sub", &["n", "weight"], &["l"]), ("Expand", &["x", "l"], &["s"])],
        &[("MaxPool", &["x"], &["p"]), ("Shape", &["p"], &["l"]), ("ConstantOfShape", &["l"], &["s"])],
        &[("Slice", &["x", "weight", "less"], &["s"])],
        &[("Slice", &["x", "less", "less"], &["s"])],
        &[shape, ("Gather", &["n", "less"], &["l"]), ("Slice", &["x", "weight", "l"], &["s"])],
        &[shape, ("Mul", &["n", "weight"], &["l"]), ("Div", &["l", "weight"], &["s"]), ("Expand", &["x", "s"], &["s"])],
        &[
            shape,
            ("Sub", &["n", "weight"], &["l"]),
            ("Max", &["l", "weight"], &["l"]),
            ("Slice", &["x", "weight", "l"], &["s"]),
        ],
        &[shape, ("Range", &["weight", "n", "weight"], &["s"])],
    ] {
        assert!(by_sizes(&[first, &[gru]].concat()), "{first:?}");
    }
    for harmless in [
        &[("Relu", &["x"][..], &["s"][..])][..],
        &[("Slice", &["weight", "weight"], &["w"]), ("Add", &["x", "w"], &["s"])],
        &[shape, ("Slice", &["n", "weight"], &["l"]), ("Transpose", &["x", "l"], &["s"])],
        &[("Gather", &["x", "weight"], &["s"])],
    ] {
        assert!(!by_sizes(&[harmless, &[gru]].concat()), "{harmless:?}");
    }
    // What gets smaller where an input is larger, or now one and now the other.
    for first in [
        &[shape, ("Slice", &["x", "n"], &["s"])][..],
        &[shape, ("Sub", &["weight", "n"], &["l"]), ("Expand", &["x", "l"], &["s"])],
        &[shape, ("Mod", &["n", "weight"], &["l"]), ("Slice", &["x", "weight", "l"], &["s"])],
        &[shape, ("NonZero", &["n"], &["s"])],
        // Bounds below 0 count from the end.
        &[shape, ("Sub", &["n", "weight"], &["l"]), ("Slice", &["x", "weight", "l"], &["s"])],
        &[shape, ("Add", &["n", "less"], &["l"]), ("Slice", &["x", "weight", "l"], &["s"])],
        &[shape, ("Sub", &["n", "weight"], &["l"]), ("Cast", &["l"], &["l"]), ("Slice", &["x", "weight", "l"], &["s"])],
        &[("Slice", &["x", "less", "weight"], &["s"])],
        &[("Slice", &["x", "weight", "less", "", "less"], &["s"])],
        &[("Slice", &["x"], &["s"])],
        &[("Neg", &["weight"], &["l"]), ("Slice", &["x", "l", "weight"], &["s"])],
        // Factors and steps below 0.
        &[shape, ("Mul", &["n", "less"], &["l"]), ("Expand", &["x", "l"], &["s"])],
        &[shape, ("Div", &["n", "less"], &["l"]), ("Expand", &["x", "l"], &["s"])],
        &[shape, ("Range", &["weight", "n", "less"], &["s"])],
        // What the data is compared with.
        &[("Conv", &["weight", "x"], &["s"])],
        &[shape, ("Gather", &["weight", "n"], &["l"]), ("Expand", &["x", "l"], &["s"])],
    ] {
        let nodes = [first, &[gru]].concat();
        assert_eq!(fatal(|_| {}, &nodes).as_deref(), Some("GRU"), "{first:?}");
    }
}

#[test]
fn what_a_loop_takes_away_as_often_as_a_size_says_is_not_told_by_sizes() {
    let cut = Node { inputs: names(&["carried", "weight", "end"]), ..node("Slice", "next", Vec::new()) };
    let body = Graph {
        nodes: vec![cut],
        inputs: names(&["run", "on", "carried"]).into_iter().map(|name| Value { name, ..Value::default() }).collect(),
        outputs: names(&["on", "next"]).into_iter().map(|name| Value { name, ..Value::default() }).collect(),
        ..Graph::default()
    };
    let shape = Node { inputs: names(&["x"]), ..node("Shape", "n", Vec::new()) };
    let repeated = |count: &str| Node { inputs: names(&[count, "", "x"]), ..node("Loop", "s", vec![body.clone()]) };
    let gru = Node { inputs: names(&["s", "weight"]), ..node("GRU", "y", Vec::new()) };
    let fatal = |count: &str| {
        let mut graph = from_x_to_y(vec![shape.clone(), repeated(count), gru.clone()]);
        for name in ["weight", "end"] {
            graph.initializers.insert(name.to_owned());
            graph.numbers.insert(name.to_owned(), vec![1]);
        }
        graph.inputs.truncate(1);
        Model { graph, ..Model::default() }.fatal()
    };
    assert_eq!(fatal("weight"), Some(Fatal::BySizes { numbers: false }));
    assert_eq!(fatal("n"), Some(Fatal::Anyhow("GRU".to_owned())));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_is_run_only_for_some_values_is_not_told_by_sizes() {
    let cut = Node { inputs: vec!["x".to_owned(), "weight".to_owned()], ..node("Slice", "s", Vec::new()) };
    let recurrent = Node { inputs: vec!["s".to_owned()], ..node("LSTM", "y", Vec::new()) };
    let body = || Graph { inputs: Vec::new(), ..from_x_to_y(vec![cut.clone(), recurrent.clone()]) };
    let chosen = |by: &str| {
        let node = Node { inputs: vec![by.to_owned()], ..node("If", "y", vec![body(), body()]) };
        let mut graph = from_x_to_y(vec![node]);
        graph.initializers.insert("weight".to_owned());
        graph.numbers.insert("weight".to_owned(), vec![2]);
        graph.inputs.push(Value { name: "rate".to_owned(), scalar: true, fixed: true, ..Value::default() });
        Model { graph, ..Model::default() }.fatal()
    };
    assert_eq!(chosen("x"), Some(Fatal::Anyhow("LSTM".to_owned())));
    assert_eq!(chosen("rate"), Some(Fatal::BySizes { numbers: true }));
    assert_eq!(chosen("constant"), Some(Fatal::BySizes { numbers: false }));
}

#[test]
fn a_size_that_depends_on_values_is_followed_to_operators_that_can_end_the_process() {
    let as_is = |_: &mut Model| {};
    let sliced = ("Slice", &["weight", "x"][..], &["s"][..]);
    let found = ("NonZero", &["x"][..], &["s"][..]);
    for operator in ["GRU", "LSTM", "RNN", "ConvTranspose"] {
        let last = (operator, &["s", "weight"][..], &["y"][..]);
        assert_eq!(fatal(as_is, &[sliced, last]).as_deref(), Some(operator));
        assert_eq!(
            fatal(as_is, &[found, ("Relu", &["s"], &["r"]), (operator, &["r"], &["y"])]).as_deref(),
            Some(operator)
        );
        // The sizes of the inputs are seen before they are run; only they decide here.
        assert_eq!(fatal(as_is, &[(operator, &["x", "weight"], &["y"])]), None);
        let cut = [("Shape", &["x"][..], &["n"][..]), ("Slice", &["x", "weight", "n"], &["s"]), last];
        assert_eq!(fatal(as_is, &cut), None);
        // An operator that makes such a size, or takes none, is harmless.
        assert_eq!(fatal(as_is, &[(operator, &["x"], &["s"]), ("Compress", &["s", "x"], &["y"])]), None);
    }
    let transposed = [sliced, ("ConvTranspose", &["s", "weight"][..], &["y"][..])];
    for (dimensions, is_fatal) in [(1, false), (2, false), (3, true)] {
        let kernel = |model: &mut Model| {
            model.graph.nodes[1].attributes.insert("kernel_shape".to_owned(), vec![3; dimensions]);
        };
        assert_eq!(fatal(kernel, &transposed).is_some(), is_fatal, "{dimensions}");
    }
    let unique = [found, ("Unique", &["s"][..], &["y"][..])];
    assert_eq!(fatal(as_is, &unique), None);
    let with_axis = |model: &mut Model| {
        model.graph.nodes[1].attributes.insert("axis".to_owned(), vec![0]);
    };
    assert!(fatal(with_axis, &unique).is_some());
}

#[test]
fn a_length_of_frames_is_fatal_unless_it_is_tried_before_it_is_run() {
    let frames = [("STFT", &["weight", "weight", "", "x"][..], &["y"][..])];
    let scalar = |model: &mut Model| model.graph.inputs[0].scalar = true;
    assert_eq!(fatal(scalar, &frames), None);
    assert!(fatal(|_| {}, &frames).is_some());
    let computed = [("Sub", &["x", "weight"][..], &["l"][..]), ("STFT", &["weight", "weight", "", "l"], &["y"])];
    assert!(fatal(scalar, &computed).is_some());
    let of_size = [("Shape", &["x"][..], &["l"][..]), ("STFT", &["x", "weight", "", "l"], &["y"])];
    assert_eq!(fatal(|_| {}, &of_size), None);
    let window = [("Slice", &["weight", "x"][..], &["w"][..]), ("STFT", &["x", "weight", "w"], &["y"])];
    assert!(fatal(scalar, &window).is_some());
}

#[test]
fn operators_that_can_end_the_process_are_found_in_bodies_and_functions() {
    let inner = |first: &str| {
        let recurrent = Node { inputs: vec!["s".to_owned()], ..node("LSTM", "y", Vec::new()) };
        let first = Node { inputs: vec!["x".to_owned(), "weight".to_owned()], ..node(first, "s", Vec::new()) };
        Graph { inputs: Vec::new(), ..from_x_to_y(vec![first, recurrent]) }
    };
    for (first, is_fatal) in [("NonZero", true), ("Relu", false)] {
        // The condition is the input's value: which branch is run does not make the sizes in it depend.
        let graph = from_x_to_y(vec![node("If", "y", vec![inner(first)])]);
        assert_eq!(anyhow(&Model { graph, ..Model::default() }).is_some(), is_fatal, "If: {first}");
        let graph = from_x_to_y(vec![node("Scan", "y", vec![inner(first)])]);
        assert_eq!(anyhow(&Model { graph, ..Model::default() }).is_some(), is_fatal, "Scan: {first}");
        let function = Function { name: "f".to_owned(), graph: from_x_to_y(inner(first).nodes), ..Function::default() };
        let graph = from_x_to_y(vec![node("f", "y", Vec::new())]);
        let model = Model { graph, functions: vec![function], ..Model::default() };
        assert_eq!(anyhow(&model).is_some(), is_fatal, "function: {first}");
    }
}

#[track_caller]
fn check(depends: bool, nodes: &[(&str, &[&str], &[&str])]) {
    assert_eq!(model(nodes).sizes().depend_on_values, depends, "{nodes:?}");
}

#[test]
fn sizes_that_come_from_sizes_do_not_depend_on_values() {
    check(false, &[("MatMul", &["x", "weight"], &["y"])]);
    check(false, &[("Shape", &["x"], &["s"]), ("Reshape", &["x", "s"], &["y"])]);
    check(false, &[("Reshape", &["x", "weight"], &["y"])]);
    check(false, &[("TopK", &["x", "weight"], &["y", "places"])]);
    check(false, &[("Tokenizer", &["x"], &["t"]), ("TfIdfVectorizer", &["t"], &["y"])]);
}

/// A graph from `x` and `weight` to `y`.
fn from_x_to_y(nodes: Vec<Node>) -> Graph {
    let value = |name: &str| Value { name: name.to_owned(), ..Value::default() };
    let inputs = vec![value("x"), value("weight")];
    Graph { nodes, inputs, outputs: vec![value("y")], ..Graph::default() }
}

fn node(operator: &str, output: &str, bodies: Vec<Graph>) -> Node {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let operator = operator.to_owned();
    Node { operator, inputs: names(&["x", "weight"]), outputs: names(&[output]), bodies, ..Node::default() }
}

#[test]
fn functions_that_call_functions_and_loops_in_loops_are_followed_in_no_time() {
    let began = std::time::Instant::now();
    for (last, depends) in [("MatMul", false), ("NonZero", true)] {
        let function = |place: usize| {
            let called = if place + 1 < DEEPEST { format!("f{}", place + 1) } else { last.to_owned() };
            let nodes = (0..8).map(|_| node(&called, "y", Vec::new())).collect();
            Function { name: format!("f{place}"), graph: from_x_to_y(nodes), ..Function::default() }
        };
        let functions = (0..DEEPEST).map(function).collect();
        let graph = from_x_to_y(vec![node("f0", "y", Vec::new())]);
        assert_eq!(Model { graph, functions, ..Model::default() }.sizes().depend_on_values, depends);

        let innermost = from_x_to_y(vec![node(last, "y", Vec::new())]);
        let nest = |body, _| from_x_to_y(vec![node("Scan", "y", vec![body])]);
        let graph = (0..DEEPEST).fold(innermost, nest);
        assert_eq!(Model { graph, ..Model::default() }.sizes().depend_on_values, depends);
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn functions_that_are_called_in_many_ways_are_followed_in_no_time() {
    const INPUTS: usize = 12;
    let began = std::time::Instant::now();
    let names: Vec<_> = (0..INPUTS).map(|place| format!("a{place}")).collect();
    let graph = |nodes| Graph {
        nodes,
        inputs: names.iter().map(|name| Value { name: name.clone(), ..Value::default() }).collect(),
        outputs: vec![Value { name: "y".to_owned(), ..Value::default() }],
        ..Graph::default()
    };
    // Each call leaves out another input, so that nearly all ways to call are there.
    let call = |of: usize| {
        let inputs = (0..INPUTS).map(|place| if place == of { String::new() } else { names[place].clone() });
        Node { inputs: inputs.collect(), outputs: vec!["y".to_owned()], ..Node::default() }
    };
    for (last, depends) in [("MatMul", false), ("NonZero", true)] {
        let function = |place: usize| {
            let called = if place + 1 < DEEPEST { format!("f{}", place + 1) } else { last.to_owned() };
            let nodes = (0..INPUTS).map(|of| Node { operator: called.clone(), ..call(of) }).collect();
            Function { name: format!("f{place}"), graph: graph(nodes), ..Function::default() }
        };
        let functions = (0..DEEPEST).map(function).collect();
        let graph = graph(vec![Node { operator: "f0".to_owned(), ..call(INPUTS) }]);
        let model = Model { graph, functions, ..Model::default() };
        // Of those that are not told from one another all is feared.
        assert!(!depends || model.sizes().depend_on_values);
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn what_a_loop_carries_is_followed_through_all_its_runs() {
    let value = |name: &str| Value { name: name.to_owned(), ..Value::default() };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let copy = |from: &str, to: &str| Node {
        operator: "Identity".to_owned(),
        inputs: names(&[from]),
        outputs: names(&[to]),
        ..Node::default()
    };
    // Each run's output is what came in one run before.
    let carrying = |outer: &str| {
        let body = Graph {
            nodes: vec![copy("carried", "out"), copy(outer, "next"), copy("on", "goes_on")],
            inputs: vec![value("run"), value("on"), value("carried")],
            outputs: vec![value("goes_on"), value("next"), value("out")],
            ..Graph::default()
        };
        let repeated = Node {
            operator: "Loop".to_owned(),
            inputs: names(&["weight", "", "weight"]),
            outputs: names(&["last", "y"]),
            bodies: vec![body],
            ..Node::default()
        };
        let ragged = Node {
            operator: "NonZero".to_owned(),
            inputs: names(&["x"]),
            outputs: names(&["ragged"]),
            ..Node::default()
        };
        let graph =
            Graph { initializers: names(&["weight"]).into_iter().collect(), ..from_x_to_y(vec![ragged, repeated]) };
        Model { graph, ..Model::default() }.sizes().depend_on_values
    };
    assert!(carrying("ragged"));
    assert!(!carrying("x"));
}

#[test]
fn sizes_that_come_from_values_do() {
    check(true, &[("StringSplit", &["x"], &["y", "count"])]);
    check(true, &[("Cast", &["x"], &["s"]), ("Reshape", &["weight", "s"], &["y"])]);
    check(true, &[("NonZero", &["x"], &["n"]), ("Shape", &["n"], &["s"]), ("Expand", &["weight", "s"], &["y"])]);
    check(true, &[("StringSplit", &["x"], &["t", "count"]), ("ReduceMean", &["t"], &["y"])]);
    check(true, &[("If", &["x"], &["y"])]);
    check(true, &[("Loop", &["x", "", "weight"], &["y"])]);
    let mut unknown = model(&[("Frobnicate", &["x"], &["y"])]);
    unknown.graph.nodes[0].domain = "com.example".to_owned();
    assert!(unknown.sizes().depend_on_values);
}
