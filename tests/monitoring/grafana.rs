//! The dashboard against Grafana's published types: its parts become literals of those types, and TypeScript's compiler judges them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const TYPES: &str = include_str!("dashboard.ts");

/// Where `scripts/install` put the compiler and the types.
fn installed() -> PathBuf {
    let folder = std::env::var_os("WATCHDOG_LAB_GRAFANA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/grafana"), PathBuf::from);
    let compiler = folder.join("node_modules/typescript/bin/tsc");
    assert!(compiler.exists(), "{} is missing: scripts/install grafana", compiler.display());
    folder
}

/// The type of a panel, by its kind.
fn type_of(panel: &Value) -> &'static str {
    match panel["type"].as_str() {
        Some("row") => "Row",
        Some("stat") => "Stat",
        Some("state-timeline") => "StateTimeline",
        Some("timeseries") => "TimeSeries",
        other => panic!("dashboard.ts names no type for panels of kind {other:?}"),
    }
}

/// One literal per part: in a union the compiler would let a field of one kind of panel stand in another.
fn literals(dashboard: &Value) -> String {
    let mut text = String::from(TYPES);
    let mut add = |name: String, kind: &str, value: &Value| {
        let value = serde_json::to_string_pretty(value).expect("it was JSON");
        text.push_str(&format!("export const {name}: {kind} = {value};\n"));
    };
    let mut head = dashboard.clone();
    for part in ["panels", "templating", "annotations"] {
        head.as_object_mut().expect("an object").remove(part).unwrap_or_else(|| panic!("no {part}"));
    }
    add("head".into(), "Head", &head);
    let list = |value: &Value| value.as_array().expect("a list").clone();
    for panel in list(&dashboard["panels"]) {
        add(format!("panel_{}", panel["id"]), type_of(&panel), &panel);
    }
    for (n, variable) in list(&dashboard["templating"]["list"]).iter().enumerate() {
        add(format!("variable_{n}"), "Variable", variable);
    }
    for (n, annotation) in list(&dashboard["annotations"]["list"]).iter().enumerate() {
        add(format!("annotation_{n}"), "Annotation", annotation);
    }
    text
}

/// What the compiler says of the dashboard; nothing where it is right.
fn judged(dashboard: &Value) -> String {
    // Beside the packages, where the compiler looks for them; under a name of its own, since tests run side by side.
    let folder = tempfile::tempdir_in(installed()).expect("target/ can be written to");
    std::fs::write(folder.path().join("literals.ts"), literals(dashboard)).expect("a file of ours");
    let ran = Command::new("node")
        .arg(installed().join("node_modules/typescript/bin/tsc"))
        .args(["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext", "literals.ts"])
        .current_dir(folder.path())
        .output()
        .expect("node: scripts/install grafana");
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert_eq!(ran.status.success(), said.is_empty(), "{said}");
    said
}

fn shipped() -> Value {
    serde_json::from_str(&crate::read("dashboard.json")).expect("JSON")
}

#[test]
fn the_dashboard_is_of_grafanas_types() {
    let said = judged(&shipped());
    assert!(said.is_empty(), "{said}");
}

/// Each of these would be taken by Grafana in silence, and leave a panel that shows something else than meant.
#[test]
fn what_grafana_does_not_know_is_refused() {
    // One in each part: of several in one literal the compiler tells the first.
    let mistakes: [(&str, Value, &str); 8] = [
        ("/refesh", "10s".into(), "\"refesh\""),
        ("/panels/1/options/colourMode", "value".into(), "\"colourMode\""),
        ("/panels/2/options/colorMode", "loud".into(), "\"loud\""),
        ("/panels/3/targets/0/expression", "up".into(), "\"expression\""),
        ("/panels/4/fieldConfig/defaults/units", "s".into(), "\"units\""),
        ("/panels/8/fieldConfig/defaults/custom/drawStyle", "line".into(), "\"drawStyle\""),
        ("/templating/list/1/refresh", 9.into(), "'9'"),
        ("/annotations/list/0/expr", "up".into(), "\"expr\""),
    ];
    let mut all = shipped();
    for (path, value, _) in &mistakes {
        let (parent, field) = path.rsplit_once('/').expect("a path");
        all.pointer_mut(parent).and_then(Value::as_object_mut).expect(path).insert(field.to_owned(), value.clone());
    }
    let said = judged(&all);
    for (path, _, word) in &mistakes {
        assert!(said.contains(word), "{path} went by:\n{said}");
    }
    assert_eq!(said.matches("error TS").count(), mistakes.len(), "{said}");
}
