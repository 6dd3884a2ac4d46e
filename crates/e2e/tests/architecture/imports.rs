//! Reads which files of a crate import which.
//!
//! A file imports another when its code names something that is defined in the other, by `use` or by a path in place. An item
//! that a module hands on with `use` belongs to the file that defines it; the file that hands it on imports it too. `mod`
//! alone is no import. Code under `#[cfg(test)]` is not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::{Path, PathBuf},
    slice::Iter,
};

use proc_macro2::{Delimiter, Group, Punct, Spacing, TokenStream, TokenTree};

/// A module's path below its crate's root, or an item's.
type Names = Vec<String>;

/// For each file, the files that it imports, and the items that it takes from each.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// One module of a crate, in a file of its own or inside another module's.
struct Module {
    file: PathBuf,
    code: Vec<TokenTree>,
}

/// What a module's code names.
struct Named {
    paths: BTreeSet<Names>,
    /// What its `use` declarations give a name in the module.
    given: BTreeMap<String, Names>,
}

/// A path as it is written, and the name that a `use` gives to what it leads to.
struct Written {
    is_use: bool,
    path: Names,
    name: String,
}

/// Reads the crate whose root is `root` (`src/lib.rs`). Its files are told relative to the root's folder.
pub(crate) fn read(root: &Path) -> Imports {
    let mut modules = BTreeMap::new();
    let file = PathBuf::from(root.file_name().unwrap());
    collect(root.parent().unwrap(), &file, Names::new(), parse(root), &mut modules);
    let named: BTreeMap<_, _> = modules.iter().map(|(path, module)| (path, names_of(path, module, &modules))).collect();
    let mut imports = Imports::new();
    for (path, module) in &modules {
        let used = imports.entry(module.file.clone()).or_default();
        for item in &named[path].paths {
            let item = origin(item, &modules, &named);
            let owner = &modules[owner(&item, &modules)].file;
            if *owner != module.file {
                used.entry(owner.clone()).or_default().insert(item.join("::"));
            }
        }
    }
    imports
}

/// The circles of files that import each other: the files that each one ties together.
pub(crate) fn circles(imports: &Imports) -> BTreeSet<BTreeSet<&Path>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = imports
        .keys()
        .map(|file| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
            while let Some(file) = next.pop() {
                next.extend(imports[file].keys().filter(|used| seen.insert(used.as_path())));
            }
            (file.as_path(), seen)
        })
        .collect();
    let in_a_circle = reached.iter().filter(|(file, others)| others.contains(*file));
    in_a_circle
        .map(|(file, others)| others.iter().copied().filter(|other| reached[other].contains(file)).collect())
        .collect()
}

fn parse(path: &Path) -> Vec<TokenTree> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let code: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    without_tests(code)
}

/// Leaves out what is under `#[cfg(test)]`, and all attributes.
fn without_tests(code: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut skips = false;
    let mut tokens = code.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                tokens.next_if(|next| is_mark(next, '!'));
                if let Some(TokenTree::Group(attribute)) = tokens.next() {
                    skips |= attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                }
            }
            TokenTree::Group(group) if !skips => {
                let inner = without_tests(group.stream()).into_iter().collect();
                kept.push(Group::new(group.delimiter(), inner).into());
            }
            token if !skips => kept.push(token),
            // What is left out ends with its body or its semicolon.
            TokenTree::Group(group) => skips = group.delimiter() != Delimiter::Brace,
            TokenTree::Punct(mark) => skips = mark.as_char() != ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
    }
    kept
}

/// Adds a module and those that it declares.
fn collect(folder: &Path, file: &Path, path: Names, code: Vec<TokenTree>, into: &mut BTreeMap<Names, Module>) {
    let mut own = Vec::new();
    let mut tokens = code.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let name = match (&token, tokens.peek()) {
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "mod" => name.to_string(),
            _ => {
                own.push(token);
                continue;
            }
        };
        tokens.next();
        let child: Names = path.iter().cloned().chain([name]).collect();
        match tokens.next() {
            Some(TokenTree::Group(body)) => collect(folder, file, child, body.stream().into_iter().collect(), into),
            _ => {
                let file = child.iter().collect::<PathBuf>().with_extension("rs");
                collect(folder, &file, child, parse(&folder.join(&file)), into);
            }
        }
    }
    into.insert(path, Module { file: file.to_owned(), code: own });
}

/// The innermost module on a path.
fn owner<'p>(path: &'p [String], modules: &BTreeMap<Names, Module>) -> &'p [String] {
    (0..=path.len()).rev().map(|length| &path[..length]).find(|start| modules.contains_key(*start)).unwrap()
}

/// Where an item stands that modules hand on.
fn origin(path: &[String], modules: &BTreeMap<Names, Module>, named: &BTreeMap<&Names, Named>) -> Names {
    let step = |path: &Names| {
        let owner = owner(path, modules);
        let given = named[&owner.to_vec()].given.get(path.get(owner.len())?)?;
        Some([given.as_slice(), &path[owner.len() + 1..]].concat())
    };
    // A name that two modules give to each other leads nowhere.
    iter::successors(Some(path.to_vec()), step).take(16).last().unwrap()
}

fn names_of(path: &[String], module: &Module, modules: &BTreeMap<Names, Module>) -> Named {
    let children = |of: &[String]| -> Vec<(String, Names)> {
        let is_child = |path: &&Names| path.len() == of.len() + 1 && path.starts_with(of);
        modules.keys().filter(is_child).map(|path| (path.last().unwrap().clone(), path.clone())).collect()
    };
    let mut written = Vec::new();
    gather(&module.code, &mut written);
    let mut named = Named { paths: BTreeSet::new(), given: BTreeMap::new() };
    // The modules that have a name here.
    let mut scope: BTreeMap<String, Names> = children(path).into_iter().collect();
    for one in written.iter().filter(|one| one.is_use) {
        let Some(whole) = from_root(&one.path, path, &scope) else { continue };
        match whole.split_last() {
            Some((last, parent)) if last == "*" => scope.extend(children(parent)),
            _ if modules.contains_key(&whole) => {
                scope.insert(one.name.clone(), whole.clone());
                named.given.insert(one.name.clone(), whole.clone());
            }
            _ => {
                named.given.insert(one.name.clone(), whole.clone());
            }
        }
        named.paths.insert(whole);
    }
    let in_place = written.iter().filter(|one| !one.is_use && one.path.len() > 1);
    named.paths.extend(in_place.filter_map(|one| from_root(&one.path, path, &scope)));
    named
}

/// A written path from the crate's root; none when it leads out of the crate or only names the module that it stands in.
fn from_root(path: &[String], module: &[String], scope: &BTreeMap<String, Names>) -> Option<Names> {
    let rises = path.iter().take_while(|piece| *piece == "super").count();
    let (start, rest) = match path.first()?.as_str() {
        "crate" => (&[][..], &path[1..]),
        "super" => (&module[..module.len().checked_sub(rises)?], &path[rises..]),
        "self" => (module, &path[1..]),
        first => (scope.get(first)?.as_slice(), &path[1..]),
    };
    let whole = [start, rest].concat();
    (whole != module).then_some(whole)
}

/// Every path in some code; a `use` gives one for each of its leaves.
fn gather(code: &[TokenTree], into: &mut Vec<Written>) {
    let mut tokens = code.iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => gather(&group.stream().into_iter().collect::<Vec<_>>(), into),
            TokenTree::Ident(word) if word == "pub" => {
                // `pub(in crate::a)` imports nothing.
                let mut ahead = tokens.clone();
                if matches!(ahead.next(), Some(TokenTree::Group(seen)) if seen.delimiter() == Delimiter::Parenthesis) {
                    tokens = ahead;
                }
            }
            TokenTree::Ident(word) if word == "use" => leaves(&mut tokens, &[], into),
            TokenTree::Ident(word) => {
                let mut path = vec![word.to_string()];
                while let Some(next) = after_colons(&mut tokens) {
                    path.push(next);
                }
                into.push(Written { is_use: false, name: path.last().unwrap().clone(), path });
            }
            // What follows in `<T as Trait>::Item` and `::std::io` is no name of this crate.
            TokenTree::Punct(_) => while after_colons(&mut tokens).is_some() {},
            TokenTree::Literal(_) => {}
        }
    }
}

/// The next word, if it follows on `::`.
fn after_colons(tokens: &mut Iter<'_, TokenTree>) -> Option<String> {
    let mut ahead = tokens.clone();
    let colons = ahead.by_ref().take(2).filter(|token| is_mark(token, ':')).count();
    let Some(TokenTree::Ident(word)) = ahead.next().filter(|_| colons == 2) else { return None };
    *tokens = ahead;
    Some(word.to_string())
}

/// The leaves of a `use` up to its semicolon, or of what stands in its braces.
fn leaves(tokens: &mut Iter<'_, TokenTree>, before: &[String], into: &mut Vec<Written>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut is_renamed = false;
    let end = TokenTree::from(Punct::new(';', Spacing::Alone));
    for token in tokens.by_ref().cloned().chain([end]) {
        match &token {
            TokenTree::Ident(word) if word == "as" => is_renamed = true,
            TokenTree::Ident(word) if is_renamed => name = Some(word.to_string()),
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(group) => {
                leaves(&mut group.stream().into_iter().collect::<Vec<_>>().iter(), &path, into);
                path.truncate(before.len());
            }
            token if is_mark(token, '*') => path.push("*".to_owned()),
            token if is_mark(token, ',') || is_mark(token, ';') => {
                if path.len() > before.len() {
                    path.pop_if(|last| last == "self");
                    let name = name.take().unwrap_or_else(|| path.last().cloned().unwrap_or_default());
                    into.push(Written { is_use: true, path: path.clone(), name });
                }
                path = before.to_vec();
                is_renamed = false;
                if is_mark(token, ';') {
                    return;
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == mark)
}
