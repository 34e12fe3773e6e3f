//! Where the parameters make an operation worse than its catalog class.

use aegis_action::AccessClass;
use serde_json::{Map, Value};

/// The class of this call. Writing what GitHub Actions will run is planting, not writing.
pub(super) fn class(operation: &str, entry: AccessClass, parameters: &Map<String, Value>) -> AccessClass {
    let plants = match operation {
        "repos/create-or-update-file-contents" | "repos/delete-file" => {
            parameters.get("path").is_some_and(|path| is_workflow_path(path, false))
        }
        // A tree can also be hung in whole, so here the folder itself counts.
        "git/create-tree" => match parameters.get("tree") {
            Some(Value::Array(items)) => {
                items.iter().any(|item| item.get("path").is_some_and(|path| is_workflow_path(path, true)))
            }
            Some(_) => true,
            None => false,
        },
        _ => false,
    };
    if plants { AccessClass::Persist } else { entry }
}

/// At or below `.github/workflows` or `.github/actions`; with `whole`, also `.github` itself.
fn is_workflow_path(path: &Value, whole: bool) -> bool {
    // A path too long to be kept as text is not one we can clear.
    let Value::String(path) = path else { return !path.is_null() };
    let lower = path.to_lowercase();
    let mut names = lower.split('/').filter(|name| !matches!(*name, "" | "."));
    match (names.next(), names.next()) {
        (Some(".github"), Some("workflows" | "actions")) => true,
        (Some(".github"), None) => whole,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn workflows_are_planted_however_they_are_spelled() {
        let write = |path: Value| {
            let parameters = json!({ "path": path });
            class("repos/create-or-update-file-contents", AccessClass::Write, parameters.as_object().unwrap())
        };
        for path in [
            ".github/workflows/a.yml",
            ".GitHub/Workflows/a",
            ".github/actions/x/action.yml",
            ".github//workflows/a",
            "./.github/workflows",
        ] {
            assert_eq!(write(json!(path)), AccessClass::Persist, "{path}");
        }
        assert_eq!(write(json!({ "$bulk": {} })), AccessClass::Persist);
        for path in ["src/main.rs", ".github/CODEOWNERS", "docs/.github/workflows/a.yml", ".github"] {
            assert_eq!(write(json!(path)), AccessClass::Write, "{path}");
        }
        let tree = |path: &str| {
            let parameters = json!({ "tree": [{ "path": "a" }, { "path": path, "mode": "040000", "sha": "x" }] });
            class("git/create-tree", AccessClass::Write, parameters.as_object().unwrap())
        };
        assert_eq!(tree(".github/workflows/a.yml"), AccessClass::Persist);
        assert_eq!(tree(".github"), AccessClass::Persist);
        assert_eq!(tree("src"), AccessClass::Write);
    }
}
