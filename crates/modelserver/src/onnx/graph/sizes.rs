//! Whether the size of an output depends on the values of the inputs, and not only on their sizes.
//!
//! The rows of two requests for such a model share a size: one request's text decides how far another's is padded. So
//! they must not be joined, whatever a few tried rows show.
//!
//! Two facts are followed from the inputs to the outputs: whether a value depends on the inputs' values, and whether its
//! size does. `Shape` turns a size into a value; operators such as `Reshape` turn a value into a size. What is not known
//! is taken to depend.

use std::collections::HashMap;

use super::{Function, Graph, Model, Node, Value};

/// What a tensor depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

type Known = HashMap<String, Depends>;

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

/// Domains whose operators are known here.
const DOMAINS: [&str; 5] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];

/// Functions that call functions, at most.
const DEEPEST: usize = 16;

impl Model {
    /// Whether the size of any output depends on the values of the inputs.
    pub(in crate::onnx) fn sizes_depend_on_values(&self) -> bool {
        let given = Depends { values: true, size: false };
        let inputs = self.graph.inputs.iter().map(|input| &input.name);
        let inputs = inputs.filter(|name| !self.graph.initializers.contains(*name));
        let mut known: Known = inputs.map(|name| (name.clone(), given)).collect();
        let analysis = Analysis { functions: &self.functions };
        analysis.graph(&self.graph, &mut known, 0).into_iter().any(|output| output.size)
    }
}

struct Analysis<'m> {
    functions: &'m [Function],
}

impl Analysis<'_> {
    /// What the outputs of a graph depend on. `known` holds its inputs, and the names around it.
    fn graph(&self, graph: &Graph, known: &mut Known, depth: usize) -> Vec<Depends> {
        for node in &graph.nodes {
            let made = self.node(node, known, depth);
            for (place, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                known.insert(name.clone(), made.get(place).or(made.last()).copied().unwrap_or(Depends::EVERYTHING));
            }
        }
        // What no node makes is a constant.
        graph.outputs.iter().map(|output| known.get(&output.name).copied().unwrap_or_default()).collect()
    }

    /// What a node's outputs depend on; the last one holds for all further ones.
    fn node(&self, node: &Node, known: &Known, depth: usize) -> Vec<Depends> {
        let of = |name: &String| known.get(name).copied().unwrap_or_default();
        let inputs: Vec<Depends> = node.inputs.iter().map(of).collect();
        let all = inputs.iter().copied().fold(Depends::default(), Depends::or);
        let own = |function: &&Function| function.name == node.operator && function.domain == node.domain;
        if depth > DEEPEST {
            return vec![Depends::EVERYTHING];
        }
        if let Some(function) = self.functions.iter().find(own) {
            let names = function.graph.inputs.iter().map(|input| input.name.clone());
            let mut inside: Known = names.zip(inputs).collect();
            return self.graph(&function.graph, &mut inside, depth + 1);
        }
        // Of a size that depends, whatever is computed from it does.
        let values = all.values || all.size;
        if !DOMAINS.contains(&node.domain.as_str()) {
            return vec![Depends { values, size: values }];
        }
        let by = |places: &[usize]| places.iter().any(|place| inputs.get(*place).is_some_and(|input| input.values));
        let operator = node.operator.as_str();
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

    /// Either of two graphs, which may make different sizes.
    fn branches(&self, node: &Node, known: &Known, condition: Depends, depth: usize) -> Vec<Depends> {
        if condition.values || condition.size {
            return vec![Depends::EVERYTHING];
        }
        let mut made = vec![Depends::default(); node.outputs.len()];
        for body in &node.bodies {
            let outputs = self.graph(body, &mut known.clone(), depth + 1);
            made.iter_mut().zip(outputs).for_each(|(made, output)| *made = made.or(output));
        }
        made
    }

    /// A body that runs as often as its first two inputs say, and as its own condition does.
    fn repeated(&self, node: &Node, known: &Known, inputs: &[Depends], depth: usize) -> Vec<Depends> {
        let Some(body) = node.bodies.first() else { return vec![Depends::EVERYTHING] };
        let control = inputs.iter().take(2).copied().fold(Depends::default(), Depends::or);
        let mut counted = control.values || control.size;
        let mut carried = inputs.get(2..).unwrap_or_default().iter().copied().fold(Depends::default(), Depends::or);
        // Two facts can change twice.
        for _ in 0..3 {
            let mut inside = known.clone();
            for (place, input) in body.inputs.iter().enumerate() {
                inside.insert(input.name.clone(), if place < 2 { Depends::default() } else { carried });
            }
            let outputs = self.graph(body, &mut inside, depth + 1);
            counted |= outputs.first().is_some_and(|goes_on| goes_on.values || goes_on.size);
            carried = outputs.into_iter().fold(carried, Depends::or);
        }
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
    fn scanned(&self, node: &Node, known: &Known, all: Depends, depth: usize) -> Vec<Depends> {
        let Some(body) = node.bodies.first() else { return vec![Depends::EVERYTHING] };
        let mut carried = all;
        for _ in 0..3 {
            let mut inside = known.clone();
            inside.extend(body.inputs.iter().map(|input| (input.name.clone(), carried)));
            carried = self.graph(body, &mut inside, depth + 1).into_iter().fold(carried, Depends::or);
        }
        vec![carried]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[track_caller]
    fn check(depends: bool, nodes: &[(&str, &[&str], &[&str])]) {
        assert_eq!(model(nodes).sizes_depend_on_values(), depends, "{nodes:?}");
    }

    #[test]
    fn sizes_that_come_from_sizes_do_not_depend_on_values() {
        check(false, &[("MatMul", &["x", "weight"], &["y"])]);
        check(false, &[("Shape", &["x"], &["s"]), ("Reshape", &["x", "s"], &["y"])]);
        check(false, &[("Reshape", &["x", "weight"], &["y"])]);
        check(false, &[("TopK", &["x", "weight"], &["y", "places"])]);
        check(false, &[("Tokenizer", &["x"], &["t"]), ("TfIdfVectorizer", &["t"], &["y"])]);
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
        assert!(unknown.sizes_depend_on_values());
    }
}
