//! Turns the API catalogue into Rust: the `Op` enum, one static description for each operation, and a type for the
//! request and for the answer of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

/// The operations of the vendor, and those that only this cloud has.
const CATALOGUES: [&str; 2] = ["catalogue/smartag-2018-03-13.json", "catalogue/extensions.json"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut ops = Vec::new();
    for catalogue in CATALOGUES {
        println!("cargo::rerun-if-changed={catalogue}");
        let doc: Value = serde_json::from_str(&std::fs::read_to_string(catalogue)?)?;
        ops.extend_from_slice(doc["operations"].as_array().ok_or("operations")?);
    }
    let ops = &ops;
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
    let mut out = String::new();
    for op in ops {
        response(&mut out, op)?;
    }
    std::fs::write(dir.join("responses.rs"), out)?;
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
    write!(out, "        ],\n        response: ")?;
    let node = Tree::of(op).form(&[&op["response"]]).node();
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
        "port" => "Port",
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
         max_items: {:?}, no_url: {}, as_sent: {} }},",
        str_of(&p["name"]),
        p["list"].as_bool().unwrap_or(false),
        p["required"].as_bool().unwrap_or(false),
        p["items"].as_u64(),
        p["no_url"].as_bool().unwrap_or(false),
        p["as_sent"].as_bool().unwrap_or(false),
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
            // What is sent without a value takes away what was there.
            (_, false) if p["clears"].as_bool() == Some(true) => {
                ("Option<String>".to_owned(), "params.opt_cleared".to_owned())
            }
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
    let chars: Vec<char> = name.replace("ACLs", "Acls").chars().collect();
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

/// The documented form of a value in a response.
enum Form {
    Text,
    Int,
    Bool,
    List(Box<Form>),
    Object(Vec<Member>),
}

struct Member {
    name: String,
    /// The printed example always shows it.
    always: bool,
    form: Form,
}

impl Tree {
    fn of(op: &Value) -> Tree {
        let mut root = Tree::default();
        for f in list_of(&op["response_fields"]) {
            root.add(str_of(&f["path"]), str_of(&f["type"]));
        }
        root
    }

    fn add(&mut self, path: &str, kind: &str) {
        let mut at = self;
        for seg in path.split('.') {
            at = at.fields.entry(seg.trim_end_matches("[]").to_owned()).or_default();
        }
        at.kind = kind.to_owned();
    }

    /// `examples` are the values that the printed example shows in this place.
    fn form(&self, examples: &[&Value]) -> Form {
        match self.kind.as_str() {
            "Array<Object>" => {
                let items: Vec<&Value> = examples.iter().flat_map(|e| list_of(e)).collect();
                Form::List(Box::new(Form::Object(self.members(&items))))
            }
            "Array<String>" => Form::List(Box::new(Form::Text)),
            "Integer" | "Long" => Form::Int,
            "Boolean" => Form::Bool,
            "String" => Form::Text,
            _ => Form::Object(self.members(examples)),
        }
    }

    fn members(&self, examples: &[&Value]) -> Vec<Member> {
        let mut out = Vec::new();
        for (name, child) in &self.fields {
            let wrapper = self.fields.len() == 1 && child.kind.starts_with("Array");
            let bare = examples.iter().filter(|e| e.is_array()).count();
            let seen: Vec<&Value> = if wrapper && bare > 0 {
                examples.iter().copied().filter(|e| e.is_array()).collect()
            } else {
                examples.iter().filter_map(|e| e.get(name)).collect()
            };
            let always = !examples.is_empty() && seen.len() == examples.len();
            out.push(Member { name: name.clone(), always, form: child.form(&seen) });
        }
        out
    }
}

impl Form {
    /// The form as a constant, for answers that are built as JSON values.
    fn node(&self) -> String {
        match self {
            Form::Text => "Node::Text".to_owned(),
            Form::Int => "Node::Int".to_owned(),
            Form::Bool => "Node::Bool".to_owned(),
            Form::List(item) => format!("Node::List(&{})", item.node()),
            Form::Object(members) => {
                let mut out = String::from("Node::Object(&[");
                for Member { name, always, form } in members {
                    let node = form.node();
                    let _ = write!(out, "Field {{ name: {name:?}, always: {always}, node: {node} }}, ");
                }
                out.push_str("])");
                out
            }
        }
    }

    /// The list inside an object that has nothing else (`{"Acls": {"Acl": [...]}}`), with its name.
    fn wrapped(&self) -> Option<(&str, &Form)> {
        match self {
            Form::Object(members) => match members.as_slice() {
                [Member { name, form: Form::List(item), .. }] => Some((name, item)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The answer of an operation as a struct, and a module with the structs inside of it.
fn response(out: &mut String, op: &Value) -> std::fmt::Result {
    let name = str_of(&op["name"]);
    let module = snake(name);
    let Form::Object(mut members) = Tree::of(op).form(&[&op["response"]]) else { return Ok(()) };
    // The identifier of the request is the server's to add.
    let small = members.iter().any(|m| m.name == "requestId");
    members.retain(|m| !m.name.eq_ignore_ascii_case("requestid"));
    let mut parts = Parts { path: format!("{module}::"), ..Parts::default() };
    let root = structure(name, &members, &mut parts);
    writeln!(
        out,
        "/// The answer of `{name}`.\n{root}\nimpl Response for {name} {{\n    const OP: Op = Op::{name};\n    \
         const SMALL_ID: bool = {small};\n}}\n"
    )?;
    if !parts.code.is_empty() {
        writeln!(
            out,
            "/// What the answer of `{name}` is made of.\npub mod {module} {{\n    use super::*;\n\n{}}}\n",
            parts.code
        )?;
    }
    Ok(())
}

/// The structs inside of an answer.
#[derive(Default)]
struct Parts {
    names: BTreeSet<String>,
    code: String,
    /// How the struct that is being written sees them.
    path: String,
}

impl Parts {
    /// Adds a struct; returns how the struct around it names it.
    fn add(&mut self, around: &str, name: &str, members: &[Member]) -> String {
        let mut own = name.to_owned();
        if !self.names.insert(own.clone()) {
            own = format!("{around}{name}");
            self.names.insert(own.clone());
        }
        let path = std::mem::take(&mut self.path);
        let code = structure(&own, members, self);
        self.path = path;
        self.code.push_str(&format!("/// `{own}`.\n{code}\n"));
        format!("{}{own}", self.path)
    }

    fn item(&mut self, around: &str, name: &str, form: &Form) -> String {
        match form {
            Form::Object(members) => self.add(around, name, members),
            _ => "String".to_owned(),
        }
    }
}

/// A struct with a field for each member, and how it is written as JSON.
fn structure(name: &str, members: &[Member], parts: &mut Parts) -> String {
    let (mut fields, mut write) = (String::new(), String::new());
    for m in members {
        let field = snake(&m.name);
        let list_of_objects = matches!(&m.form, Form::List(item) if matches!(**item, Form::Object(_)));
        let always = m.always || list_of_objects;
        let mut value = "v".to_owned();
        let kind = match (&m.form, m.form.wrapped()) {
            (Form::Text, _) => "String".to_owned(),
            (Form::Int, _) => "i64".to_owned(),
            (Form::Bool, _) => "bool".to_owned(),
            (Form::List(item), _) => format!("Vec<{}>", parts.item(name, &m.name, item)),
            (Form::Object(_), Some((inner, item))) => {
                value = format!("&Wrapped({inner:?}, v)");
                format!("Vec<{}>", parts.item(name, inner, item))
            }
            (Form::Object(inner), None) => parts.add(name, &m.name, inner),
        };
        let key = &m.name;
        let (kind, bind) = if always {
            (kind, format!("let v = &self.{field};\n        "))
        } else {
            (format!("Option<{kind}>"), format!("if let Some(v) = &self.{field} "))
        };
        let entry = format!("out.serialize_entry({key:?}, {value})?;");
        let entry = if always { entry } else { format!("{{\n            {entry}\n        }}") };
        let _ = writeln!(fields, "    /// `{key}`\n    pub {field}: {kind},");
        let _ = writeln!(write, "        {bind}{entry}");
    }
    let out = if members.is_empty() { "_" } else { "out" };
    format!(
        "#[derive(Default)]\npub struct {name} {{\n{fields}}}\n\nimpl Fields for {name} {{\n    \
         fn fields<M: SerializeMap>(&self, {out}: &mut M) -> Result<(), M::Error> {{\n{write}        Ok(())\n    }}\n}}\n\n\
         as_map!({name});\n"
    )
}
