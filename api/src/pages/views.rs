//! What the pages look like.

use aegis_action::Timestamp;
use aegis_broker::store::{AgentRecord, ApprovalRecord, ApprovalStatus, PersonRecord};
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use crate::convert::instant;

/// One approval as a person sees it.
pub(super) struct Shown<'a> {
    pub(super) record: &'a ApprovalRecord,
    /// The actions, secrets masked; gone once settled.
    pub(super) payload: Option<Value>,
    pub(super) agent: Option<&'a AgentRecord>,
    pub(super) people: &'a [PersonRecord],
    /// Id and words of each policy that asks.
    pub(super) policies: &'a [(String, Option<String>)],
    pub(super) now: Timestamp,
    /// Why a click came to nothing.
    pub(super) told: Option<&'a str>,
}

pub(super) fn sign_in(told: Option<&str>, next: &str) -> Markup {
    let body = html! {
        h1 { "Sign in to approve" }
        @if let Some(words) = told { p.notice role="alert" { (words) } }
        form method="post" action="/approvals/sign-in" {
            input type="hidden" name="next" value=(next);
            label for="token" { "Approver token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                spellcheck="false" aria-describedby="hint";
            p #hint.quiet { "It starts with " code { "aegis_apr_" } ". An administrator issues it; it is not an agent's." }
            button.primary type="submit" { "Sign in" }
        }
    };
    document("Sign in", None, body)
}

pub(super) fn message(title: &str, words: &str) -> Markup {
    let body = html! {
        h1 { (title) }
        @if !words.is_empty() { p { (words) } }
        p { a href="/approvals" { "What waits for me" } }
    };
    document(title, None, body)
}

pub(super) fn waiting(
    person: &PersonRecord,
    csrf: &str,
    rows: &[(ApprovalRecord, Option<AgentRecord>)],
    now: Timestamp,
) -> Markup {
    let body = html! {
        h1 { "Waiting for you" }
        @if rows.is_empty() { p { "Nothing waits for " (person.groups.join(", ")) "." } }
        ul.cards {
            @for (approval, agent) in rows {
                li.card {
                    h2 { a href=(format!("/approvals/{}", approval.approval_id)) { (plain(&approval.action)) } }
                    @if let Some(resource) = &approval.resource { p.resource { (resource) } }
                    p.quiet {
                        (risk(&approval.risk)) " asked by " strong { (named(agent.as_ref(), &approval.agent_id)) }
                        ", " (left(approval.expires_at, now))
                    }
                }
            }
        }
    };
    document("Waiting for you", Some((person, csrf)), body)
}

pub(super) fn one(person: &PersonRecord, csrf: &str, shown: &Shown<'_>) -> Markup {
    let a = shown.record;
    let open = a.status == ApprovalStatus::Pending;
    let said_yes = a.settled_by.contains(&person.person_id);
    let body = html! {
        p { a href="/approvals" { "← What waits for me" } }
        h1 { (plain(&a.action)) }
        @if let Some(resource) = &a.resource { p.resource { (resource) } }
        @if let Some(words) = shown.told { p.notice role="alert" { (words) } }
        p.status role="status" { (state(shown)) }
        dl {
            dt { "Agent" }
            dd {
                (named(shown.agent, &a.agent_id))
                @if let Some(agent) = shown.agent { " of " (agent.owner_team) " (" (agent.owner_email) ")" }
            }
            dt { "Risk" } dd { (risk(&a.risk)) }
            dt { "Where it comes from" } dd { (a.source_trust.as_str().replace('_', " ")) }
            dt { "Why you are asked" }
            dd { @for (id, words) in shown.policies { div { (words.as_deref().unwrap_or("a policy that is gone")) " " span.quiet { "(" (id) ")" } } } }
            dt { "Who has to agree" }
            dd { (a.groups.join(" and ")) ", " (a.quorum) @if a.quorum == 1 { " person" } @else { " people in all" } }
            @if let Some(version) = &a.version { dt { "Version looked at" } dd { code { (version) } } }
            dt { "Ends" } dd { (instant(a.expires_at)) @if open { ", " (left(a.expires_at, shown.now)) } }
            dt { "Action hash" } dd { code { (a.action_hash.to_hex()) } }
        }
        @if let Some(Value::Array(calls)) = &shown.payload { @for call in calls { (parameters(call)) } }
        @if open && !said_yes {
            div.choices {
                (choice(a, csrf, "approve", "primary", "Approve"))
                (choice(a, csrf, "reject", "danger", "Reject"))
            }
            p.quiet { "Your yes is for exactly this, works once, and ends when what it was shown for changes." }
        }
    };
    document(&plain(&a.action), Some((person, csrf)), body)
}

fn choice(a: &ApprovalRecord, csrf: &str, verb: &str, class: &str, word: &str) -> Markup {
    html! {
        form method="post" action=(format!("/approvals/{}/{verb}", a.approval_id)) {
            input type="hidden" name="csrf" value=(csrf);
            input type="hidden" name="action_hash" value=(a.action_hash.to_hex());
            button class=(class) type="submit" { (word) }
        }
    }
}

fn parameters(call: &Value) -> Markup {
    let tool_call = call.get("tool_call").unwrap_or(&Value::Null);
    let given = tool_call.get("parameters").and_then(Value::as_object);
    html! {
        h2 { "What exactly" }
        @if let Some(summary) = call.get("summary").and_then(Value::as_str) { p { (summary) } }
        @if call.get("masked") == Some(&Value::Bool(true)) { p.notice { "Secrets in it are masked." } }
        @match given {
            Some(given) if !given.is_empty() => {
                div.wide { table {
                    thead { tr { th scope="col" { "Parameter" } th scope="col" { "Value" } } }
                    tbody { @for (name, value) in given { tr { th scope="row" { (name) } td { (text(value)) } } } }
                } }
            }
            _ => p.quiet { "No parameters." },
        }
    }
}

/// Where an approval stands, in one sentence.
fn state(shown: &Shown<'_>) -> String {
    let a = shown.record;
    let who: Vec<&str> = a
        .settled_by
        .iter()
        .map(|id| shown.people.iter().find(|p| p.person_id == *id).map_or(id.as_str(), |p| p.name.as_str()))
        .collect();
    let who = who.join(", ");
    match a.status {
        ApprovalStatus::Pending if who.is_empty() => "Waiting for an answer.".to_owned(),
        ApprovalStatus::Pending => format!("{who} said yes; others still have to."),
        ApprovalStatus::Approved => format!("Approved by {who}. It can be used once."),
        ApprovalStatus::Rejected => format!("Rejected by {who}."),
        ApprovalStatus::Expired => "It ended before it was used. Nothing can be approved any more.".to_owned(),
        ApprovalStatus::Consumed => format!("Approved by {who}, and already used."),
        ApprovalStatus::Cancelled => "It was cancelled.".to_owned(),
    }
}

fn document(title: &str, viewer: Option<(&PersonRecord, &str)>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Aegis" }
                link rel="stylesheet" href="/approvals/style.css";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    span.brand { "Aegis" }
                    @if let Some((person, csrf)) = viewer {
                        form method="post" action="/approvals/sign-out" {
                            input type="hidden" name="csrf" value=(csrf);
                            span { (person.name) }
                            button.plain type="submit" { "Sign out" }
                        }
                    }
                }
                main #main { (body) }
            }
        }
    }
}

/// `github.merge_pull_request` as words.
fn plain(action: &str) -> String {
    let (tool, name) = action.split_once('.').unwrap_or(("", action));
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{} ({tool})", letters.as_str())
}

fn named(agent: Option<&AgentRecord>, id: &str) -> String {
    agent.map_or_else(|| id.to_owned(), |a| a.name.clone())
}

fn risk(level: &str) -> Markup {
    html! { span class=(format!("risk {level}")) { (level) " risk" } }
}

fn left(until: Timestamp, now: Timestamp) -> String {
    match until.0.saturating_sub(now.0) / 1000 {
        ..=0 => "over".to_owned(),
        s @ 1..=119 => format!("{s} seconds left"),
        s @ 120..=7199 => format!("{} minutes left", s / 60),
        s => format!("{} hours left", s / 3600),
    }
}

/// Text as it is, anything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    }
}

pub(super) const STYLE: &str = include_str!("style.css");
