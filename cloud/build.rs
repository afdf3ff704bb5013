//! Turns the API catalogue into Rust: the `Op` enum, one static description per operation, and a type for the
//! request of each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

const CATALOGUE: &str = "catalogue/smartag-2018-03-13.json";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={CATALOGUE}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = std::fs::read_to_string(CATALOGUE)?;
    let doc: Value = serde_json::from_str(&text)?;
    let ops = doc["operations"].as_array().ok_or("operations")?;
    let mut out = String::new();

    writeln!(out, "/// The operations of the catalogue.")?;
    writeln!(out, "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum Op {{")?;
    for op in ops {
        writeln!(out, "    {},", str_of(&op["name"]))?;
    }
    writeln!(out, "}}\n\nimpl Op {{")?;
    writeln!(out, "    pub const ALL: &'static [Op] = &[")?;
    for op in ops {
        writeln!(out, "        Op::{},", str_of(&op["name"]))?;
    }
    writeln!(out, "    ];\n}}\n\npub(crate) static SPECS: &[OpSpec] = &[")?;
    for op in ops {
        operation(&mut out, op)?;
    }
    writeln!(out, "];")?;
    let dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(dir.join("operations.rs"), out)?;
    let mut out = String::new();
    for op in ops {
        request(&mut out, op)?;
    }
    std::fs::write(dir.join("requests.rs"), out)?;
    Ok(())
}

fn str_of(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

fn list_of(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn operation(out: &mut String, op: &Value) -> std::fmt::Result {
    writeln!(out, "    OpSpec {{\n        name: {:?},\n        params: &[", str_of(&op["name"]))?;
    for p in list_of(&op["request"]) {
        parameter(out, p)?;
    }
    writeln!(out, "        ],\n        errors: &[")?;
    for e in list_of(&op["errors"]) {
        let status = e["http"].as_u64().unwrap_or(400);
        writeln!(
            out,
            "            ErrorSpec {{ status: {status}, code: {:?}, message: {:?} }},",
            str_of(&e["code"]),
            str_of(&e["message"])
        )?;
    }
    let mut root = Tree::default();
    for f in list_of(&op["response_fields"]) {
        root.add(str_of(&f["path"]), str_of(&f["type"]));
    }
    write!(out, "        ],\n        response: ")?;
    let node = root.node(&[&op["response"]]);
    writeln!(out, "{node},\n    }},")
}

fn parameter(out: &mut String, p: &Value) -> std::fmt::Result {
    let kind = match str_of(&p["type"]) {
        "Integer" | "Long" => "Int",
        "Boolean" => "Bool",
        _ => "Text",
    };
    let range = pair(&p["range"]);
    let length = pair(&p["length"]);
    let also = p["also"].as_i64();
    let default = p["default"].as_str();
    let choices: Vec<&str> = list_of(&p["enum"]).iter().map(str_of).collect();
    let pattern = match str_of(&p["pattern"]) {
        "alphanumeric" => "Alphanumeric",
        "cidr" => "Cidr",
        "enterprise-code" => "EnterpriseCode",
        "ipv4" => "Ipv4",
        "label" => "Label",
        "month" => "Month",
        "name" => "Name",
        "password" => "Password",
        "port-range" => "PortRange",
        "text" => "Text",
        "time" => "Time",
        "word" => "Word",
        _ => "Any",
    };
    let when = match p["when"].as_array() {
        Some(w) => {
            let values: Vec<&str> = list_of(&w[1]).iter().map(str_of).collect();
            format!("Some(({:?}, &{values:?}))", str_of(&w[0]))
        }
        None => "None".to_owned(),
    };
    writeln!(
        out,
        "            ParamSpec {{ name: {:?}, kind: Kind::{kind}, list: {}, required: {}, \
         required_when: {when}, range: {range:?}, also: {also:?}, length: {length:?}, \
         choices: &{choices:?}, default: {default:?}, pattern: Pattern::{pattern}, \
         max_items: {:?}, no_url: {} }},",
        str_of(&p["name"]),
        p["list"].as_bool().unwrap_or(false),
        p["required"].as_bool().unwrap_or(false),
        p["items"].as_u64(),
        p["no_url"].as_bool().unwrap_or(false),
    )
}

/// The parameters of an operation as a struct: lists as vectors, what may be left out as options.
fn request(out: &mut String, op: &Value) -> std::fmt::Result {
    let name = str_of(&op["name"]);
    let (mut fields, mut read) = (String::new(), String::new());
    for p in list_of(&op["request"]) {
        let param = str_of(&p["name"]);
        // Parts of a structured list (`Tag.N.Key`) are read by name.
        if param.contains('.') {
            continue;
        }
        let (kind, how) = match str_of(&p["type"]) {
            "Integer" | "Long" => ("i64", "int"),
            "Boolean" => ("bool", "flag"),
            _ => ("String", "text"),
        };
        let field = snake(param);
        let always = p["required"].as_bool() == Some(true) || filled_in(name, p);
        let (kind, how) = match (p["list"].as_bool(), always) {
            (Some(true), _) => ("Vec<String>".to_owned(), "params.texts".to_owned()),
            (_, true) => (kind.to_owned(), format!("params.{how}")),
            (_, false) => (format!("Option<{kind}>"), format!("params.opt_{how}")),
        };
        writeln!(fields, "    pub {field}: {kind},")?;
        writeln!(read, "            {field}: {how}({param:?}),")?;
    }
    writeln!(
        out,
        "/// The parameters of `{name}`.\n#[derive(Clone, Debug, PartialEq)]\npub struct {name} {{\n{fields}}}\n\n\
         impl Request for {name} {{\n    const OP: Op = Op::{name};\n\n\
         fn read(params: &Params) -> Self {{\n        Self {{\n{read}        }}\n    }}\n}}\n"
    )
}

/// Whether validation puts the documented default in the place of a parameter that is left out.
fn filled_in(op: &str, p: &Value) -> bool {
    let Some(default) = p["default"].as_str() else { return false };
    let changes = op.starts_with("Modify") || op.starts_with("Update");
    !changes
        && match str_of(&p["type"]) {
            "Integer" | "Long" => default.parse::<i64>().is_ok(),
            "Boolean" => false,
            _ => list_of(&p["enum"]).iter().any(|c| c == default),
        }
}

/// `SmartAGId` as `smart_ag_id`.
fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|b| chars.get(b));
        let small = |c: Option<&char>| c.is_some_and(|c| !c.is_uppercase());
        if c.is_uppercase()
            && before.is_some()
            && (small(before) || chars.get(i + 1).is_some_and(|n| n.is_lowercase()))
        {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    if ["type", "mod", "ref"].contains(&out.as_str()) {
        out.insert_str(0, "r#");
    }
    out
}

fn pair(v: &Value) -> Option<(i64, i64)> {
    let a = v.as_array()?;
    Some((a.first()?.as_i64()?, a.get(1)?.as_i64()?))
}

/// The response as a tree; a path segment ending in `[]` stands for the items of a list.
#[derive(Default)]
struct Tree {
    kind: String,
    fields: BTreeMap<String, Tree>,
}

impl Tree {
    fn add(&mut self, path: &str, kind: &str) {
        let mut at = self;
        for seg in path.split('.') {
            at = at.fields.entry(seg.trim_end_matches("[]").to_owned()).or_default();
        }
        at.kind = kind.to_owned();
    }

    /// `examples` are the values that the printed example shows in this place.
    fn node(&self, examples: &[&Value]) -> String {
        match self.kind.as_str() {
            "Array<Object>" => {
                let items: Vec<&Value> = examples.iter().flat_map(|e| list_of(e)).collect();
                format!("Node::List(&{})", self.object(&items))
            }
            "Array<String>" => "Node::List(&Node::Text)".to_owned(),
            "Integer" | "Long" => "Node::Int".to_owned(),
            "Boolean" => "Node::Bool".to_owned(),
            "String" => "Node::Text".to_owned(),
            _ => self.object(examples),
        }
    }

    fn object(&self, examples: &[&Value]) -> String {
        let mut out = String::from("Node::Object(&[");
        for (name, child) in &self.fields {
            let wrapper = self.fields.len() == 1 && child.kind.starts_with("Array");
            let bare = examples.iter().filter(|e| e.is_array()).count();
            let seen: Vec<&Value> = if wrapper && bare > 0 {
                examples.iter().copied().filter(|e| e.is_array()).collect()
            } else {
                examples.iter().filter_map(|e| e.get(name)).collect()
            };
            let always = !examples.is_empty() && seen.len() == examples.len();
            let node = child.node(&seen);
            let _ = write!(out, "Field {{ name: {name:?}, always: {always}, node: {node} }}, ");
        }
        out.push_str("])");
        out
    }
}
