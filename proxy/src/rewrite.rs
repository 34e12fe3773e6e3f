//! URLs in answers, rewritten where the vendor's schema says that a string is a URL, and nowhere else:
//! a rewrite in free text would let an agent plant gateway URLs.

use std::sync::Arc;

use aegis_connectors::{UriFields, UriNode};

/// Rewrites JSON as it streams by: only strings at URL positions are held, everything else goes on byte for byte.
pub(crate) struct JsonUrls {
    fields: Arc<dyn UriFields>,
    from: String,
    to: String,
    stack: Vec<Frame>,
    state: State,
    token: Vec<u8>,
    /// Deeper than the schema could be: what follows goes on untouched.
    lost: bool,
}

struct Frame {
    node: Option<UriNode>,
    /// Node of the value that comes next.
    child: Option<UriNode>,
    /// Whether the member that comes next holds a credential.
    credential: bool,
    is_array: bool,
    wants_key: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// In a string; what it is for, and whether the last byte was a backslash.
    Text(Use, bool),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Key,
    Url,
    /// A credential that the answer would hand out: only the quotes are left.
    Credential,
    Other,
}

impl JsonUrls {
    pub(crate) fn new(fields: Arc<dyn UriFields>, from: String, to: String) -> Self {
        Self { fields, from, to, stack: Vec::new(), state: State::Between, token: Vec::new(), lost: false }
    }

    /// Takes a chunk and appends what may go on.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        for &byte in chunk {
            match self.state {
                State::Between => {
                    self.between(byte);
                    out.push(byte);
                }
                State::Text(used, true) => {
                    self.state = State::Text(used, false);
                    self.emit(used, byte, out);
                }
                State::Text(used, false) if byte == b'\\' => {
                    self.state = State::Text(used, true);
                    self.emit(used, byte, out);
                }
                State::Text(used, false) if byte == b'"' => {
                    self.end_of_text(used, out);
                    out.push(byte);
                    self.state = State::Between;
                }
                State::Text(used, false) => self.emit(used, byte, out),
            }
        }
    }

    /// Lets go of what an unfinished document left.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Text(Use::Url, false) || self.state == State::Text(Use::Url, true) {
            out.append(&mut self.token);
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                let node = self.value_node();
                self.lost |= self.stack.len() >= MAX_DEPTH;
                if !self.lost {
                    let child = node.filter(|_| byte == b'[').and_then(|n| self.fields.items(n));
                    self.stack.push(Frame {
                        node,
                        child,
                        credential: false,
                        is_array: byte == b'[',
                        wants_key: byte == b'{',
                    });
                }
            }
            b'}' | b']' if !self.lost => {
                self.stack.pop();
            }
            b',' => {
                if let Some(frame) = self.stack.last_mut() {
                    frame.wants_key = !frame.is_array;
                }
            }
            b'"' => {
                let used = match self.stack.last() {
                    _ if self.lost => Use::Other,
                    Some(frame) if frame.wants_key => Use::Key,
                    Some(frame) if frame.credential => Use::Credential,
                    _ if self.value_node().is_some_and(|n| self.fields.is_uri(n)) => Use::Url,
                    _ => Use::Other,
                };
                self.token.clear();
                self.state = State::Text(used, false);
            }
            _ => {}
        }
    }

    fn value_node(&self) -> Option<UriNode> {
        match self.stack.last() {
            None => Some(self.fields.root()),
            Some(frame) => frame.child,
        }
    }

    fn emit(&mut self, used: Use, byte: u8, out: &mut Vec<u8>) {
        match used {
            Use::Other => out.push(byte),
            Use::Credential => {}
            Use::Key => {
                out.push(byte);
                if self.token.len() < MAX_KEY {
                    self.token.push(byte);
                }
            }
            Use::Url if self.token.len() < MAX_URL => self.token.push(byte),
            Use::Url => {
                // Too long to be a URL of the API: goes on as it is.
                out.append(&mut self.token);
                out.push(byte);
                self.state = State::Text(Use::Other, false);
            }
        }
    }

    fn end_of_text(&mut self, used: Use, out: &mut Vec<u8>) {
        match used {
            Use::Other | Use::Credential => {}
            Use::Key => {
                let key = std::str::from_utf8(&self.token).ok().filter(|_| self.token.len() < MAX_KEY);
                if let Some(frame) = self.stack.last_mut() {
                    frame.child = frame.node.zip(key).and_then(|(node, key)| self.fields.member(node, key));
                    frame.credential = key.is_some_and(|key| self.fields.is_credential(key));
                    frame.wants_key = false;
                }
            }
            Use::Url => match std::str::from_utf8(&self.token).ok().and_then(|url| moved(url, &self.from, &self.to)) {
                Some(url) => out.extend_from_slice(url.as_bytes()),
                None => out.extend_from_slice(&self.token),
            },
        }
    }
}

/// The URL below the new base, if it is below the old one.
pub(crate) fn moved(url: &str, from: &str, to: &str) -> Option<String> {
    let rest = url.strip_prefix(from)?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#', '{'])).then(|| format!("{to}{rest}"))
}

/// `Link` (RFC 8288): each target in angle brackets.
pub(crate) fn moved_link(value: &str, moved: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut out = String::with_capacity(value.len() + 32);
    let mut rest = value;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once('<') {
        let (target, tail) = after.split_once('>')?;
        let url = moved(target);
        changed |= url.is_some();
        out.push_str(before);
        out.push('<');
        out.push_str(url.as_deref().unwrap_or(target));
        out.push('>');
        rest = tail;
    }
    out.push_str(rest);
    changed.then_some(out)
}

const MAX_DEPTH: usize = 128;
const MAX_KEY: usize = 128;
const MAX_URL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// `url` and `owner.url` are URLs, also in `items[]`; `body` is text.
    #[derive(Debug)]
    struct Schema;
    impl UriFields for Schema {
        fn root(&self) -> UriNode {
            UriNode(0)
        }
        fn member(&self, node: UriNode, key: &str) -> Option<UriNode> {
            match (node.0, key) {
                (0, "url") => Some(UriNode(1)),
                (0, "owner") => Some(UriNode(0)),
                (0, "items") => Some(UriNode(2)),
                _ => None,
            }
        }
        fn items(&self, node: UriNode) -> Option<UriNode> {
            (node.0 == 2).then_some(UriNode(0))
        }
        fn is_uri(&self, node: UriNode) -> bool {
            node.0 == 1
        }
        fn is_credential(&self, key: &str) -> bool {
            key == "clone_token"
        }
    }

    fn rewrite(text: &str, chunk: usize) -> String {
        let mut urls = JsonUrls::new(Arc::new(Schema), "https://api.example".into(), "http://gw/x".into());
        let mut out = Vec::new();
        for part in text.as_bytes().chunks(chunk) {
            urls.push(part, &mut out);
        }
        urls.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_schema_urls_below_the_upstream_are_moved() {
        let text = r#"{"url": "https://api.example/a","body":"https://api.example/a \"url\":\"https://api.example\"","owner":{"url":"https://api.example","name":{"url":"https://api.example/no"}},"items":[{"url":"https://api.example/i{/n}"},{"url":"https://api.example.evil/"},{"url":null}],"u\"rl":"https://api.example"}"#;
        let want = r#"{"url": "http://gw/x/a","body":"https://api.example/a \"url\":\"https://api.example\"","owner":{"url":"http://gw/x","name":{"url":"https://api.example/no"}},"items":[{"url":"http://gw/x/i{/n}"},{"url":"https://api.example.evil/"},{"url":null}],"u\"rl":"https://api.example"}"#;
        for chunk in [1, 2, 3, 7, 1000] {
            assert_eq!(rewrite(text, chunk), want, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_credential_in_an_answer_is_blanked() {
        let text = r#"{"clone_token":"s3c\"ret","url":"x","owner":{"clone_token":null,"clone_token":"a"},"b":["clone_token","k"]}"#;
        let want =
            r#"{"clone_token":"","url":"x","owner":{"clone_token":null,"clone_token":""},"b":["clone_token","k"]}"#;
        for chunk in [1, 3, 1000] {
            assert_eq!(rewrite(text, chunk), want);
        }
    }

    #[test]
    fn what_is_not_json_goes_on_byte_for_byte() {
        for text in ["", "\"", "{{{{[[", "}}]]", "{\"url\":\"https://api.example", "plain text"] {
            assert_eq!(rewrite(text, 2), text);
        }
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert_eq!(rewrite(&deep, 3), deep);
    }

    #[test]
    fn links_are_moved_one_by_one() {
        let link = r#"<https://api.example/r?page=2>; rel="next", <https://other/r>; rel="x""#;
        let to_gateway = |url: &str| moved(url, "https://api.example", "http://gw/x");
        assert_eq!(
            moved_link(link, to_gateway).unwrap(),
            r#"<http://gw/x/r?page=2>; rel="next", <https://other/r>; rel="x""#
        );
        assert_eq!(moved_link("<https://other>", to_gateway), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_pass_unchanged_when_nothing_is_a_url(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), chunk in 1usize..20) {
            let mut urls = JsonUrls::new(Arc::new(Schema), "\u{1}never".into(), "x".into());
            let mut out = Vec::new();
            for part in bytes.chunks(chunk) {
                urls.push(part, &mut out);
            }
            urls.finish(&mut out);
            proptest::prop_assert_eq!(out, bytes);
        }
    }
}
