//! `[[webhook]]`: who is told what happens, and how.

use std::sync::Arc;

use super::{
    parse::{check_label, parse_upstream},
    read::{Problem, Reader, Severity, nearest},
    route::{CredentialKind, RouteConfig},
};

/// One receiver of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Name, and the label everywhere. How far it has been told is kept by this name.
    pub name: String,
    /// What it is sent, and where.
    pub format: WebhookFormat,
    /// Name of the credential: the key that signs, or for Slack the address.
    pub credential: String,
    /// Kinds of events.
    pub events: Vec<String>,
    /// Base URL of the approval pages, without a slash at the end.
    pub link: Option<String>,
    /// Whether the address may be `http://`.
    pub danger_plaintext: bool,
    /// Line in the file, for messages.
    pub line: usize,
}

/// What a receiver understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookFormat {
    /// JSON, signed as Standard Webhooks says.
    Standard {
        /// Where to.
        url: String,
    },
    /// A Slack incoming webhook, whose address is the credential.
    Slack {
        /// Name of the credential that verifies what comes back; without one there are no buttons.
        signing_secret: Option<String>,
    },
}

impl Webhook {
    /// Whether it says the same, wherever it stands in the file.
    pub fn same_as(&self, other: &Self) -> bool {
        Self { line: 0, ..self.clone() } == Self { line: 0, ..other.clone() }
    }

    /// The credentials it names: the key that does, the name, and the kind that it must be.
    pub fn credentials(&self) -> impl Iterator<Item = (&'static str, &str, CredentialKind)> {
        let (kind, secret) = match &self.format {
            WebhookFormat::Standard { .. } => (CredentialKind::SigningKey, None),
            WebhookFormat::Slack { signing_secret } => (CredentialKind::WebhookUrl, signing_secret.as_deref()),
        };
        let secret = secret.map(|name| ("signing_secret", name, CredentialKind::SigningKey));
        std::iter::once(("credential", self.credential.as_str(), kind)).chain(secret)
    }
}

pub(super) fn read(mut r: Reader<'_, '_>, config: &mut RouteConfig, declared: &[String]) {
    let name = r.required("name");
    r.named(format!("webhook `{name}`"));
    check_label(&mut r, "name", &name);
    let slack = r.word("format", "`standard` or `slack`", |w| match w {
        "standard" => Some(false),
        "slack" => Some(true),
        _ => None,
    });
    let slack = slack.unwrap_or(false);
    let danger_plaintext = r.boolean("danger_plaintext").unwrap_or(false);
    let credential = r.required("credential");
    let url = if slack { r.string("url") } else { Some(r.required("url")) };
    let signing_secret = r.string("signing_secret");
    if slack && url.is_some() {
        r.error_at("url", "leave `url` out: Slack's address is a secret, and `credential` names it".into());
    }
    if !slack && signing_secret.is_some() {
        r.error_at("signing_secret", "only with `format = \"slack\"`; `credential` names the key that signs".into());
    }
    if let Some(url) = url.as_deref().filter(|url| !slack && !url.is_empty()) {
        check_url(&mut r, "url", url, danger_plaintext);
    }
    let link = r.string("link");
    if let Some(link) = &link {
        // It holds no secret: a browser on the same machine may go there without TLS.
        check_url(&mut r, "link", link, true);
    }
    let events = events(&mut r);
    for (key, name) in [("credential", Some(&credential)), ("signing_secret", signing_secret.as_ref())] {
        if let Some(name) = name.filter(|name| !name.is_empty() && !declared.contains(name)) {
            r.error_at(key, format!("credential `{name}` is not declared; add a `[[credential]]` of that name"));
        }
    }
    if config.webhooks.iter().any(|other| other.name == name) {
        r.error_at("name", format!("`{name}` is declared twice"));
    }
    let line = r.line_of("name");
    r.finish();
    let format = if slack {
        WebhookFormat::Slack { signing_secret }
    } else {
        WebhookFormat::Standard { url: url.unwrap_or_default() }
    };
    let link = link.map(|link| link.trim_end_matches('/').to_owned());
    config.webhooks.push(Arc::new(Webhook { name, format, credential, events, link, danger_plaintext, line }));
}

/// Each credential that a webhook names must be of the kind for it.
pub(super) fn cross_check(file: &str, config: &RouteConfig, problems: &mut Vec<Problem>) {
    for webhook in &config.webhooks {
        for (key, name, kind) in webhook.credentials() {
            let Some(spec) = config.credentials.get(name).filter(|spec| spec.kind != kind) else { continue };
            let message = format!(
                "webhook `{}`: `{key}` names `{name}`, which is of kind `{}`, not `{}`",
                webhook.name,
                spec.kind.word(),
                kind.word()
            );
            problems.push(Problem { file: file.to_owned(), line: webhook.line, message, severity: Severity::Error });
        }
    }
}

fn check_url(r: &mut Reader<'_, '_>, key: &'static str, url: &str, plaintext: bool) {
    if url.starts_with("http://") && !plaintext {
        r.error_at(key, "`http://` sends it in the clear; use `https://`, or set `danger_plaintext = true`".into());
    } else if let Err(message) = parse_upstream(url, true) {
        r.error_at(key, message);
    }
}

fn events(r: &mut Reader<'_, '_>) -> Vec<String> {
    if r.get("events").is_none() {
        return EVENTS.iter().take(DEFAULT_EVENTS).map(|kind| (*kind).to_owned()).collect();
    }
    let wanted = r.strings("events");
    if wanted.is_empty() {
        r.error_at("events", "`events` must name at least one kind of event".into());
    }
    for kind in wanted.iter().filter(|kind| !EVENTS.contains(&kind.as_str())) {
        let hint = nearest(kind, &EVENTS).map(|n| format!(", did you mean `{n}`?"));
        r.error_at("events", format!("`{kind}` is no kind of event{}", hint.unwrap_or_default()));
    }
    wanted
}

/// Kinds of event leaves, those that people who approve want to know first.
const EVENTS: [&str; 25] = [
    "approval_asked",
    "approval_granted",
    "approval_rejected",
    "approval_expired",
    "approval_consumed",
    "grant_given",
    "grant_revoked",
    "agent_registered",
    "agent_token_rotated",
    "agent_frozen",
    "agent_unfrozen",
    "agent_quarantined",
    "agent_revoked",
    "session_started",
    "session_renewed",
    "session_ended",
    "person_added",
    "person_revoked",
    "credential_stored",
    "credential_removed",
    "snapshot_loaded",
    "ca_created",
    "ca_intermediate_issued",
    "ca_rotation_started",
    "ca_rotation_finished",
];
/// So many of them where `events` is not written.
const DEFAULT_EVENTS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NamedFiles, parse};

    const CREDENTIALS: &str = "[[credential]]\nname=\"key\"\nkind=\"signing_key\"\n\
        [[credential]]\nname=\"address\"\nkind=\"webhook_url\"\n[[credential]]\nname=\"token\"\n";

    fn problems(webhook: &str) -> Vec<Problem> {
        let text = format!("[[webhook]]\n{webhook}\n{CREDENTIALS}");
        let problems = parse("f", &text, &NamedFiles::default()).err().unwrap_or_default();
        problems.into_iter().filter(|p| p.severity == Severity::Error).collect()
    }

    #[test]
    fn a_webhook_is_told_of_approvals_and_grants_unless_said() {
        let text =
            format!("[[webhook]]\nname=\"ops\"\nurl=\"https://ops.example/hook\"\ncredential=\"key\"\n{CREDENTIALS}");
        let (config, warnings) = parse("f", &text, &NamedFiles::default()).unwrap();
        let webhook = &config.webhooks[0];
        assert_eq!(webhook.format, WebhookFormat::Standard { url: "https://ops.example/hook".into() });
        assert_eq!(webhook.events.len(), 7);
        assert!(webhook.events.iter().all(|e| e.starts_with("approval_") || e.starts_with("grant_")));
        assert!(!warnings.iter().any(|w| w.message.contains("`key`")), "it is used: {warnings:?}");
        assert!(warnings.iter().any(|w| w.message.contains("`address`")));
    }

    #[test]
    fn slack_takes_its_address_from_a_credential() {
        let slack =
            "name=\"s\"\nformat=\"slack\"\ncredential=\"address\"\nsigning_secret=\"key\"\nlink=\"https://a.example/\"";
        assert_eq!(problems(slack), []);
        let text = format!("[[webhook]]\n{slack}\n{CREDENTIALS}");
        let (config, _) = parse("f", &text, &NamedFiles::default()).unwrap();
        assert_eq!(config.webhooks[0].link.as_deref(), Some("https://a.example"));
        assert_eq!(config.webhooks[0].credentials().count(), 2);
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let standard = "name=\"ops\"\nurl=\"https://ops.example/hook\"\ncredential=\"key\"";
        for (text, line, says) in [
            ("name=\"ops\"\nurl=\"https://a.example\"".to_owned(), 1, "`credential` is required"),
            ("name=\"ops\"\ncredential=\"key\"".to_owned(), 1, "`url` is required"),
            ("name=\"Ops\"\nurl=\"https://a.example\"\ncredential=\"key\"".to_owned(), 2, "must be 1 to 64"),
            (standard.replace("https", "http"), 3, "danger_plaintext"),
            (standard.replace("/hook", "/hook?token=x"), 3, "scheme, host, port and path only"),
            (standard.replace("https", "ftp"), 3, "is not an `https://` URL"),
            (standard.replace("\"key\"", "\"none\""), 4, "`none` is not declared"),
            (standard.replace("\"key\"", "\"token\""), 2, "of kind `bearer`, not `signing_key`"),
            (format!("{standard}\nevents=[\"approval_aksed\"]"), 5, "did you mean `approval_asked`"),
            (format!("{standard}\nevents=[]"), 5, "at least one"),
            (format!("{standard}\nlink=\"aegis.example\""), 5, "is not an `https://` URL"),
            (format!("{standard}\nformat=\"teams\""), 5, "expected `standard` or `slack`"),
            (format!("{standard}\nsigning_secret=\"key\""), 5, "only with `format"),
            (format!("{standard}\ntimeout=3"), 5, "unknown key `timeout`"),
            (format!("{standard}\nformat=\"slack\""), 3, "leave `url` out"),
            ("name=\"s\"\nformat=\"slack\"\ncredential=\"key\"".to_owned(), 2, "not `webhook_url`"),
            (format!("{standard}\n[[webhook]]\n{standard}"), 6, "declared twice"),
        ] {
            let found = problems(&text);
            assert!(found.iter().any(|p| p.line == line && p.message.contains(says)), "{text}\n{says}: {found:?}");
        }
    }

    #[test]
    fn keys_of_webhooks_are_never_sent_to_an_upstream() {
        for name in ["key", "address"] {
            let text =
                format!("[[route]]\nname=\"r\"\nupstream=\"https://a.example\"\ncredential=\"{name}\"\n{CREDENTIALS}");
            let problems = parse("f", &text, &NamedFiles::default()).unwrap_err();
            assert!(problems.iter().any(|p| p.message.contains("not one that can be sent")), "{problems:?}");
        }
    }
}
