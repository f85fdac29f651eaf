//! The dependencies between the folders of `src/`, and that the files of `src/web/` do not name each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder, and what it may name beside itself and the core: other folders, `rocket` and `rdkafka`. `event` is the
/// part of the core that nearly all folders name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("app", &["*"]),
    ("base_path", &[]),
    ("bounds", &[]),
    ("colours", &[]),
    ("commands", &["*"]),
    ("config", &["base_path", "bounds", "event", "hosts", "origins", "rocket"]),
    ("demo", &["event", "ingest"]),
    ("ephemeral", &["bounds", "ingest", "kafka", "rejects"]),
    ("feed", &["bounds", "event"]),
    ("follow", &["event", "feed", "hot_keys", "ingest", "kafka", "stats"]),
    ("hosts", &[]),
    ("hot_keys", &["bounds", "event"]),
    ("ingest", &["bounds", "config", "event", "kafka", "limits"]),
    ("kafka", &["bounds", "config", "event", "rdkafka"]),
    ("lib", &["*"]),
    ("lifecycle", &["bounds", "ingest", "kafka", "rocket", "server", "web"]),
    ("limits", &["bounds"]),
    ("main", &["*"]),
    ("origins", &["hosts"]),
    ("recent", &["event", "feed", "stats"]),
    ("rejects", &[]),
    ("search", &["bounds", "event", "feed", "kafka", "limits"]),
    ("server", &["base_path", "bounds", "rocket"]),
    ("stats", &["colours", "event", "kafka"]),
    ("stream", &["bounds", "config", "event", "feed", "kafka", "limits", "rejects"]),
    ("telemetry", &["config", "feed", "ingest", "kafka", "rejects", "rocket", "server"]),
    (
        "web",
        &[
            "base_path",
            "bounds",
            "colours",
            "event",
            "ephemeral",
            "feed",
            "hosts",
            "hot_keys",
            "ingest",
            "kafka",
            "limits",
            "origins",
            "recent",
            "rejects",
            "rocket",
            "search",
            "server",
            "stats",
            "stream",
            "telemetry",
        ],
    ),
];

/// Returns the sources below a folder without their unit tests, by relative path.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") && !is_test(&entry) {
                let text = fs::read_to_string(&entry).expect("text");
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let name = entry.strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    found
}

/// Whether a file has only unit tests.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("model.rs") || path.iter().any(|folder| folder == "tests")
}

/// Returns what follows each mention of a path prefix, such as `crate::`: one path, or all those in braces, each up to
/// its own braces.
fn mentions(code: &str, beginning: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(beginning) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue; // the end of a longer path
        }
        let rest = &code[at + beginning.len()..];
        let path = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect()
        };
        match rest.strip_prefix('{') {
            None => names.extend([path(rest)]),
            Some(group) => {
                let mut depth = 0;
                let outer = group.chars().take_while(|c| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth >= 0
                });
                let mut inner = 0;
                let flat: String = outer
                    .filter(|c| {
                        inner += i32::from(*c == '{') - i32::from(*c == '}');
                        inner == 0 && *c != '}'
                    })
                    .collect();
                names.extend(flat.split(',').map(path));
            }
        }
    }
    names
}

#[test]
fn every_folder_names_only_the_folders_that_it_may_name() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    for (path, code) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let first = path.iter().next().expect("a name").to_str().expect("UTF-8");
        let folder = first.trim_end_matches(".rs");
        let allowed = allowed.get(folder).unwrap_or_else(|| panic!("src/{folder} is not in MAY_NAME"));
        let mut named: BTreeSet<String> = mentions(&code, "crate::").into_iter().map(first_name).collect();
        let libraries = ["rocket", "rdkafka"];
        named.extend(
            libraries.iter().filter(|it| !mentions(&code, &format!("{it}::")).is_empty()).map(|it| it.to_string()),
        );
        for name in named.iter().filter(|name| *name != folder && !name.is_empty()) {
            let is_item = name.starts_with(char::is_uppercase);
            assert!(
                is_item || allowed.contains(&"*") || allowed.contains(&name.as_str()),
                "{} names {name}",
                path.display()
            );
        }
    }
}

fn first_name(path: String) -> String {
    path.split("::").next().unwrap_or_default().to_owned()
}

#[test]
fn no_files_of_web_name_each_other_in_a_circle() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web"));
    // `pages/mod.rs` is the module `pages`, and `pages/live.rs` is `pages::live`.
    let module = |path: &Path| -> Vec<String> {
        let names = path.with_extension("");
        names.iter().map(|name| name.to_str().expect("UTF-8").to_owned()).filter(|name| name != "mod").collect()
    };
    let modules: BTreeSet<Vec<String>> = sources.keys().map(|path| module(path)).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (path, code) in &sources {
        let this = module(path);
        if this.is_empty() {
            edges.insert(this, modules.clone().into_iter().filter(|it| !it.is_empty()).collect()); // it mounts them all
            continue;
        }
        let from_web = mentions(code, "crate::web::").into_iter().map(|name| (Vec::new(), name));
        let parent = this[..this.len() - 1].to_vec();
        let from_parent = mentions(code, "super::").into_iter().map(|name| (parent.clone(), name));
        let named = from_web.chain(from_parent).filter(|(_, name)| !name.is_empty()).map(|(mut place, name)| {
            place.extend(name.split("::").map(str::to_owned));
            while !modules.contains(&place) {
                place.pop(); // an item of a module
            }
            place
        });
        let named: BTreeSet<_> = named.filter(|other| *other != this).collect();
        edges.insert(this, named);
    }
    // Remove the modules that name no remaining module, until only circles are left.
    while let Some(free) = edges.iter().find(|(_, named)| named.iter().all(|other| !edges.contains_key(other))) {
        let free = free.0.clone();
        edges.remove(&free);
    }
    assert!(edges.is_empty(), "in a circle, or above one: {edges:#?}");
}
