//! Whether the size of an output depends on the values of the inputs, and not only on their sizes.
//!
//! The rows of two requests for such a model share a size: one request's text decides how far another's is padded. So
//! they must not be joined, whatever a few tried rows show.
//!
//! Facts are followed from the inputs to the outputs: whether a value depends on the inputs' values, and whether its
//! size does. `Shape` turns a size into a value; operators such as `Reshape` turn a value into a size. What is not known
//! is taken to depend.
//!
//! Some operators end the process on a tensor without elements, or a length of 0. Such a size can come about inside of
//! the graph, where no input of a request is empty: see [`Fatal`].

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use super::{
    Graph, Model, Node, Value,
    facts::Facts,
    operators::{
        DOMAINS, FATAL, GROWS, GROWS_WITH_FIRST, LEAVES_LESS, SHRINKS, SIGNED_WITH_FIRST, SIZED_BY, SIZED_BY_ALL,
        SIZED_BY_NONE, WINDOWS,
    },
};

/// What is known of the values in a graph, by their names, and of those around it.
#[derive(Default)]
struct Known<'m, 'k> {
    own: HashMap<&'m str, Facts>,
    /// The numbers of small constants.
    numbers: HashMap<&'m str, &'m [i64]>,
    around: Option<&'k Known<'m, 'k>>,
}

impl<'m, 'k> Known<'m, 'k> {
    fn inside(around: &'k Self) -> Self {
        Self { around: Some(around), ..Self::default() }
    }

    fn get(&self, name: &str) -> Option<Facts> {
        self.own.get(name).copied().or_else(|| self.around?.get(name))
    }

    fn numbers(&self, name: &str) -> Option<&'m [i64]> {
        self.numbers.get(name).copied().or_else(|| self.around?.numbers(name))
    }

    /// Adds a constant, with its numbers if these are known.
    fn constant(&mut self, name: &'m str, numbers: Option<&'m [i64]>) {
        let is_signed = numbers.is_none_or(|numbers| numbers.iter().any(|number| *number < 0));
        self.own.insert(name, Facts::SIGNED.when(is_signed));
        self.numbers.extend(numbers.map(|numbers| (name, numbers)));
    }
}

/// A function by its place, what decides whether it is run, and what is known of its inputs.
type Called = (usize, Facts, Vec<Facts>);

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
    fatal: Option<Fatal>,
}

/// An operator that can end the process where a size is 0, which may come about though no input is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::onnx) enum Fatal {
    /// The sizes of a request's inputs say so, and those of larger inputs are large enough too. If `numbers`, the inputs
    /// that are single numbers decide with them.
    BySizes { numbers: bool },
    /// Nothing that can be seen beforehand says so. The operator is this one.
    Anyhow(String),
}

impl Model {
    /// How an operator can end the process, if one can.
    pub(in crate::onnx) fn fatal(&self) -> Option<Fatal> {
        let mut functions = self.functions.iter().map(|function| &function.graph);
        let may_be = has_fatal(&self.graph) || functions.any(has_fatal);
        let fatal = may_be.then(|| self.sizes().fatal).flatten()?;
        // Where nothing varies, loading has shown it.
        let varies = self.graph.inputs.iter().any(|input| !input.fixed);
        (varies || matches!(fatal, Fatal::Anyhow(_))).then_some(fatal)
    }

    /// Follows the sizes from the inputs to the outputs.
    pub(in crate::onnx) fn sizes(&self) -> Sizes {
        let inputs = self.graph.inputs.iter();
        let inputs = inputs.filter(|input| !self.graph.initializers.contains(&input.name));
        let given = |input: &Value| if input.scalar { Facts::VALUES } else { Facts::INPUT };
        let known: HashMap<_, _> = inputs.map(|input| (input.name.as_str(), given(input))).collect();
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
            let outputs = analysis.graph(&self.graph, Known { own: known.clone(), ..Known::default() }, 0);
            if !analysis.grew.get() {
                return sizes(outputs.into_iter().any(|output| output.has(Facts::SIZE)));
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
    fatal: RefCell<Option<Fatal>>,
    /// What decides whether the body is run that is being followed.
    chosen: Cell<Facts>,
    /// What is known of the outputs of a function.
    called: RefCell<HashMap<Called, Vec<Facts>>>,
    /// How many calls of each function this pass has followed.
    calls: RefCell<HashMap<usize, usize>>,
    /// What is known of the values that a body carries, by the body's address.
    carried: RefCell<HashMap<*const Graph, Facts>>,
    /// Whether this pass has added to them.
    grew: Cell<bool>,
}

impl<'m> Analysis<'m> {
    /// What is known of the outputs of a graph. `known` holds its inputs.
    fn graph(&self, graph: &'m Graph, mut known: Known<'m, '_>, depth: usize) -> Vec<Facts> {
        for name in &graph.initializers {
            known.constant(name, graph.numbers.get(name).map(Vec::as_slice));
        }
        for node in &graph.nodes {
            if let ("Constant", Some(name)) = (node.operator.as_str(), node.outputs.first()) {
                known.constant(name, node.attributes.values().next().map(Vec::as_slice));
                continue;
            }
            let made = self.node(node, &known, depth);
            for (place, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let made = made.get(place).or(made.last()).copied().unwrap_or(Facts::EVERYTHING);
                known.own.insert(name, made);
            }
        }
        // What no node makes is a constant.
        graph.outputs.iter().map(|output| known.get(&output.name).unwrap_or_default()).collect()
    }

    /// The same of a body that is run or not, as these values decide.
    fn body(&self, graph: &'m Graph, known: Known<'m, '_>, depth: usize, decided_by: Facts) -> Vec<Facts> {
        let around = self.chosen.replace(self.chosen.get() | decided_by);
        let made = self.graph(graph, known, depth);
        self.chosen.set(around);
        made
    }

    /// What is known of a node's outputs; the last one holds for all further ones.
    fn node(&self, node: &'m Node, known: &Known<'m, '_>, depth: usize) -> Vec<Facts> {
        // What nothing is known of is a constant, or left out.
        let facts = |name: &String| known.get(name).unwrap_or(Facts::SIGNED.when(!name.is_empty()));
        let inputs: Vec<Facts> = node.inputs.iter().map(facts).collect();
        let all: Facts = inputs.iter().copied().collect();
        if depth > DEEPEST {
            return vec![Facts::EVERYTHING];
        }
        if let Some((place, graph)) = self.functions.get(&(node.domain.as_str(), node.operator.as_str())) {
            return self.call(*place, graph, inputs, depth);
        }
        if !DOMAINS.contains(&node.domain.as_str()) {
            let depends = all.has(Facts::VALUES | Facts::SIZE);
            return vec![of_values(all) | Facts::SIGNED | (Facts::SIZE.when(depends)) | (all & Facts::EMPTY)];
        }
        self.note_if_fatal(node, &inputs, depth);
        match node.operator.as_str() {
            "Shape" | "Size" => {
                let values = Facts::INPUT.when(all.has(Facts::SIZE));
                vec![values | Facts::SIZES.when(all.has(Facts::VARIES)) | Facts::COMPUTED.when(all.has(Facts::JUMPS))]
            }
            "If" => self.branches(node, known, all, depth),
            "Loop" => self.repeated(node, known, &inputs, depth),
            "Scan" | "SequenceMap" => self.scanned(node, known, all, depth),
            operator => {
                let jumps = match operator {
                    "Slice" | "DynamicSlice" => slice_may_leave_less(node, &inputs, known),
                    // The last part is what the others leave, and they grow by steps.
                    "Split" => node.outputs.len() > 2 && node.attributes.contains_key("num_outputs"),
                    _ => false,
                };
                let of_inputs = inputs.first().is_some_and(|data| data.has(Facts::VALUES | Facts::SIZE | Facts::EMPTY));
                vec![made(operator, &inputs, all) | Facts::JUMPS.when(jumps && of_inputs)]
            }
        }
    }

    /// What is known of the outputs of a function.
    fn call(&self, place: usize, graph: &'m Graph, mut inputs: Vec<Facts>, depth: usize) -> Vec<Facts> {
        let chosen = self.chosen.get();
        let known = |inputs: &Vec<Facts>| self.called.borrow().get(&(place, chosen, inputs.clone())).cloned();
        if let Some(made) = known(&inputs) {
            return made;
        }
        let calls = *self.calls.borrow_mut().entry(place).and_modify(|calls| *calls += 1).or_insert(1);
        if calls > MOST_CALLS {
            inputs.fill(Facts::EVERYTHING);
            if let Some(made) = known(&inputs) {
                return made;
            }
        }
        let names = graph.inputs.iter().map(|input| input.name.as_str());
        let inside = Known { own: names.zip(inputs.iter().copied()).collect(), ..Known::default() };
        let made = self.graph(graph, inside, depth + 1);
        self.called.borrow_mut().insert((place, chosen, inputs), made.clone());
        made
    }

    /// Notes an operator that can end the process.
    fn note_if_fatal(&self, node: &Node, inputs: &[Facts], depth: usize) {
        let at = |place: usize| inputs.get(place).copied().unwrap_or_default();
        let sized = |place: usize| at(place) & (Facts::SIZE | Facts::EMPTY);
        // Elsewhere another value may have the name.
        let is_tried =
            |place: usize| depth == 0 && node.inputs.get(place).is_some_and(|name| self.tried.contains(name.as_str()));
        let counted = |place: usize| {
            let count = at(place);
            Facts::SIZE.when(count.has(Facts::VALUES) && !is_tried(place))
                | Facts::JUMPS.when(count.has(Facts::COMPUTED) || count.has(Facts::SIZES) && count.has(Facts::SIGNED))
                | Facts::SHRINKS.when(count.has(Facts::SIZES))
        };
        let facts = match node.operator.as_str() {
            "GRU" | "InstanceNormalization" | "LSTM" | "RNN" => sized(0),
            // Only with three spatial dimensions, and where their number is not said.
            "ConvTranspose" if node.attributes.get("kernel_shape").is_none_or(|kernel| kernel.len() == 3) => sized(0),
            "Unique" if node.attributes.contains_key("axis") => sized(0),
            // The window, and the length of a frame.
            "STFT" => sized(2) | counted(3),
            _ => Facts::NOTHING,
        };
        if facts == Facts::NOTHING {
            return;
        }
        let chosen = self.chosen.get();
        let by_sizes = facts == Facts::SHRINKS
            && !chosen.has(Facts::SIZE | Facts::TENSORS | Facts::SIZES | Facts::COMPUTED | Facts::EMPTY);
        let found = match by_sizes {
            true => Fatal::BySizes { numbers: chosen.has(Facts::VALUES) },
            false => Fatal::Anyhow(node.operator.clone()),
        };
        let mut fatal = self.fatal.borrow_mut();
        // The worse one is kept.
        *fatal = fatal.take().max(Some(found));
    }

    /// Either of two graphs, which may make different sizes.
    fn branches(&self, node: &'m Node, known: &Known<'m, '_>, condition: Facts, depth: usize) -> Vec<Facts> {
        let mut made = vec![Facts::NOTHING; node.outputs.len()];
        for body in &node.bodies {
            let outputs = self.body(body, Known::inside(known), depth + 1, condition);
            made.iter_mut().zip(outputs).for_each(|(made, output)| *made |= output);
        }
        if condition.has(Facts::VALUES | Facts::SIZE) {
            return vec![Facts::EVERYTHING];
        }
        if condition.has(Facts::SIZES | Facts::COMPUTED) {
            for made in &mut made {
                *made |= Facts::COMPUTED | Facts::JUMPS.when(made.has(Facts::EMPTY));
            }
        }
        made
    }

    /// A body that runs as often as its first two inputs say, and as its own condition does.
    fn repeated(&self, node: &'m Node, known: &Known<'m, '_>, inputs: &[Facts], depth: usize) -> Vec<Facts> {
        let Some(body) = node.bodies.first() else { return vec![Facts::EVERYTHING] };
        let control: Facts = inputs.iter().take(2).copied().collect();
        let by_sizes = control.has(Facts::SIZES | Facts::COMPUTED);
        let mut counted = control.has(Facts::VALUES | Facts::SIZE);
        let given: Facts = inputs.get(2..).unwrap_or_default().iter().copied().collect();
        // What it carries may be less after each run.
        let before = self.carried(body) | given | Facts::COMPUTED.when(by_sizes);
        let mut inside = Known::inside(known);
        for (place, input) in body.inputs.iter().enumerate() {
            let given = match place {
                // The number of a run goes as far as the inputs let it.
                0 => Facts::INPUT.when(counted) | Facts::COMPUTED.when(by_sizes),
                1 => Facts::NOTHING,
                _ => before,
            };
            inside.own.insert(&input.name, given);
        }
        let outputs = self.body(body, inside, depth + 1, control);
        counted |= outputs.first().is_some_and(|goes_on| goes_on.has(Facts::VALUES | Facts::SIZE));
        let carried = self.carry(body, before, &outputs);
        let made = |(place, output): (usize, &Value)| {
            let is_carried = place + 2 < body.inputs.len();
            match counted {
                // However often it runs, it hands on the same size.
                true if is_carried && output.fixed => Facts::INPUT,
                true => Facts::EVERYTHING,
                false if is_carried => carried | Facts::JUMPS.when(by_sizes && carried.has(Facts::EMPTY)),
                false => carried | Facts::SHRINKS.when(by_sizes) | Facts::JUMPS.when(control.has(Facts::COMPUTED)),
            }
        };
        body.outputs.iter().skip(1).enumerate().map(made).collect()
    }

    /// A body that runs once for each element.
    fn scanned(&self, node: &'m Node, known: &Known<'m, '_>, all: Facts, depth: usize) -> Vec<Facts> {
        let Some(body) = node.bodies.first() else { return vec![Facts::EVERYTHING] };
        // What it carries depends on how often it runs.
        let before = self.carried(body) | all | Facts::COMPUTED.when(all.has(Facts::VARIES));
        let mut inside = Known::inside(known);
        inside.own.extend(body.inputs.iter().map(|input| (input.name.as_str(), before)));
        let outputs = self.graph(body, inside, depth + 1);
        vec![self.carry(body, before, &outputs)]
    }

    /// What was found in passes before of the values that a body carries.
    fn carried(&self, body: &Graph) -> Facts {
        self.carried.borrow().get(&std::ptr::from_ref(body)).copied().unwrap_or_default()
    }

    /// Adds what one run of a body makes to what it was run `with`.
    fn carry(&self, body: &Graph, with: Facts, outputs: &[Facts]) -> Facts {
        let carried = outputs.iter().copied().fold(with, |with, output| with | output);
        if carried != with {
            self.carried.borrow_mut().insert(std::ptr::from_ref(body), carried);
            self.grew.set(true);
        }
        carried
    }
}

/// What the values of a tensor depend on that is computed from such tensors. Of a size that depends, whatever is computed
/// from it does.
fn of_values(all: Facts) -> Facts {
    let sized = all.has(Facts::SIZE);
    Facts::VALUES.when(sized || all.has(Facts::VALUES))
        | Facts::TENSORS.when(sized || all.has(Facts::TENSORS))
        | (all & (Facts::SIZES | Facts::COMPUTED))
}

/// Whether a slice of a larger tensor may be smaller: a bound below 0 counts from the end. The start, the end and the
/// step are inputs, or attributes in old files.
fn slice_may_leave_less(node: &Node, inputs: &[Facts], known: &Known<'_, '_>) -> bool {
    let at = |place: usize| inputs.get(place).copied().unwrap_or_default();
    if at(2).has(Facts::SIZES) && at(2).has(Facts::SIGNED) {
        return true;
    }
    if node.inputs.len() > 1 && !at(1).has(Facts::SIGNED) && !at(4).has(Facts::SIGNED) {
        return false;
    }
    let numbers = |place: usize, attribute| match node.inputs.get(place) {
        Some(name) if !name.is_empty() => known.numbers(name),
        _ => node.attributes.get(attribute).map(Vec::as_slice),
    };
    let has_steps = node.inputs.get(4).is_some_and(|name| !name.is_empty());
    let steps = if has_steps { numbers(4, "steps") } else { Some(&[][..]) };
    let (Some(starts), Some(ends), Some(steps)) = (numbers(1, "starts"), numbers(2, "ends"), steps) else {
        return true;
    };
    const FAR: i64 = i32::MAX as i64;
    let (from_start, from_end) = (|bound: i64| (0..FAR).contains(&bound), |bound: i64| (1 - FAR..0).contains(&bound));
    starts.iter().zip(ends).enumerate().any(|(place, (start, end))| match steps.get(place) {
        Some(step) if *step < 0 => from_start(*start) && from_end(*end),
        _ => from_end(*start) && from_start(*end),
    })
}

/// Whether the values that an operator computes from sizes grow with them.
fn grows(operator: &str, inputs: &[Facts]) -> bool {
    let is_size = |input: &&Facts| input.has(Facts::SIZES | Facts::COMPUTED);
    let is_signed = |input: &Facts| input.has(Facts::SIGNED);
    let others = inputs.get(1..).unwrap_or_default();
    match operator {
        "Div" if others.iter().any(is_signed) => false,
        "Mul" if inputs.iter().any(is_signed) => {
            // Less than nothing grows only with a factor that does not change.
            inputs.iter().filter(is_size).count() < 2
                && !inputs.iter().any(|input| !is_size(&input) && is_signed(input))
        }
        "ReduceProd" | "ReduceSum" if inputs.first().is_some_and(is_signed) => false,
        _ if GROWS_WITH_FIRST.contains(&operator) => others.iter().filter(is_size).count() == 0,
        _ => GROWS.contains(&operator),
    }
}

/// Whether an operator may compute values below 0.
fn may_be_negative(operator: &str, inputs: &[Facts]) -> bool {
    let is_signed = |input: &Facts| input.has(Facts::SIGNED);
    match operator {
        _ if SIGNED_WITH_FIRST.contains(&operator) => inputs.first().is_none_or(is_signed),
        "Add" | "Clip" | "Concat" | "Div" | "Min" | "Mul" | "Sum" => inputs.iter().any(is_signed),
        "Max" => inputs.iter().all(is_signed),
        "Abs" | "Relu" => false,
        _ => true,
    }
}

/// What is known of the outputs of an operator without bodies.
fn made(operator: &str, inputs: &[Facts], all: Facts) -> Facts {
    let of = |table: &[(&str, &'static [usize])]| {
        table.iter().find(|(name, _)| *name == operator).map_or(&[][..], |(_, places)| *places)
    };
    let at = |places: &[usize]| places.iter().filter_map(|place| inputs.get(*place)).copied().collect::<Facts>();
    let mut facts = of_values(all) | Facts::SIGNED.when(may_be_negative(operator, inputs));
    if facts.has(Facts::SIZES) && !grows(operator, inputs) {
        facts |= Facts::COMPUTED;
    }
    if SIZED_BY_NONE.contains(&operator) {
        return facts;
    }
    facts |= all & Facts::SIZE;
    if SIZED_BY_ALL.contains(&operator) {
        return facts
            | Facts::SIZE.when(all.has(Facts::VALUES))
            | Facts::JUMPS.when(all.has(Facts::SIZES | Facts::COMPUTED | Facts::EMPTY));
    }
    let places = of(SIZED_BY);
    let (by, against, windows) = (at(places), at(of(LEAVES_LESS)), at(of(WINDOWS)));
    let counts_down = operator == "Range" && by.has(Facts::SIZES) && at(&[2]).has(Facts::SIGNED);
    let compared = windows.has(Facts::VALUES | Facts::SIZE | Facts::EMPTY);
    // That what says a size is empty is another rank.
    let data = inputs.iter().enumerate().filter(|(place, _)| !places.contains(place)).map(|(_, input)| *input);
    let data: Facts = data.collect();
    let is_of_inputs = data.has(Facts::VALUES | Facts::SIZE | Facts::EMPTY);
    facts
        | (data & Facts::EMPTY)
        | Facts::SIZE.when(by.has(Facts::VALUES))
        | Facts::JUMPS.when(by.has(Facts::COMPUTED) || against.has(Facts::SIZES) || counts_down || compared)
        | Facts::SHRINKS.when(by.has(Facts::SIZES) || is_of_inputs && SHRINKS.contains(&operator))
}

#[cfg(test)]
mod tests;
