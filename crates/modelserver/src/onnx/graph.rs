//! What the runtime does not tell of a model, read from its file: which inputs have no rank, the opset, and which sizes
//! depend on the values of the inputs.
//!
//! Only names, operators and small constants are read. Weights are skipped without being read, so that a large model costs no more than
//! a small one of as many nodes.

mod facts;
mod operators;
pub(super) mod sizes;
mod tensors;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    path::Path,
};

use walk::{Field, Walk};

/// A model's file, as far as it is of interest here.
#[derive(Debug, Default)]
pub(super) struct Model {
    graph: Graph,
    functions: Vec<Function>,
    opset: Option<u64>,
}

/// A graph: the model's own, or a body of a control flow operator.
#[derive(Clone, Debug, Default)]
struct Graph {
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    initializers: HashSet<String>,
    /// The numbers of small initializers.
    numbers: HashMap<String, Vec<i64>>,
}

/// What a graph says of an input or output.
#[derive(Clone, Debug, Default)]
struct Value {
    name: String,
    /// How many dimensions it has is said.
    ranked: bool,
    /// All sizes of it are numbers.
    fixed: bool,
    /// It is one number: it has no dimensions.
    scalar: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    operator: String,
    domain: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    bodies: Vec<Graph>,
    /// The numbers of its attributes; read for the operators in [`NUMBERED`] alone.
    attributes: HashMap<String, Vec<i64>>,
}

/// Operators of which the numbers of attributes are of interest.
const NUMBERED: &[&str] = &["Constant", "ConvTranspose", "DynamicSlice", "Slice", "Split", "Unique"];

/// A function that the model brings for its own nodes.
#[derive(Debug, Default)]
struct Function {
    name: String,
    domain: String,
    graph: Graph,
}

impl Model {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let mut walk = Walk::new(File::open(file)?)?;
        let (end, mut model) = (walk.length(), Self::default());
        while let Some(field) = walk.next(end)? {
            match field {
                Field { number: 7, .. } => model.graph = graph(&mut walk, field.end, 0)?,
                Field { number: 8, .. } => {
                    let (domain, version) = opset(&mut walk, field.end)?;
                    if domain.is_empty() || domain == "ai.onnx" {
                        model.opset = Some(version);
                    }
                }
                Field { number: 25, .. } => model.functions.push(function(&mut walk, field.end)?),
                _ => {}
            }
            walk.skip_to(field.end)?;
        }
        Ok(model)
    }

    /// The version of ONNX's own operators.
    pub(super) fn opset(&self) -> Option<u64> {
        self.opset
    }

    /// Whether an input has dimensions of which the model does not even say how many there are.
    pub(super) fn is_unranked(&self, input: &str) -> bool {
        self.graph.inputs.iter().any(|known| known.name == input && !known.ranked)
    }
}

/// Graphs in graphs, at most: deeper ones are no model that a person made.
const DEEPEST: usize = 32;

fn graph(walk: &mut Walk, end: u64, depth: usize) -> io::Result<Graph> {
    if depth > DEEPEST {
        return Err(io::Error::other("graphs are nested too deeply"));
    }
    let mut graph = Graph::default();
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 => graph.nodes.push(node(walk, field.end, depth)?),
            5 => {
                if let (Some(name), numbers) = tensors::tensor(walk, field.end)? {
                    graph.numbers.extend(numbers.map(|numbers| (name.clone(), numbers)));
                    graph.initializers.insert(name);
                }
            }
            11 => graph.inputs.push(value(walk, field.end)?),
            12 => graph.outputs.push(value(walk, field.end)?),
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    Ok(graph)
}

fn node(walk: &mut Walk, end: u64, depth: usize) -> io::Result<Node> {
    let mut node = Node::default();
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 => node.inputs.push(walk.text(field.end)?),
            2 => node.outputs.push(walk.text(field.end)?),
            4 => node.operator = walk.text(field.end)?,
            5 => attribute(walk, field.end, depth, &mut node)?,
            7 => node.domain = walk.text(field.end)?,
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    Ok(node)
}

/// The graphs of an attribute, and of some operators its numbers. An operator's name comes before its attributes.
fn attribute(walk: &mut Walk, end: u64, depth: usize, node: &mut Node) -> io::Result<()> {
    let is_numbered = NUMBERED.contains(&node.operator.as_str());
    let (mut name, mut numbers) = (String::new(), Vec::new());
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 if is_numbered => name = walk.text(field.end)?,
            6 | 11 => node.bodies.push(graph(walk, field.end, depth + 1)?),
            _ if is_numbered => numbers.extend(tensors::of_attribute(walk, field)?.unwrap_or_default()),
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    if !numbers.is_empty() {
        node.attributes.insert(name, numbers);
    }
    Ok(())
}

fn function(walk: &mut Walk, end: u64) -> io::Result<Function> {
    let mut function = Function::default();
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 => function.name = walk.text(field.end)?,
            4 => function.graph.inputs.push(Value { name: walk.text(field.end)?, ..Value::default() }),
            5 => function.graph.outputs.push(Value { name: walk.text(field.end)?, ..Value::default() }),
            7 => function.graph.nodes.push(node(walk, field.end, 0)?),
            10 => function.domain = walk.text(field.end)?,
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    Ok(function)
}

fn value(walk: &mut Walk, end: u64) -> io::Result<Value> {
    let mut value = Value::default();
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 => value.name = walk.text(field.end)?,
            2 => {
                // The type, therein the tensor's, therein the shape.
                let (mut dimensions, mut numbers) = (0, 0);
                let mut shape = |walk: &mut Walk, end| {
                    value.ranked = true;
                    each(walk, end, &[1], &mut |walk, end| {
                        dimensions += 1;
                        each(walk, end, &[1], &mut |_, _| {
                            numbers += 1;
                            Ok(())
                        })
                    })
                };
                each(walk, field.end, &[1, 2], &mut shape)?;
                value.fixed = value.ranked && dimensions == numbers;
                value.scalar = value.ranked && dimensions == 0;
            }
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    Ok(value)
}

/// Does something in each field at the end of a path of messages.
fn each(
    walk: &mut Walk,
    end: u64,
    path: &[u32],
    with: &mut dyn FnMut(&mut Walk, u64) -> io::Result<()>,
) -> io::Result<()> {
    let Some((first, rest)) = path.split_first() else { return with(walk, end) };
    while let Some(field) = walk.next(end)? {
        if field.number == *first {
            each(walk, field.end, rest, with)?;
        }
        walk.skip_to(field.end)?;
    }
    Ok(())
}

fn opset(walk: &mut Walk, end: u64) -> io::Result<(String, u64)> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some(field) = walk.next(end)? {
        match field.number {
            1 => domain = walk.text(field.end)?,
            2 => version = field.value,
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    Ok((domain, version))
}
