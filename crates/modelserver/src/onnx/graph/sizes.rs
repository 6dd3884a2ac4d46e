//! Whether the size of an output depends on the values of the inputs, and not only on their sizes.
//!
//! The rows of two requests for such a model share a size: one request's text decides how far another's is padded. So
//! they must not be joined, whatever a few tried rows show.
//!
//! Two facts are followed from the inputs to the outputs: whether a value depends on the inputs' values, and whether its
//! size does. `Shape` turns a size into a value; operators such as `Reshape` turn a value into a size. What is not known
//! is taken to depend.
//!
//! Some operators end the process on a tensor without elements, or a length of 0. Where such a size depends on
//! values, no look at a request's inputs tells whether it will be 0: see [`Sizes::fatal`].

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use super::{Graph, Model, Node, Value};

/// What a tensor depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Depends {
    /// Its values depend on the inputs' values.
    values: bool,
    /// So does its size.
    size: bool,
}

impl Depends {
    const EVERYTHING: Self = Self { values: true, size: true };

    fn or(self, other: Self) -> Self {
        Self { values: self.values || other.values, size: self.size || other.size }
    }
}

/// What is known of the values in a graph, by their names, and of those around it.
#[derive(Default)]
struct Known<'m, 'k> {
    own: HashMap<&'m str, Depends>,
    around: Option<&'k Known<'m, 'k>>,
}

impl<'m, 'k> Known<'m, 'k> {
    fn inside(around: &'k Self) -> Self {
        Self { own: HashMap::new(), around: Some(around) }
    }

    fn get(&self, name: &str) -> Option<Depends> {
        self.own.get(name).copied().or_else(|| self.around?.get(name))
    }
}

/// A function by its place, and what its inputs depend on.
type Called = (usize, Vec<Depends>);

/// Operators that take a size from the values of these inputs.
const SIZED_BY: &[(&str, &[usize])] = &[
    ("Reshape", &[1]),
    ("Expand", &[1]),
    ("Tile", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("Range", &[0, 1, 2]),
    ("Slice", &[1, 2, 3, 4]),
    ("DynamicSlice", &[1, 2, 3, 4]),
    ("Pad", &[1, 3]),
    ("Resize", &[1, 2, 3]),
    ("Upsample", &[1]),
    ("TopK", &[1]),
    ("OneHot", &[1]),
    ("Split", &[1]),
    ("SplitToSequence", &[1]),
    ("Squeeze", &[1]),
    ("Unsqueeze", &[1]),
    ("ReduceSum", &[1]),
    ("ReduceMean", &[1]),
    ("ReduceMax", &[1]),
    ("ReduceMin", &[1]),
    ("ReduceProd", &[1]),
    ("ReduceL1", &[1]),
    ("ReduceL2", &[1]),
    ("ReduceLogSum", &[1]),
    ("ReduceLogSumExp", &[1]),
    ("ReduceSumSquare", &[1]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("MaxUnpool", &[2]),
    ("AffineGrid", &[1]),
    ("HannWindow", &[0]),
    ("HammingWindow", &[0]),
    ("BlackmanWindow", &[0]),
    ("MelWeightMatrix", &[0, 1, 2, 3, 4]),
    ("STFT", &[1, 3]),
    ("DFT", &[1, 2]),
    ("Compress", &[1]),
    ("SequenceAt", &[1]),
    ("SequenceErase", &[1]),
    ("SequenceInsert", &[2]),
    ("CropAndResize", &[3]),
];

/// Operators whose results are as large as their inputs' values make them.
const SIZED_BY_ALL: &[&str] = &[
    "NonZero",
    "Unique",
    "NonMaxSuppression",
    "StringSplit",
    "StringNormalizer",
    "ImageDecoder",
    "Tokenizer",
    "BeamSearch",
    "GreedySearch",
    "Sampling",
    "WhisperBeamSearch",
];

/// Operators whose results have a size of their own, whatever comes in.
const SIZED_BY_NONE: &[&str] = &["TfIdfVectorizer"];

/// Operators that can end the process where a size is 0; [`Analysis::note_if_fatal`] knows which size.
const FATAL: &[&str] = &["ConvTranspose", "GRU", "LSTM", "RNN", "STFT", "Unique"];

/// Domains whose operators are known here.
const DOMAINS: [&str; 5] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];

/// Functions that call functions, at most.
const DEEPEST: usize = 16;
/// Calls of one function in one pass that are told from one another: further ones are taken to depend on everything.
const MOST_CALLS: usize = 64;
/// Passes over a graph, at most: each follows what bodies carry through one more body.
const MOST_ROUNDS: usize = 64;

/// What is known of the sizes in a model.
#[derive(Debug)]
pub(in crate::onnx) struct Sizes {
    /// The size of an output depends on the values of the inputs.
    pub(in crate::onnx) depend_on_values: bool,
    /// An operator that can end the process, and gets a size that depends on the values of the inputs.
    fatal: Option<String>,
}

impl Model {
    /// The operator for which the model is better not run in the server; see [`Sizes::fatal`].
    pub(in crate::onnx) fn fatal_operator(&self) -> Option<String> {
        let mut functions = self.functions.iter().map(|function| &function.graph);
        let may_be = has_fatal(&self.graph) || functions.any(has_fatal);
        may_be.then(|| self.sizes().fatal).flatten()
    }

    /// Follows the sizes from the inputs to the outputs.
    pub(in crate::onnx) fn sizes(&self) -> Sizes {
        let given = Depends { values: true, size: false };
        let inputs = self.graph.inputs.iter().map(|input| input.name.as_str());
        let inputs = inputs.filter(|name| !self.graph.initializers.contains(*name));
        let known: HashMap<_, _> = inputs.map(|name| (name, given)).collect();
        // Before the server runs a number by itself that is 0 or less, it is tried elsewhere.
        let tried = self.graph.inputs.iter().filter(|input| input.scalar).map(|input| input.name.as_str()).collect();
        let functions = self.functions.iter().enumerate().rev();
        let functions = functions
            .map(|(place, function)| ((function.domain.as_str(), function.name.as_str()), (place, &function.graph)));
        let analysis = Analysis { functions: functions.collect(), tried, ..Analysis::default() };
        let sizes = |depend_on_values| Sizes { depend_on_values, fatal: analysis.fatal.take() };
        for _ in 0..MOST_ROUNDS {
            analysis.grew.set(false);
            analysis.called.borrow_mut().clear();
            analysis.calls.borrow_mut().clear();
            let outputs = analysis.graph(&self.graph, Known { own: known.clone(), around: None }, 0);
            if !analysis.grew.get() {
                return sizes(outputs.into_iter().any(|output| output.size));
            }
        }
        sizes(true)
    }
}

/// Whether one of the operators is anywhere in a graph.
fn has_fatal(graph: &Graph) -> bool {
    let is_fatal = |node: &Node| FATAL.contains(&node.operator.as_str()) || node.bodies.iter().any(has_fatal);
    graph.nodes.iter().any(is_fatal)
}

/// One pass over the graph follows each body and each call once. What bodies carry from one run to the next is kept for
/// the next pass, until a pass adds nothing.
#[derive(Default)]
struct Analysis<'m> {
    /// By their domains and names: their places and graphs.
    functions: HashMap<(&'m str, &'m str), (usize, &'m Graph)>,
    /// Inputs of the model that are one number.
    tried: HashSet<&'m str>,
    /// See [`Sizes::fatal`].
    fatal: RefCell<Option<String>>,
    /// What the outputs of a function depend on.
    called: RefCell<HashMap<Called, Vec<Depends>>>,
    /// How many calls of each function this pass has followed.
    calls: RefCell<HashMap<usize, usize>>,
    /// What the values depend on that a body carries, by the body's address.
    carried: RefCell<HashMap<*const Graph, Depends>>,
    /// Whether this pass has added to them.
    grew: Cell<bool>,
}

impl<'m> Analysis<'m> {
    /// What the outputs of a graph depend on. `known` holds its inputs.
    fn graph(&self, graph: &'m Graph, mut known: Known<'m, '_>, depth: usize) -> Vec<Depends> {
        for node in &graph.nodes {
            let made = self.node(node, &known, depth);
            for (place, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let made = made.get(place).or(made.last()).copied().unwrap_or(Depends::EVERYTHING);
                known.own.insert(name, made);
            }
        }
        // What no node makes is a constant.
        graph.outputs.iter().map(|output| known.get(&output.name).unwrap_or_default()).collect()
    }

    /// What a node's outputs depend on; the last one holds for all further ones.
    fn node(&self, node: &'m Node, known: &Known<'m, '_>, depth: usize) -> Vec<Depends> {
        let inputs: Vec<Depends> = node.inputs.iter().map(|name| known.get(name).unwrap_or_default()).collect();
        let all = inputs.iter().copied().fold(Depends::default(), Depends::or);
        if depth > DEEPEST {
            return vec![Depends::EVERYTHING];
        }
        if let Some((place, graph)) = self.functions.get(&(node.domain.as_str(), node.operator.as_str())) {
            return self.call(*place, graph, inputs, depth);
        }
        // Of a size that depends, whatever is computed from it does.
        let values = all.values || all.size;
        if !DOMAINS.contains(&node.domain.as_str()) {
            return vec![Depends { values, size: values }];
        }
        let by = |places: &[usize]| places.iter().any(|place| inputs.get(*place).is_some_and(|input| input.values));
        let operator = node.operator.as_str();
        self.note_if_fatal(node, &inputs, depth);
        let size = match operator {
            "Shape" | "Size" => return vec![Depends { values: all.size, size: false }],
            "If" => return self.branches(node, known, all, depth),
            "Loop" => return self.repeated(node, known, &inputs, depth),
            "Scan" | "SequenceMap" => return self.scanned(node, known, all, depth),
            _ if SIZED_BY_NONE.contains(&operator) => false,
            _ if SIZED_BY_ALL.contains(&operator) => all.size || all.values,
            _ => {
                let places = SIZED_BY.iter().find(|(name, _)| *name == operator).map(|(_, places)| *places);
                all.size || places.is_some_and(by)
            }
        };
        vec![Depends { values, size }]
    }

    /// What the outputs of a function depend on.
    fn call(&self, place: usize, graph: &'m Graph, mut inputs: Vec<Depends>, depth: usize) -> Vec<Depends> {
        let known = |inputs: &Vec<Depends>| self.called.borrow().get(&(place, inputs.clone())).cloned();
        if let Some(made) = known(&inputs) {
            return made;
        }
        let calls = *self.calls.borrow_mut().entry(place).and_modify(|calls| *calls += 1).or_insert(1);
        if calls > MOST_CALLS {
            inputs.fill(Depends::EVERYTHING);
            if let Some(made) = known(&inputs) {
                return made;
            }
        }
        let names = graph.inputs.iter().map(|input| input.name.as_str());
        let inside = Known { own: names.zip(inputs.iter().copied()).collect(), around: None };
        let made = self.graph(graph, inside, depth + 1);
        self.called.borrow_mut().insert((place, inputs), made.clone());
        made
    }

    /// Notes an operator that can end the process.
    fn note_if_fatal(&self, node: &Node, inputs: &[Depends], depth: usize) {
        let sized = |place: usize| inputs.get(place).is_some_and(|input| input.size);
        let counted = |place: usize| {
            // Elsewhere another value may have the name.
            let is_tried = depth == 0 && node.inputs.get(place).is_some_and(|name| self.tried.contains(name.as_str()));
            inputs.get(place).is_some_and(|input| input.values) && !is_tried
        };
        let fatal = match node.operator.as_str() {
            "GRU" | "LSTM" | "RNN" => sized(0),
            // Only with three spatial dimensions, and where their number is not said.
            "ConvTranspose" => sized(0) && node.kernel.is_none_or(|dimensions| dimensions == 3),
            "Unique" => sized(0) && node.has_axis,
            // The window, and the length of a frame.
            "STFT" => sized(2) || counted(3),
            _ => false,
        };
        if fatal {
            *self.fatal.borrow_mut() = Some(node.operator.clone());
        }
    }

    /// Either of two graphs, which may make different sizes.
    fn branches(&self, node: &'m Node, known: &Known<'m, '_>, condition: Depends, depth: usize) -> Vec<Depends> {
        let mut made = vec![Depends::default(); node.outputs.len()];
        for body in &node.bodies {
            let outputs = self.graph(body, Known::inside(known), depth + 1);
            made.iter_mut().zip(outputs).for_each(|(made, output)| *made = made.or(output));
        }
        if condition.values || condition.size {
            return vec![Depends::EVERYTHING];
        }
        made
    }

    /// A body that runs as often as its first two inputs say, and as its own condition does.
    fn repeated(&self, node: &'m Node, known: &Known<'m, '_>, inputs: &[Depends], depth: usize) -> Vec<Depends> {
        let Some(body) = node.bodies.first() else { return vec![Depends::EVERYTHING] };
        let control = inputs.iter().take(2).copied().fold(Depends::default(), Depends::or);
        let mut counted = control.values || control.size;
        let given = inputs.get(2..).unwrap_or_default().iter().copied().fold(Depends::default(), Depends::or);
        let before = self.carried(body).or(given);
        let mut inside = Known::inside(known);
        for (place, input) in body.inputs.iter().enumerate() {
            let given = match place {
                // The number of a run goes as far as the inputs let it.
                0 => Depends { values: counted, size: false },
                1 => Depends::default(),
                _ => before,
            };
            inside.own.insert(&input.name, given);
        }
        let outputs = self.graph(body, inside, depth + 1);
        counted |= outputs.first().is_some_and(|goes_on| goes_on.values || goes_on.size);
        let carried = self.carry(body, before, &outputs);
        let made = |(place, output): (usize, &Value)| {
            let is_carried = place + 2 < body.inputs.len();
            match counted {
                // However often it runs, it hands on the same size.
                true if is_carried && output.fixed => Depends { values: true, size: false },
                true => Depends::EVERYTHING,
                false => carried,
            }
        };
        body.outputs.iter().skip(1).enumerate().map(made).collect()
    }

    /// A body that runs once for each element.
    fn scanned(&self, node: &'m Node, known: &Known<'m, '_>, all: Depends, depth: usize) -> Vec<Depends> {
        let Some(body) = node.bodies.first() else { return vec![Depends::EVERYTHING] };
        let before = self.carried(body).or(all);
        let mut inside = Known::inside(known);
        inside.own.extend(body.inputs.iter().map(|input| (input.name.as_str(), before)));
        let outputs = self.graph(body, inside, depth + 1);
        vec![self.carry(body, before, &outputs)]
    }

    /// What was found in passes before of the values that a body carries.
    fn carried(&self, body: &Graph) -> Depends {
        self.carried.borrow().get(&std::ptr::from_ref(body)).copied().unwrap_or_default()
    }

    /// Adds what one run of a body makes to what it was run `with`.
    fn carry(&self, body: &Graph, with: Depends, outputs: &[Depends]) -> Depends {
        let carried = outputs.iter().copied().fold(with, Depends::or);
        if carried != with {
            self.carried.borrow_mut().insert(std::ptr::from_ref(body), carried);
            self.grew.set(true);
        }
        carried
    }
}

#[cfg(test)]
mod tests {
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
            initializers: ["weight".to_owned()].into(),
        };
        Model { graph, ..Model::default() }
    }

    /// The operator, if any, for which a model is not run in the server.
    fn fatal(change: impl FnOnce(&mut Model), nodes: &[(&str, &[&str], &[&str])]) -> Option<String> {
        let mut model = model(nodes);
        change(&mut model);
        model.fatal_operator()
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
            let cut = [("Shape", &["x"][..], &["n"][..]), ("Slice", &["x", "n"], &["s"]), last];
            assert_eq!(fatal(as_is, &cut), None);
            // An operator that makes such a size, or takes none, is harmless.
            assert_eq!(fatal(as_is, &[(operator, &["x"], &["s"]), ("Compress", &["s", "x"], &["y"])]), None);
        }
        let transposed = [sliced, ("ConvTranspose", &["s", "weight"][..], &["y"][..])];
        for (dimensions, is_fatal) in [(1, false), (2, false), (3, true)] {
            let kernel = |model: &mut Model| model.graph.nodes[1].kernel = Some(dimensions);
            assert_eq!(fatal(kernel, &transposed).is_some(), is_fatal, "{dimensions}");
        }
        let unique = [found, ("Unique", &["s"][..], &["y"][..])];
        assert_eq!(fatal(as_is, &unique), None);
        assert!(fatal(|model| model.graph.nodes[1].has_axis = true, &unique).is_some());
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
            assert_eq!(Model { graph, ..Model::default() }.fatal_operator().is_some(), is_fatal, "If: {first}");
            let graph = from_x_to_y(vec![node("Scan", "y", vec![inner(first)])]);
            assert_eq!(Model { graph, ..Model::default() }.fatal_operator().is_some(), is_fatal, "Scan: {first}");
            let function =
                Function { name: "f".to_owned(), graph: from_x_to_y(inner(first).nodes), ..Function::default() };
            let graph = from_x_to_y(vec![node("f", "y", Vec::new())]);
            let model = Model { graph, functions: vec![function], ..Model::default() };
            assert_eq!(model.fatal_operator().is_some(), is_fatal, "function: {first}");
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
}
