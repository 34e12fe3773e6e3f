//! Where GitHub's answers hold URLs: `connectors/data/github.uris`, read once a process.

use std::{collections::HashMap, sync::LazyLock};

use crate::{UriFields, UriNode};

/// Nodes that all operations share.
pub(super) struct UriGraph {
    nodes: Vec<Node>,
    roots: HashMap<&'static str, u32>,
}

#[derive(Default)]
struct Node {
    uri: bool,
    /// Sorted by name.
    members: Vec<(&'static str, u32)>,
    any_member: Option<u32>,
    items: Option<u32>,
}

/// The URLs of one operation's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerUris(pub UriNode);

impl UriFields for AnswerUris {
    fn root(&self) -> UriNode {
        self.0
    }
    fn member(&self, node: UriNode, key: &str) -> Option<UriNode> {
        graph().node(node)?.member(key)
    }
    fn items(&self, node: UriNode) -> Option<UriNode> {
        graph().node(node)?.items.map(UriNode)
    }
    fn is_uri(&self, node: UriNode) -> bool {
        graph().node(node).is_some_and(|node| node.uri)
    }
    fn is_credential(&self, key: &str) -> bool {
        // A read of a private repository comes with a token to clone it.
        key == "temp_clone_token"
    }
    fn page<'p>(&self, request_path: &'p str, linked_path: &str) -> Option<&'p str> {
        super::same_page(request_path, linked_path)
    }
}

impl Node {
    fn member(&self, key: &str) -> Option<UriNode> {
        let own = self.members.binary_search_by(|(name, _)| (*name).cmp(key)).ok().and_then(|at| self.members.get(at));
        own.map(|(_, target)| *target).or(self.any_member).map(UriNode)
    }
}

impl UriGraph {
    /// The first node of an operation's answers, if they hold URLs.
    pub fn root(&self, operation: &str) -> Option<UriNode> {
        self.roots.get(operation).copied().map(UriNode)
    }

    fn node(&self, node: UriNode) -> Option<&Node> {
        self.nodes.get(usize::try_from(node.0).ok()?)
    }

    fn parse(text: &'static str) -> Option<Self> {
        let mut lines = text.lines().filter(|l| !l.starts_with('#'));
        let mut nodes = Vec::new();
        for line in lines.by_ref().take_while(|l| *l != "--") {
            let mut node = Node::default();
            for word in line.split(' ') {
                match word.rsplit_once('=') {
                    None if word == "!" => node.uri = true,
                    None => return None,
                    Some(("[]", target)) => node.items = Some(target.parse().ok()?),
                    Some(("*", target)) => node.any_member = Some(target.parse().ok()?),
                    Some((name, target)) => node.members.push((name, target.parse().ok()?)),
                }
            }
            node.members.sort_unstable();
            nodes.push(node);
        }
        let roots = lines
            .map(|line| {
                let (operation, node) = line.rsplit_once(' ')?;
                Some((operation, node.parse().ok()?))
            })
            .collect::<Option<_>>()?;
        Some(Self { nodes, roots })
    }
}

/// The graph of this process.
pub(super) fn graph() -> &'static UriGraph {
    &GRAPH
}

#[expect(clippy::expect_used, reason = "the graph is part of the program, and a test reads it")]
static GRAPH: LazyLock<UriGraph> = LazyLock::new(|| {
    // INVARIANT: `github.uris` is generated, embedded and read by this crate's tests.
    UriGraph::parse(include_str!("../../data/github.uris")).expect("the embedded graph is sound")
});

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn urls(operation: &str, answer: &Value) -> Vec<String> {
        fn walk(uris: &AnswerUris, node: UriNode, value: &Value, found: &mut Vec<String>) {
            match value {
                Value::String(s) if uris.is_uri(node) => found.push(s.clone()),
                Value::Array(items) => {
                    if let Some(node) = uris.items(node) {
                        items.iter().for_each(|v| walk(uris, node, v, found));
                    }
                }
                Value::Object(map) => map.iter().for_each(|(key, v)| {
                    if let Some(node) = uris.member(node, key) {
                        walk(uris, node, v, found);
                    }
                }),
                _ => {}
            }
        }
        let uris = AnswerUris(graph().root(operation).unwrap());
        let mut found = Vec::new();
        walk(&uris, uris.root(), answer, &mut found);
        found.sort();
        found
    }

    #[test]
    fn urls_are_found_by_schema_and_free_text_is_left_alone() {
        let answer = json!([{"url":"1","title":"https://api.github.com/evil","body":"x","user":{"url":"2","login":"l",
            "followers_url":"3","gists_url":"4"},"pull_request":{"url":"5","diff_url":"6"},"labels":[{"url":"7","name":"n"}]}]);
        assert_eq!(urls("issues/list-for-repo", &answer), ["1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn members_of_any_name_are_followed() {
        let graph = UriGraph::parse("# comment\nfiles=1\n*=2 own=3\n!\n[]=2\n--\nx/y 0\n").unwrap();
        let files = graph.node(graph.root("x/y").unwrap()).unwrap().member("files").unwrap();
        let files = graph.node(files).unwrap();
        assert_eq!((files.member("a.txt"), files.member("own")), (Some(UriNode(2)), Some(UriNode(3))));
        assert!(graph.node(UriNode(2)).unwrap().uri);
        assert_eq!(graph.node(UriNode(3)).unwrap().items, Some(2));
        assert!(UriGraph::parse("rubbish\n--\n").is_none());
    }

    #[test]
    fn links_of_a_repository_that_are_plain_strings_in_the_schema_count_too() {
        let answer = json!({"items":[{"archive_url":"1","owner":{"url":"2"},"description":"no"}],"total_count":1});
        assert_eq!(urls("search/repos", &answer), ["1", "2"]);
        assert_eq!(
            urls("pulls/get", &json!({"head":{"repo":{"url":"1"},"ref":"no"},"_links":{"self":{"href":"2"}}})),
            ["1", "2"]
        );
    }
}
