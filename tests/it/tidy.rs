//! Tests of the tree itself: the import table, the shape of files, what may be named where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Files that may be longer, each with the reason.
const LONG_FILES: [(&str, &str); 0] = [];
const CODE_LINES_MAX: usize = 500;
const LIB_LINES_MAX: usize = 150;
const ARCHITECTURE_LINES_MAX: usize = 250;

/// Folders that must give the same answer whenever and wherever they run, and words that would break it.
const PURE_FOLDERS: [&str; 3] = ["event", "projection", "domain"];
const IMPURE_WORDS: [&str; 9] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "rand::",
    "tokio::spawn",
    "tokio::time",
];

/// What decides which bytes are on disk. `docs/format.lock` holds a hash of each.
const FORMAT_SOURCES: [&str; 16] = [
    "proto/lakelog/v1/kv.proto",
    "proto/lakelog/v1/store.proto",
    "proto/lakelog/v1/transaction.proto",
    "src/backends/postgres/key.rs",
    "src/backends/postgres/migrations/0001_bases.sql",
    "src/backends/sled/block.rs",
    "src/backends/sled/filter.rs",
    "src/backends/sled/index.rs",
    "src/backends/sled/record.rs",
    "src/dump/format.rs",
    "src/log/archive.rs",
    "src/log/format.rs",
    "src/log/manifest.rs",
    "src/projection/index.rs",
    "src/projection/project.rs",
    "src/types/key.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct SourceFile {
    /// Relative to the root.
    path: String,
    text: String,
}

impl SourceFile {
    /// The folder of `src` that the file belongs to; `None` for `lib.rs` and `main.rs`.
    fn folder(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split_once('/').map(|(folder, _)| folder)
    }

    fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// Whether it is under `tests`, or a module that its parent compiles for tests only.
    fn is_test(&self) -> bool {
        let path = root().join(&self.path);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        let parents = [folder.join("mod.rs"), folder.with_extension("rs")];
        let parent = parents.iter().find_map(|parent| fs::read_to_string(parent).ok()).unwrap_or_default();
        self.path.contains("/tests/")
            || self.path.starts_with("tests/")
            || parent.contains(&format!("#[cfg(test)]\nmod {name};"))
            || parents.iter().any(|parent| *parent != path && is_test_module(parent))
    }

    /// Lines that are neither empty nor only a comment, up to the inline test module.
    fn code_lines(&self) -> usize {
        let code = self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
    }
}

/// The same of a file that may not be there.
fn is_test_module(path: &Path) -> bool {
    let relative = path.strip_prefix(root()).ok().and_then(Path::to_str);
    let Some(path) = relative.filter(|_| path.is_file()) else { return false };
    path != "src/lib.rs" && SourceFile { path: path.to_owned(), text: String::new() }.is_test()
}

fn sources(under: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile { path: relative, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "no sources under {under}");
    files
}

/// The text without comments and without the content of string literals, so that words in either do not count.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            rest.find("\"'").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_end(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        rest = &rest[skipped..];
    }
    code
}

/// The length of the string literal that `text` begins with, quotes included.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The first names after each `crate::`, also within `crate::{a, b::c}`.
fn root_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend([identifier(rest)]),
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The head of each member of a `{...}` group whose opening brace is already gone.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

/// The import table of ARCHITECTURE.md.
fn import_table(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut lines = architecture.lines().skip_while(|line| *line != "| folder | may import |").skip(2);
    let mut table = BTreeMap::new();
    while let Some(row) = lines.next().and_then(|line| line.strip_prefix('|')?.strip_suffix('|')) {
        let (folder, imports) = row.split_once('|').unwrap();
        let imports = imports.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        table.insert(folder.trim().to_owned(), imports.collect());
    }
    table
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// What is wrong with the imports of one file. Tests may reach for any folder, but say so as plainly.
fn import_faults(file: &SourceFile, table: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let Some(folder) = file.folder() else { return Vec::new() };
    let code = code_of(&file.text);
    let mut faults = Vec::new();
    if code.contains("super::super") {
        faults.push(format!("{}: super::super hides an arrow", file.path));
    }
    let Some(allowed) = table.get(folder) else {
        return vec![format!("{}: the folder is not in the import table", file.path)];
    };
    let mut names = root_names(&code);
    // In a folder's own mod.rs `super` is the crate's root.
    if file.path == format!("src/{folder}/mod.rs") {
        names.extend(table.keys().filter(|other| code.contains(&format!("super::{other}"))).cloned());
    }
    for name in names {
        if !table.contains_key(&name) {
            faults.push(format!("{}: crate::{name} is imported from the root, not from its folder", file.path));
        } else if name != folder && !allowed.contains(&name) && !file.is_test() {
            faults.push(format!("{}: {folder} may not import {name}", file.path));
        }
    }
    faults
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_test_file_is_a_module() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    let modules: BTreeSet<String> = main
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name != "main" && (path.is_dir() || path.extension().is_some_and(|extension| extension == "rs")) {
            files.insert(name);
        }
    }
    assert_eq!(files, modules, "tests/it/main.rs lists other modules than there are files");
}

#[test]
fn imports_follow_the_table() {
    let table = import_table(&architecture());
    assert!(table.len() > 10, "the import table was not found: {table:?}");
    none(sources("src").iter().flat_map(|file| import_faults(file, &table)).collect());
}

#[test]
fn forbidden_imports_are_found() {
    let table = import_table("| folder | may import |\n|---|---|\n| a | |\n| b | a |\n");
    let check = |path: &str, text: &str, faults: usize| {
        let file = SourceFile { path: path.into(), text: text.into() };
        let found = import_faults(&file, &table);
        assert_eq!(found.len(), faults, "{path}: {text}: {found:?}");
    };
    check("src/b/x.rs", "use crate::a::T;", 0);
    check("src/b/x.rs", "use crate::b::T;", 0);
    check("src/a/x.rs", "use crate::b::T;", 1);
    check("src/a/x.rs", "fn f() -> crate::b::T", 1);
    check("src/a/x.rs", "use crate::{a::{T, U}, b::{V, W}};", 1);
    check("src/a/x.rs", "use crate::{\n    a,\n    b::X,\n};", 1);
    check("src/b/x.rs", "use crate::T;", 1);
    check("src/b/x.rs", "use crate::{T, a::U};", 1);
    check("src/b/x.rs", "use super::super::a;", 1);
    check("src/a/mod.rs", "use super::b::T;", 1);
    check("src/c/x.rs", "", 1);
    check("src/a/x.rs", "// crate::b\n/* crate::b */ let s = \"crate::b \\\" crate::b\"; /// [`crate::b`]", 0);
    check("src/a/x.rs", "let c = '\"'; use crate::b::T; let d = '\"';", 1);
    check("src/lib.rs", "pub use crate::b;", 0);
}

#[test]
fn the_map_names_folders_that_exist() {
    let text = architecture();
    assert!(
        text.lines().count() < ARCHITECTURE_LINES_MAX,
        "ARCHITECTURE.md is longer than {ARCHITECTURE_LINES_MAX} lines"
    );
    let is_folder = |name: &str| root().join(name).is_dir();
    let mut faults: Vec<String> =
        import_table(&text).into_keys().filter(|name| !is_folder(&format!("src/{name}"))).collect();
    for (at, _) in text.match_indices("`src/") {
        let name = text[at + 1..].split('`').next().unwrap();
        if !root().join(name).exists() {
            faults.push(name.to_owned());
        }
    }
    none(faults);
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!path.is_dir() || text.contains(&format!("**`src/{name}`**")), "src/{name} is not on the code map");
    }
}

#[test]
fn files_have_one_role() {
    let mut faults = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")).filter(|file| !file.is_generated()) {
        if !file.text.starts_with("//!") {
            faults.push(format!("{}: does not open with //!", file.path));
        }
        let lines = file.code_lines();
        let excepted = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        if !file.is_test() && lines > CODE_LINES_MAX && !excepted {
            faults.push(format!("{}: {lines} lines of code, at most {CODE_LINES_MAX}", file.path));
        }
    }
    none(faults);
    for (path, reason) in LONG_FILES {
        assert!(root().join(path).is_file() && !reason.is_empty(), "exception for {path} is stale");
    }
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.lines().count() < LIB_LINES_MAX, "src/lib.rs is longer than {LIB_LINES_MAX} lines");
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut faults = Vec::new();
    let mut sled_files = Vec::new();
    for file in sources("src") {
        let code = code_of(&file.text);
        if code.contains("generated::") && file.folder() != Some("event") {
            faults.push(format!("{}: the generated messages belong to src/event", file.path));
        }
        if code.contains("std::fs") && !file.is_test() && !matches!(file.folder(), Some("env" | "cli")) {
            faults.push(format!("{}: files are reached through src/env", file.path));
        }
        if PURE_FOLDERS.contains(&file.folder().unwrap_or_default()) && !file.is_test() {
            let production = code.split("\n#[cfg(test)]").next().unwrap_or_default();
            faults.extend(
                IMPURE_WORDS
                    .iter()
                    .filter(|word| production.contains(*word))
                    .map(|word| format!("{}: {word} in a folder that must be pure", file.path)),
            );
        }
        // Our own folder has the crate's name: paths through it, and the line that opens it, are not the crate.
        // The bench measures a bare sled beside the base.
        let excepted = ["src/backends/mod.rs", "src/cli/bench/base.rs"];
        if code.replace("backends::sled::", "").contains("sled::") && !excepted.contains(&&file.path[..]) {
            sled_files.push(file.path);
        }
    }
    none(faults);
    assert!(sled_files.len() <= 1, "more than one file names sled: {sled_files:?}");
}

/// A hash of what counts in a source: no comments, no blanks at the ends of lines, no inline tests.
fn format_hash(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut hash = Sha256::new();
    for line in code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        hash.update(line);
        hash.update("\n");
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_change_of_the_format_is_written_down() {
    let lock = root().join("docs/format.lock");
    let line = |path: &str| format!("{}  {path}\n", format_hash(&fs::read_to_string(root().join(path)).unwrap()));
    let now: String = FORMAT_SOURCES.into_iter().map(line).collect();
    if std::env::var_os("LAKELOG_REGENERATE").is_some_and(|value| value == "1") {
        fs::write(&lock, &now).unwrap();
    }
    let then = fs::read_to_string(&lock).unwrap();
    let changed: Vec<&str> = now.lines().filter(|line| !then.contains(line)).collect();
    assert!(
        now == then,
        "sources of the format changed: {changed:#?}\nlet docs/format.md say so (history included) where bytes on disk changed, then run this test with LAKELOG_REGENERATE=1"
    );
}

#[test]
fn only_what_counts_is_in_a_format_hash() {
    let hash = |text| format_hash(text);
    let plain = hash("const A: u8 = 1;\n");
    assert_eq!(hash("//! Doc.\n\n  const A: u8 = 1;  \n// why\n\n#[cfg(test)]\nmod tests {\n}\n"), plain);
    assert_ne!(hash("const A: u8 = 2;\n"), plain);
    assert_ne!(hash("const MAGIC: [u8; 1] = *b\"x\";"), hash("const MAGIC: [u8; 1] = *b\"y\";"));
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not accuse itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["for ", "now"], ["todo", "!("], ["unimple", "mented!("]];
    let mut faults = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        for word in words.iter().map(|parts| parts.concat()) {
            if file.text.contains(&word) {
                faults.push(format!("{}: {word}", file.path));
            }
        }
    }
    none(faults);
}

/// The numbers in the name of a fault test: `fault_05_18_what_happens` has two.
fn fault_numbers(name: &str) -> Vec<String> {
    let Some(rest) = name.strip_prefix("fault_") else { return Vec::new() };
    let number = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    rest.split('_').take_while(number).map(str::to_owned).collect()
}

/// The names of all functions marked as tests.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        for (at, _) in file.text.match_indices("#[test]").chain(file.text.match_indices("#[tokio::test")) {
            let after = file.text[at..].split_once("fn ").map_or("", |(_, after)| after);
            names.insert(identifier(after));
        }
    }
    names
}

#[test]
fn every_fault_has_a_test() {
    let table = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |").map(|(number, _)| number));
    let listed: BTreeSet<String> =
        rows.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned).collect();
    assert!(listed.len() > 30, "the table was not found: {listed:?}");
    let tested: BTreeSet<String> = test_names().iter().flat_map(|name| fault_numbers(name)).collect();
    assert_eq!(
        listed.difference(&tested).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "listed, and no test is named so"
    );
    assert_eq!(tested.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "tested, and not listed");
}

/// `scripts/mutants` takes these branches away and shows which tests fail; here only that each is still there to be taken away.
#[test]
fn fault_35_every_mutant_is_of_the_present_source() {
    let mut names = BTreeSet::new();
    for path in ["recovery", "writing", "conflicts"].map(|name| root().join(format!("tests/mutants/{name}.txt"))) {
        let text = format!("\n{}", fs::read_to_string(path).unwrap());
        for block in text.split("\n== ").skip(1) {
            let (name, fields) = block.split_once('\n').unwrap();
            let field = |of: &str| {
                let line = fields.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(": "));
                line.map(|line| line.replace("\\n", "\n"))
            };
            let is = field("is").unwrap();
            let outer = field("in").unwrap_or(is.clone());
            let source = fs::read_to_string(root().join(field("file").unwrap())).unwrap();
            assert_eq!((source.matches(&outer).count(), outer.matches(&is).count()), (1, 1), "{name}");
            assert!(field("becomes").is_some_and(|becomes| becomes != is), "{name}");
            assert!(names.insert(name.to_owned()), "{name} is there twice");
        }
    }
    assert!(names.len() > 50, "{}", names.len());
}

#[test]
fn scripts_are_executable() {
    use std::os::unix::fs::PermissionsExt;
    let scripts = fs::read_dir(root().join("scripts")).unwrap().map(|script| script.unwrap().path());
    let scripts: Vec<_> = scripts.chain([root().join(".ci/run")]).collect();
    assert!(scripts.len() > 8, "{scripts:?}");
    for script in scripts {
        let mode = fs::metadata(&script).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} is not executable", script.display());
    }
}
