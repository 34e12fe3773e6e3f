//! The approval pages: sign in, read, say yes or no. Server-rendered, without scripts, for any screen.
//!
//! They do what approvers do over HTTP and nothing else. A link alone never settles anything: it takes a
//! session, and a form that this gateway rendered for that session.

mod form;
mod session;
mod views;

use std::{net::IpAddr, sync::Arc};

use aegis_broker::{
    Broker,
    approvals::ApprovalError,
    identity::AuthError,
    store::{ApprovalRecord, ApprovalStatus, PersonRecord, PersonRole},
};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::Markup;

pub(crate) use self::session::Sessions;
use self::{form::Form, session::Session};
use crate::{admin::AdminState, auth, body::Id, doors::to_the_end};

/// All pages, below `/approvals`.
pub(crate) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/approvals", get(waiting))
        .route("/approvals/style.css", get(style))
        .route("/approvals/sign-in", get(waiting).post(sign_in))
        .route("/approvals/sign-out", post(sign_out))
        .route("/approvals/{id}", get(one))
        .route("/approvals/{id}/approve", post(approve))
        .route("/approvals/{id}/reject", post(reject))
}

/// Who is looking, with the session that says so.
struct Viewer {
    person: PersonRecord,
    session: Session,
}

async fn waiting(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let Some(viewer) = viewer(&state, &parts).await else { return page(StatusCode::OK, views::sign_in(None, "")) };
    let now = state.broker().env.clock.now();
    let found = state.broker().store.approvals(None, Some(ApprovalStatus::Pending), 200, now).await;
    let Ok(mut found) = found else { return unavailable() };
    found.retain(|a| a.groups.iter().any(|g| viewer.person.groups.contains(g)));
    let mut rows = Vec::with_capacity(found.len());
    for approval in found {
        let agent = state.broker().store.agent(&approval.agent_id).await.ok().flatten();
        rows.push((approval, agent));
    }
    page(StatusCode::OK, views::waiting(&viewer.person, &viewer.session.csrf, &rows, now))
}

async fn one(State(state): State<AdminState>, Id(id): Id, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let Some(viewer) = viewer(&state, &parts).await else {
        return page(StatusCode::OK, views::sign_in(None, &format!("/approvals/{id}")));
    };
    show(&state, &viewer, &id, StatusCode::OK, None).await
}

async fn approve(State(state): State<AdminState>, Id(id): Id, request: Request) -> Response {
    settle(state, id, request, true).await
}

async fn reject(State(state): State<AdminState>, Id(id): Id, request: Request) -> Response {
    settle(state, id, request, false).await
}

async fn settle(state: AdminState, id: String, request: Request, yes: bool) -> Response {
    let (parts, body) = request.into_parts();
    let Some(viewer) = viewer(&state, &parts).await else {
        let words = "Your session is over; sign in again. Nothing was settled.";
        return page(StatusCode::UNAUTHORIZED, views::sign_in(Some(words), &format!("/approvals/{id}")));
    };
    let form = match Form::read(body).await {
        Ok(form) if same_site(&parts) && form.get("csrf") == Some(viewer.session.csrf.as_str()) => form,
        _ => {
            return page(
                StatusCode::FORBIDDEN,
                views::message("This form did not come from this page", NOTHING_SETTLED),
            );
        }
    };
    let now = state.broker().env.clock.now();
    let shown = match state.broker().store.approval(&id, now).await {
        Ok(Some(record)) => form.get("action_hash") == Some(record.action_hash.to_hex().as_str()),
        Ok(None) => return page(StatusCode::NOT_FOUND, views::message("There is no such approval", "")),
        Err(_) => return unavailable(),
    };
    if !shown {
        return page(StatusCode::CONFLICT, views::message("This is not the action that was shown", NOTHING_SETTLED));
    }
    let broker: Arc<Broker> = axum::extract::FromRef::from_ref(&state);
    let (person, which) = (viewer.person.clone(), id.clone());
    let settled = to_the_end(async move { broker.settle(&which, &person, yes).await.map_err(Refused) }).await;
    let told = match settled {
        Ok(_) => return see_other(&format!("/approvals/{id}")),
        Err(failure) => failure,
    };
    show(&state, &viewer, &id, told.error.status(), Some(&told.error.to_string())).await
}

async fn show(state: &AdminState, viewer: &Viewer, id: &str, status: StatusCode, told: Option<&str>) -> Response {
    let (broker, now) = (state.broker(), state.broker().env.clock.now());
    let record = match broker.store.approval(id, now).await {
        Ok(Some(record)) => record,
        Ok(None) => return page(StatusCode::NOT_FOUND, views::message("There is no such approval", "")),
        Err(_) => return unavailable(),
    };
    // Approvers of other groups see nothing of it here; the API lists it for them without its payload.
    if !record.groups.iter().any(|g| viewer.person.groups.contains(g)) {
        let words = format!("It is for {}.", record.groups.join(" and "));
        return page(StatusCode::FORBIDDEN, views::message("This is not for you to decide", &words));
    }
    let agent = broker.store.agent(&record.agent_id).await.ok().flatten();
    let people = broker.store.people().await.unwrap_or_default();
    let policies = words_of(broker, &record);
    let shown = views::Shown {
        payload: broker.approval_payload(&record),
        agent: agent.as_ref(),
        people: &people,
        policies: &policies,
        record: &record,
        now,
        told,
    };
    page(status, views::one(&viewer.person, &viewer.session.csrf, &shown))
}

/// What the policies that ask say for themselves, where they are still there.
fn words_of(broker: &Broker, record: &ApprovalRecord) -> Vec<(String, Option<String>)> {
    let snapshot = broker.snapshot();
    let policies = record.policies.iter();
    policies.map(|id| (id.clone(), snapshot.engine.policy(id).map(|p| p.words()))).collect()
}

async fn sign_in(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let form = match Form::read(body).await {
        Ok(form) if same_site(&parts) => form,
        _ => return page(StatusCode::FORBIDDEN, views::message("This form did not come from this page", "")),
    };
    let next = form.get("next").filter(|n| is_own(n)).unwrap_or("/approvals").to_owned();
    let (broker, peer): (_, Option<IpAddr>) = (state.broker(), auth::peer(&parts));
    let now = broker.env.clock.now();
    let token = form.get("token").map(str::trim).unwrap_or_default();
    match broker.auth.person(token, PersonRole::Approver, now).await {
        Ok(person) => match state.sessions().start(&person, now, broker.env.random.as_ref()) {
            Some(session) => {
                let mut answer = see_other(&next);
                set(&mut answer, header::SET_COOKIE, &session::cookie(&session.id, secure(&parts)));
                answer
            }
            None => unavailable(),
        },
        Err(AuthError::Unavailable) => unavailable(),
        Err(error) => {
            let failure = auth::failed(&state, error, None, peer);
            let words = match failure.error.status() {
                StatusCode::TOO_MANY_REQUESTS => "Too many failed attempts from here; wait a moment.",
                _ => "This is not the token of an approver who has access.",
            };
            page(failure.error.status(), views::sign_in(Some(words), &next))
        }
    }
}

async fn sign_out(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(viewer) = viewer(&state, &parts).await else { return see_other("/approvals") };
    match Form::read(body).await {
        Ok(form) if same_site(&parts) && form.get("csrf") == Some(viewer.session.csrf.as_str()) => {
            state.sessions().end(&viewer.session.id);
            let mut answer = see_other("/approvals");
            set(&mut answer, header::SET_COOKIE, &session::no_cookie(secure(&parts)));
            answer
        }
        _ => page(StatusCode::FORBIDDEN, views::message("This form did not come from this page", "")),
    }
}

async fn style() -> Response {
    let mut answer = views::STYLE.into_response();
    set(&mut answer, header::CONTENT_TYPE, "text/css; charset=utf-8");
    answer
}

/// The session of the cookie, whose person still has access: that is looked up anew each time.
async fn viewer(state: &AdminState, parts: &Parts) -> Option<Viewer> {
    let now = state.broker().env.clock.now();
    let session = state.sessions().find(session::named(&parts.headers)?, now)?;
    let people = state.broker().store.people().await.ok()?;
    let person = people.into_iter().find(|p| p.person_id == session.person_id)?;
    let holds = !person.revoked && person.role == PersonRole::Approver && person.expires_at.is_none_or(|end| now < end);
    holds.then_some(Viewer { person, session })
}

/// Browsers say where a form comes from; one from elsewhere is not taken, whatever it carries.
fn same_site(parts: &Parts) -> bool {
    let text = |name: HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let from = text(HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
    let host = text(header::HOST).unwrap_or_default();
    let origin = text(header::ORIGIN).is_none_or(|o| o.split_once("://").is_some_and(|(_, rest)| rest == host));
    from && origin
}

/// A path of these pages, so that signing in leads nowhere else.
fn is_own(next: &str) -> bool {
    next == "/approvals"
        || next.strip_prefix("/approvals/").is_some_and(|id| {
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        })
}

/// Whether the browser speaks TLS to whatever stands before this listener.
fn secure(parts: &Parts) -> bool {
    let origin = parts.headers.get(header::ORIGIN).and_then(|v| v.to_str().ok());
    origin.is_some_and(|o| o.starts_with("https://"))
}

fn page(status: StatusCode, content: Markup) -> Response {
    let mut answer = (status, content.into_string()).into_response();
    set(&mut answer, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(&mut answer, header::CONTENT_SECURITY_POLICY, POLICY);
    set(&mut answer, header::REFERRER_POLICY, "same-origin");
    set(&mut answer, header::X_FRAME_OPTIONS, "DENY");
    answer
}

fn see_other(to: &str) -> Response {
    let mut answer = StatusCode::SEE_OTHER.into_response();
    set(&mut answer, header::LOCATION, to);
    answer
}

fn unavailable() -> Response {
    let words = "The store cannot be read or written. Nothing was settled; try again.";
    page(StatusCode::SERVICE_UNAVAILABLE, views::message("Not available", words))
}

fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// An [`ApprovalError`] on its way to a status and words.
struct Refused(ApprovalError);

impl From<Refused> for crate::error::Failure {
    fn from(refused: Refused) -> Self {
        crate::error::ApiError::from(refused.0).into()
    }
}

const NOTHING_SETTLED: &str = "Nothing was settled. Open the approval again and look at what it says.";
/// No script, no frame, nothing from elsewhere.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
