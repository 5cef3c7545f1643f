//! Modules use only what stands above them in `src/lib.rs`, and nobody in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module of the crate root and the modules of the crate root it names.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_use_only_lower_groups_and_no_circles() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
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
    let mut uses = BTreeSet::new();
    let mut todo = vec![src.join(format!("{module}.rs")), src.join(module)];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && let Ok(text) = fs::read_to_string(&path)
        {
            uses.extend(crate_names(&text));
        }
    }
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
fn the_check_finds_what_it_is_for() {
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
