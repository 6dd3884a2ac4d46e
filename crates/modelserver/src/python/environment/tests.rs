//! Environments are built by a real `uv`, which `make setup` installs, or a real pip, from the package index.

use std::process::Command;

use super::*;

/// The `uv` that `make setup` installs.
fn uv() -> PathBuf {
    let cache = base::config::variable("MODELWAY_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(base::config::variable("HOME").unwrap()).join(".cache/modelway");
    let uv = cache.unwrap_or_else(home).join("venv/bin/uv");
    assert!(uv.is_file(), "{} is missing: make setup", uv.display());
    uv
}

/// A model's folder with one file.
fn asks(name: &str, text: &str) -> (tempfile::TempDir, Wanted) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    let wanted = Wanted::of_folder(folder.path()).unwrap().unwrap();
    (folder, wanted)
}

fn prints(interpreter: &Interpreter, code: &str) -> String {
    let told = Command::new(&interpreter.path).args(["-I", "-c", code]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

#[test]
fn two_models_have_different_versions_of_one_package_side_by_side() {
    let cache = tempfile::tempdir().unwrap();
    let version = |text: &str| {
        let (_folder, wanted) = asks("requirements.txt", text);
        let interpreter = prepare(&wanted, cache.path(), Some(&uv())).unwrap();
        (prints(&interpreter, "import packaging, numpy; print(packaging.__version__)"), interpreter)
    };
    let (old, of_old) = version("packaging==23.0\n");
    let (new, of_new) = version("packaging==24.0\n");
    assert_eq!((old.as_str(), new.as_str()), ("23.0", "24.0"));
    assert_ne!(of_old.path, of_new.path);
    let (again, same) = version("# the same wish in other words\n\npackaging==23.0\n");
    assert_eq!((again, &same.path), (old, &of_old.path));
    assert!(same.origin.starts_with("environment"), "{}", same.origin);
}

#[test]
fn an_environment_is_compiled_when_built_and_built_again_when_its_interpreter_is_gone() {
    let cache = tempfile::tempdir().unwrap();
    let (_folder, wanted) = asks("python_env.yaml", "python: \"3.11\"\ndependencies: [packaging==24.0]\n");
    let built = prepare(&wanted, cache.path(), Some(&uv())).unwrap();
    let cached = prints(&built, "import packaging, os; print(os.path.isfile(packaging.__cached__))");
    assert_eq!(cached, "True");
    assert!(prints(&built, "import sys; print(sys.version)").starts_with("3.11."));
    fs::remove_file(&built.path).unwrap();
    std::os::unix::fs::symlink("/nowhere/python", &built.path).unwrap();
    let mended = prepare(&wanted, cache.path(), Some(&uv())).unwrap();
    assert!(mended.origin.starts_with("new environment"), "{}", mended.origin);
    assert_eq!(prints(&mended, "import packaging; print(packaging.__version__)"), "24.0");
}

#[test]
fn two_servers_build_an_environment_once() {
    let cache = tempfile::tempdir().unwrap();
    let (_folder, wanted) = asks("requirements.txt", "packaging==23.1\n");
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| prepare(&wanted, cache.path(), Some(&uv())).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.origin.starts_with("new")).count(), 1, "{made:?}");
}

#[test]
fn a_failed_build_names_the_line_and_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let said = |text: &str| {
        let (folder, wanted) = asks("requirements.txt", text);
        let error = prepare(&wanted, cache.path(), Some(&uv())).unwrap_err();
        assert!(error.is_permanent() && error.code() == "environment_failed", "{error:?}");
        error.to_string().replace(&folder.path().display().to_string(), ".")
    };
    let words = said("# tools\npackaging==23.0\npackaging==24.0\nnumpy\n");
    assert!(
        words.starts_with(
            "the environment of ./requirements.txt cannot be built: line 2 of ./requirements.txt (`packaging==23.0`), and \
             line 3 of ./requirements.txt (`packaging==24.0`). uv says: No solution found"
        ),
        "{words}"
    );
    let words = said("numpy\npackaging==999.0\n");
    assert!(words.contains("cannot be built: line 2 of ./requirements.txt (`packaging==999.0`). uv says"), "{words}");
    let words = said("packaging==23.0\n\nnumpy=2.0\n");
    assert!(words.contains("line 3 of ./requirements.txt (`numpy=2.0`). uv says: Couldn't parse"), "{words}");
    let left: Vec<_> = fs::read_dir(cache.path().join("environments")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.path().extension().is_some_and(|end| end == "lock")), "{left:?}");
}

#[test]
fn a_version_of_python_that_is_not_to_be_had_is_an_error_with_those_that_are() {
    let cache = tempfile::tempdir().unwrap();
    let said = |version: &str| {
        let (_folder, wanted) = asks("python_env.yaml", &format!("python: '{version}'\n"));
        prepare(&wanted, cache.path(), Some(&uv())).unwrap_err().to_string()
    };
    assert!(said("3.2").contains("wants Python 3.2, and models here want 3.9 or newer"));
    let words = said("3.77");
    assert!(
        words.contains("wants Python 3.77, which is not here and could not be fetched") && words.contains("3.11."),
        "{words}"
    );
    assert!(said("three").contains("is no version of Python"));
}

#[test]
fn a_uv_that_is_named_must_be_there() {
    let cache = tempfile::tempdir().unwrap();
    let (_folder, wanted) = asks("requirements.txt", "packaging\n");
    let said = prepare(&wanted, cache.path(), Some(Path::new("/nowhere/uv"))).unwrap_err().to_string();
    assert_eq!(said, "serve.uv is /nowhere/uv, and that is no program");
}

#[test]
fn without_uv_pip_builds_the_environment_and_names_the_line_that_it_cannot_have() {
    let cache = tempfile::tempdir().unwrap();
    let with_pip = |wanted: &Wanted| prepare_with(wanted, cache.path(), || Ok(Builder::Pip));
    let (_folder, wanted) = asks("requirements.txt", "packaging==24.0\nnumpy<3\n");
    let built = with_pip(&wanted).unwrap();
    assert_eq!(prints(&built, "import packaging, numpy; print(packaging.__version__)"), "24.0");
    assert_eq!(prints(&built, "import packaging, os; print(os.path.isfile(packaging.__cached__))"), "True");
    let script = built.path.with_file_name("f2py");
    let told = Command::new(&script).arg("-v").output().unwrap();
    assert!(told.status.success(), "{} starts where it was moved to: {told:?}", script.display());

    let (folder, wanted) = asks("requirements.txt", "# tools\npackaging==999.0\n");
    let words = with_pip(&wanted).unwrap_err().to_string();
    let line = format!("line 2 of {}/requirements.txt (`packaging==999.0`). pip says: ", folder.path().display());
    assert!(words.contains(&line) && words.contains("No matching distribution"), "{words}");

    let (_folder, wanted) = asks("python_env.yaml", "python: '3.77'\n");
    let words = with_pip(&wanted).unwrap_err().to_string();
    assert!(words.contains("which is not here and could not be fetched (only `uv` fetches one"), "{words}");
}

#[test]
fn the_word_for_one_model_wins_over_its_files_and_those_over_the_word_for_all() {
    let cache = tempfile::tempdir().unwrap();
    let python_dir = cache.path().to_owned();
    let config = Config { python: Some("python3".to_owned()), python_dir, uv: Some(uv()), ..Config::default() };
    let (folder, _) = asks("requirements.txt", "packaging==24.0\nNot_to.be-had==1\n");
    let of = |folder: &Path, own, config| {
        choose(own, || Ok(Wanted::of_folder(folder)?.map(|wanted| wanted.without(&["not-to-be-had"]))), config)
    };
    let built = of(folder.path(), None, &config).unwrap();
    assert_eq!(prints(&built, "import packaging; print(packaging.__version__)"), "24.0");
    let environment = built.path.parent().unwrap().parent().unwrap();
    assert_eq!(of(cache.path(), environment.to_str(), &config).unwrap().path, built.path);
    assert_eq!(of(folder.path(), Some("python3"), &config).unwrap().origin, "serve.models.NAME.python");
    assert_eq!(of(cache.path(), None, &config).unwrap().origin, "serve.python");
    let nothing = Config { python: Some("/nowhere/python".to_owned()), ..Config::default() };
    let said = of(cache.path(), None, &nothing).unwrap_err().to_string();
    assert!(said.starts_with("there is no program /nowhere/python"), "{said}");
}

#[test]
fn an_interpreter_without_numpy_is_replaced_by_an_environment_that_has_it() {
    let cache = tempfile::tempdir().unwrap();
    let bare = cache.path().join("bare");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&bare).status().unwrap();
    assert!(made.success());
    let bare = Interpreter { path: executable(&bare), origin: "serve.python".to_owned() };
    let config = Config { python_dir: cache.path().to_owned(), uv: Some(uv()), ..Config::default() };
    let used = with_numpy(bare.clone(), &config).unwrap();
    assert_ne!(used.path, bare.path);
    assert_eq!(prints(&used, "import numpy; print(numpy.ones(2).sum())"), "2.0");
    assert_eq!(with_numpy(used.clone(), &config).unwrap(), used, "one that has it is taken as it is");
}
