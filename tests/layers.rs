//! How the files hang together: modules use only what stands above them in `src/lib.rs` and nobody in a
//! circle, every file is a module, and none is too long to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The most lines of code that one file of `src` has.
const MOST_LINES_OF_A_FILE: usize = 330;

/// The most lines of code that `src` has without stores, readers of old sessions, test helpers and the guide.
const MOST_LINES_OF_THE_CORE: usize = 7_161;

/// A module of the crate root and the modules of the crate root it names.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_use_only_lower_groups_and_no_circles() {
    let src = repository().join("src");
    let root = fs::read_to_string(src.join("lib.rs")).unwrap();
    let groups = groups_of(&root);
    let uses: Uses =
        groups.iter().flatten().map(|module| (module.clone(), uses_of(&src, module))).collect();
    assert!(uses["manager"].contains("decision"), "the files were not understood");
    let violations = violations(&groups, &uses);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The modules that `lib.rs` declares, in groups between blank lines, the lowest first.
fn groups_of(root: &str) -> Vec<Vec<String>> {
    let groups = root.split("\n\n").map(|group| {
        let modules = group.lines().filter_map(|line| {
            let line = line.trim_start_matches("pub ");
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        modules.map(str::to_owned).collect::<Vec<_>>()
    });
    groups.filter(|group| !group.is_empty()).collect()
}

/// What the files of a module import from the rest of the crate.
fn uses_of(src: &Path, module: &str) -> BTreeSet<String> {
    let files = [src.join(format!("{module}.rs"))].into_iter().filter(|file| file.is_file());
    let files = files.chain(files_below(&src.join(module)));
    let mut uses: BTreeSet<String> =
        files.flat_map(|file| crate_names(&fs::read_to_string(file).unwrap())).collect();
    uses.remove(module);
    uses
}

/// The first names behind `crate::`, one by one or in braces.
fn crate_names(text: &str) -> BTreeSet<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        // `$crate` in a macro is what other crates will see, not an import.
        if code[..start].ends_with('$') {
            continue;
        }
        let rest = &code[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(listed(list)),
            None => names.extend(leading_name(rest)),
        }
    }
    names
}

/// The names at the first level of a brace list, whose opening brace is taken off already.
fn listed(list: &str) -> BTreeSet<String> {
    let (mut names, mut depth, mut expected) = (BTreeSet::new(), 0, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            letter if expected && letter.is_alphabetic() => {
                names.extend(leading_name(&list[at..]));
                expected = false;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> Option<String> {
    let name: String =
        text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!name.is_empty()).then_some(name)
}

fn violations(groups: &[Vec<String>], uses: &Uses) -> Vec<String> {
    let group_of =
        |module: &str| groups.iter().position(|group| group.iter().any(|name| name == module));
    let mut violations = Vec::new();
    for (module, used) in uses {
        for other in used {
            match group_of(other) {
                None => violations
                    .push(format!("`{module}` uses `crate::{other}`; import it from its module")),
                Some(group) if Some(group) > group_of(module) => {
                    violations.push(format!(
                        "`{module}` uses `{other}`, which is not in a lower group or its own"
                    ));
                }
                Some(_) if reaches(uses, other, module) => {
                    violations
                        .push(format!("`{module}` uses `{other}`, which uses `{module}` in turn"));
                }
                Some(_) => {}
            }
        }
    }
    violations
}

/// Says whether `from` uses `to`, at first or further hand.
fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    let (mut todo, mut seen) = (vec![from], BTreeSet::new());
    while let Some(module) = todo.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            todo.extend(uses.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

#[test]
fn every_file_is_a_module() {
    let tests = repository().join("tests");
    let mut todo = vec![repository().join("src/lib.rs")];
    for entry in entries(&tests) {
        todo.extend([entry.join("main.rs"), entry].into_iter().filter(|root| root.is_file()));
    }
    let mut named = BTreeSet::new();
    while let Some(file) = todo.pop() {
        let modules = modules(&file, &fs::read_to_string(&file).unwrap());
        todo.extend(modules.into_iter().map(|module| module.file));
        named.insert(file);
    }
    // Each of these is a program of its own, which must not compile.
    named.extend(files_below(&tests.join("compile_fail")));
    let files = files_below(&repository().join("src")).into_iter().chain(files_below(&tests));
    let forgotten: Vec<_> = files
        .filter(|file| !named.contains(file))
        .map(|file| format!("`{}` is never compiled: no `mod` line names it", shown(&file)))
        .collect();
    assert!(forgotten.is_empty(), "{}", forgotten.join("\n"));
}

#[test]
fn no_file_is_long_and_the_core_is_small() {
    let (mut problems, mut core) = (Vec::new(), 0);
    let mut todo = vec![repository().join("src/lib.rs")];
    while let Some(file) = todo.pop() {
        let text = fs::read_to_string(&file).unwrap();
        let modules = modules(&file, &text).into_iter();
        todo.extend(modules.filter(|module| !module.is_test).map(|module| module.file));
        let (lines, file) = (code_lines(&text), shown(&file));
        if lines > MOST_LINES_OF_A_FILE {
            problems.push(format!(
                "`{file}` has {lines} lines of code, more than {MOST_LINES_OF_A_FILE}"
            ));
        }
        let others = ["src/store/", "src/testing/", "src/import/", "src/guide"];
        if !others.iter().any(|other| file.starts_with(other)) {
            core += lines;
        }
    }
    if core > MOST_LINES_OF_THE_CORE {
        problems.push(format!(
            "`src` without `store`, `import` and `testing` has {core} lines of code, more than {MOST_LINES_OF_THE_CORE}"
        ));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a path as seen from the repository.
fn shown(file: &Path) -> String {
    file.strip_prefix(repository()).unwrap().display().to_string()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) =
        entries(folder).into_iter().partition(|path| path.is_dir());
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|rs| rs == "rs"));
    files.chain(folders.iter().flat_map(|folder| files_below(folder))).collect()
}

/// A file that a `mod` line names.
#[derive(Debug, PartialEq)]
struct Module {
    file: PathBuf,
    is_test: bool,
}

/// Returns the files that the `mod` lines of a file name.
fn modules(file: &Path, text: &str) -> Vec<Module> {
    let folder = file.parent().unwrap();
    let stem = file.file_stem().unwrap();
    let is_root = folder == repository().join("tests")
        || ["lib", "main", "mod"].contains(&stem.to_str().unwrap());
    let children = if is_root { folder.to_owned() } else { folder.join(stem) };
    let (mut modules, mut path, mut is_test) = (Vec::new(), None, false);
    for line in text.lines() {
        if let Some(attribute) = line.strip_prefix("#[") {
            is_test |= attribute == "cfg(test)]";
            let quoted =
                attribute.strip_prefix("path = \"").and_then(|rest| rest.strip_suffix("\"]"));
            path = path.or(quoted);
            continue;
        }
        if let Some(name) = module_name(line) {
            let file = match path {
                Some(path) => joined(folder, path),
                None => [format!("{name}.rs"), format!("{name}/mod.rs")]
                    .map(|file| children.join(file))
                    .into_iter()
                    .find(|file| file.is_file())
                    .unwrap_or_else(|| panic!("no file for `{line}` in `{}`", shown(file))),
            };
            modules.push(Module { file, is_test });
        }
        (path, is_test) = (None, false);
    }
    modules
}

/// Follows a path such as `../common/world.rs`.
fn joined(folder: &Path, path: &str) -> PathBuf {
    path.split('/').fold(folder.to_owned(), |folder, part| match part {
        ".." => folder.parent().unwrap().to_owned(),
        part => folder.join(part),
    })
}

/// Returns the name in a line such as `pub(crate) mod name;`.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// Counts lines, without blank ones, comments, documentation and unit tests.
fn code_lines(text: &str) -> usize {
    let is_doc = |line: &str| line.starts_with("//") || line.starts_with("#[doc(");
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.next().is_some_and(|next| next.ends_with('{')) {
            lines.find(|line| *line == "}");
        } else if !line.trim().is_empty() && !is_doc(line.trim_start()) {
            count += 1;
        }
    }
    count
}

#[test]
fn a_module_is_where_its_line_says() {
    let named = |file: &str, text: &str| {
        let modules = modules(&repository().join(file), text).into_iter();
        modules.map(|module| (shown(&module.file), module.is_test)).collect::<Vec<_>>()
    };
    let text =
        "// mod no;\nuse std::x;\nmod seal;\npub(crate) mod store;\nmod inner {\n    mod no;\n}\n";
    let wanted = [("src/seal.rs".to_owned(), false), ("src/store/mod.rs".to_owned(), false)];
    assert_eq!(named("src/lib.rs", text), wanted);
    let wanted = [("src/seal/tests.rs".to_owned(), true)];
    assert_eq!(named("src/seal.rs", "#[cfg(test)]\nmod tests;\n"), wanted);
    let wanted = [("tests/common/world.rs".to_owned(), false)];
    let text = "#[path = \"../common/world.rs\"]\nmod world;\n";
    assert_eq!(named("tests/api/main.rs", text), wanted);
}

#[test]
fn blank_lines_documentation_and_unit_tests_are_no_code() {
    let text = "//! Docs.\n\nuse x::y;\n\n/// Docs.\n#[doc(alias = \"g\")]\nfn f() {\n    // Why.\n    g();\n}\n";
    assert_eq!(code_lines(text), 4);
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\n";
    assert_eq!(code_lines(&format!("{text}\n{tests}fn h() {{}}\n")), 5);
}

#[test]
fn uses_of_a_higher_group_and_circles_are_found() {
    let groups = groups_of(
        "// lowest\n\nmod clock;\nmod seal;\n\nmod manager;\n\npub mod testing;\n\npub use x;\n",
    );
    assert_eq!(groups, [vec!["clock", "seal"], vec!["manager"], vec!["testing"]]);
    let text =
        "use crate::{\n    a::{self, b},\n    c::d,\n};\n// crate::comment\nlet x = crate::e::f();";
    assert_eq!(Vec::from_iter(crate_names(text)), ["a", "c", "e"]);
    for (module, other, expected) in [
        ("seal", "clock", None),
        ("manager", "clock", None),
        (
            "seal",
            "manager",
            Some("`seal` uses `manager`, which is not in a lower group or its own"),
        ),
        ("seal", "Session", Some("`seal` uses `crate::Session`; import it from its module")),
        ("clock", "seal", Some("`clock` uses `seal`, which uses `clock` in turn")),
    ] {
        let mut uses = Uses::from([("seal".to_owned(), BTreeSet::from(["clock".to_owned()]))]);
        uses.entry(module.to_owned()).or_default().insert(other.to_owned());
        let found = violations(&groups, &uses);
        assert_eq!(found.first().map(String::as_str), expected);
    }
}
