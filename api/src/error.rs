//! What a request can be answered with instead of success, and as which status.

use aegis_broker::{
    admin_ops::CredentialError,
    admit::AdmitError,
    agents::AgentError,
    approvals::ApprovalError,
    authorize::{AuthorizeError, ConsumeError},
    config::Problem as ConfigProblem,
    grants::GrantError,
    identity::AuthError,
    record::DecisionRecord,
    store::StoreError,
    vault::VaultError,
};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    answers::{Check, ConfigFinding, Decision, Problem},
    body::{BODY_SECONDS, MAX_BODY},
};

/// Why a request is not answered as asked.
///
/// `Display` is what the client reads; what only the log may hold are the `cause`s.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No credential, or not one that may act now.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A good credential of the wrong kind; says which kind is needed.
    #[error("{0}")]
    WrongRole(&'static str),
    /// Too many failed authentications from one address.
    #[error("too many failed authentications from this address; try again in {seconds} s")]
    Throttled {
        /// Until the next try is judged.
        seconds: u64,
    },
    /// A part of the request is not usable; names the part.
    #[error("{detail}")]
    Invalid {
        /// Stable code.
        reason: &'static str,
        /// Which part, and what was expected.
        detail: String,
    },
    /// The body is declared as something else than JSON.
    #[error("`content-type` must be `application/json`")]
    MediaType,
    /// The body is larger than is ever read.
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// The body came too slowly.
    #[error("the body did not arrive within {BODY_SECONDS} s")]
    Slow,
    /// There is no such thing, or none that the caller may see.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NoPath,
    /// There is something at this path, but not for this method.
    #[error("this path does not take `{0}`")]
    Method(Method),
    /// The state does not allow the step.
    #[error("{detail}")]
    Conflict {
        /// Stable code.
        reason: &'static str,
        /// What the state is, and what to do.
        detail: String,
    },
    /// The same request is being decided right now.
    #[error("`request_id` is being decided; try again shortly")]
    InFlight,
    /// An approval does not lead to an allow any more; the new decision says why.
    #[error("the approval does not hold any more: {}", .0.message)]
    NotAllowed(Box<DecisionRecord>),
    /// The approver is in none of the groups that have to agree.
    #[error("{0}")]
    NotInGroup(String),
    /// A yes that this person may not give; says why.
    #[error("{0}")]
    NotApart(String),
    /// The configuration on disk is not usable; the one in force stays.
    #[error("the configuration is not usable; the one in force stays")]
    BadConfig(Vec<ConfigProblem>),
    /// Something that every request needs does not work.
    #[error("not ready: {}", failing(.0))]
    NotReady(Vec<Check>),
    /// Fail closed: nothing happens that cannot be put on record.
    #[error("this cannot be put on record, so it is refused")]
    Unrecorded {
        /// For the log.
        cause: String,
    },
    /// Something behind the API does not answer.
    #[error("the {what} cannot be used at present")]
    Unavailable {
        /// Which.
        what: &'static str,
        /// For the log.
        cause: String,
    },
    /// A defect of the gateway.
    #[error("internal error")]
    Internal {
        /// For the log.
        cause: String,
    },
}

impl ApiError {
    pub(crate) fn invalid(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { reason, detail: detail.into() }
    }

    pub(crate) fn conflict(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict { reason, detail: detail.into() }
    }

    /// The one place where an error gets its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Auth(e) => e.status(),
            Self::WrongRole(_) | Self::NotInGroup(_) | Self::NotApart(_) => StatusCode::FORBIDDEN,
            Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound(_) | Self::NoPath => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict { .. } | Self::InFlight | Self::NotAllowed(_) => StatusCode::CONFLICT,
            Self::BadConfig(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotReady(_) | Self::Unrecorded { .. } | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Stable code: the end of `type`, and `Aegis-Reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Auth(e) => e.reason(),
            Self::WrongRole(_) => "wrong_credential",
            Self::Throttled { .. } => "too_many_failures",
            Self::Invalid { reason, .. } | Self::Conflict { reason, .. } => reason,
            Self::MediaType => "bad_media_type",
            Self::TooLarge => "body_too_large",
            Self::Slow => "body_too_slow",
            Self::NotFound(_) => "not_found",
            Self::NoPath => "no_such_path",
            Self::Method(_) => "method_not_allowed",
            Self::InFlight => "request_in_flight",
            Self::NotAllowed(_) => "not_allowed_any_more",
            Self::NotInGroup(_) => "not_in_group",
            Self::NotApart(_) => "not_apart",
            Self::BadConfig(_) => "bad_configuration",
            Self::NotReady(_) => "not_ready",
            Self::Unrecorded { .. } => "not_recorded",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "internal",
        }
    }

    fn cause(&self) -> Option<&str> {
        match self {
            Self::Unrecorded { cause } | Self::Unavailable { cause, .. } | Self::Internal { cause } => Some(cause),
            _ => None,
        }
    }
}

/// An error on its way out, with the receipt of the refusal where there is one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ApiError,
    pub(crate) receipt: Option<String>,
}

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), receipt: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { error, receipt } = self;
        let (status, reason) = (error.status(), error.reason());
        if let Some(cause) = error.cause() {
            tracing::error!(reason, cause, "request failed");
        }
        let mut problem = Problem {
            r#type: format!("{TYPE_PREFIX}{reason}"),
            title: reason.replace('_', " "),
            status: status.as_u16(),
            detail: error.to_string(),
            receipt: receipt.clone(),
            decision: None,
            problems: None,
            checks: None,
        };
        let mut headers: Vec<(HeaderName, String)> = vec![
            (header::CONTENT_TYPE, "application/problem+json".into()),
            (HeaderName::from_static("aegis-reason"), reason.into()),
        ];
        match error {
            ApiError::Auth(AuthError::Missing) => headers.push((header::WWW_AUTHENTICATE, CHALLENGE.into())),
            // RFC 6750, section 3.1.
            ApiError::Auth(_) if status == StatusCode::UNAUTHORIZED => {
                headers.push((header::WWW_AUTHENTICATE, format!("{CHALLENGE}, error=\"invalid_token\"")));
            }
            ApiError::Throttled { seconds } => headers.push((header::RETRY_AFTER, seconds.to_string())),
            ApiError::InFlight => headers.push((header::RETRY_AFTER, "1".into())),
            ApiError::NotAllowed(record) => {
                problem.receipt = Some(record.receipt.receipt_id.clone());
                problem.decision = Some(Decision::from(*record));
            }
            ApiError::BadConfig(found) => problem.problems = Some(found.into_iter().map(ConfigFinding::from).collect()),
            ApiError::NotReady(checks) => problem.checks = Some(checks),
            _ => {}
        }
        if let Some(receipt) = &problem.receipt {
            headers.push((HeaderName::from_static("aegis-receipt"), receipt.clone()));
        }
        let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = status;
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(detail) => Self::conflict("conflict", detail),
            StoreError::NotFound(_) => Self::NotFound("row"),
            StoreError::TooMany(cause) | StoreError::Unavailable(cause) => Self::Unavailable { what: "store", cause },
        }
    }
}

impl From<AdmitError> for ApiError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Auth(e) => e.into(),
            AdmitError::Unrecorded(cause) => Self::Unrecorded { cause },
        }
    }
}

impl From<AuthorizeError> for ApiError {
    fn from(error: AuthorizeError) -> Self {
        match error {
            AuthorizeError::Invalid { reason, detail } => Self::Invalid { reason, detail },
            AuthorizeError::RequestIdReused => Self::conflict("request_id_reused", error.to_string()),
            AuthorizeError::InFlight => Self::InFlight,
            AuthorizeError::Admit(e) => e.into(),
        }
    }
}

impl From<ApprovalError> for ApiError {
    fn from(error: ApprovalError) -> Self {
        match error {
            ApprovalError::NotFound => Self::NotFound("approval"),
            ApprovalError::NotPending(_) => Self::conflict("approval_settled", error.to_string()),
            ApprovalError::NotInGroup(_) => Self::NotInGroup(error.to_string()),
            ApprovalError::OwnAgent | ApprovalError::NoEmail => Self::NotApart(error.to_string()),
            ApprovalError::HashMismatch => Self::conflict("approval_hash_mismatch", error.to_string()),
            ApprovalError::NeedsToolCall => Self::invalid("tool_call_needed", error.to_string()),
            ApprovalError::Store(e) => e.into(),
            ApprovalError::Random(e) => Self::Unrecorded { cause: e.to_string() },
            ApprovalError::Unrecorded(cause) => Self::Unrecorded { cause },
        }
    }
}

impl From<GrantError> for ApiError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Invalid { .. } => Self::invalid("bad_field", error.to_string()),
            GrantError::NotFound(what) => Self::NotFound(what),
            GrantError::Approval(e) => e.into(),
            GrantError::Store(e) => e.into(),
            GrantError::Unrecorded(cause) => Self::Unrecorded { cause },
        }
    }
}

impl From<ConsumeError> for ApiError {
    fn from(error: ConsumeError) -> Self {
        match error {
            ConsumeError::Approval(e) => e.into(),
            ConsumeError::Authorize(e) => e.into(),
            ConsumeError::Refused(record) => Self::NotAllowed(record),
        }
    }
}

impl From<AgentError> for ApiError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Invalid { .. } => Self::invalid("bad_field", error.to_string()),
            AgentError::Conflict(detail) => Self::conflict("conflict", detail),
            AgentError::NotFound(what) => Self::NotFound(what),
            AgentError::Store(e) => e.into(),
            AgentError::Unrecorded(cause) => Self::Unrecorded { cause },
        }
    }
}

impl From<CredentialError> for ApiError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Elsewhere { .. } => Self::conflict("credential_elsewhere", error.to_string()),
            CredentialError::NoVault(_) => Self::conflict("no_vault", error.to_string()),
            CredentialError::Vault(VaultError::NotFound(_)) => Self::NotFound("credential"),
            CredentialError::Vault(VaultError::BadKey(why)) => Self::invalid("bad_credential_name", why),
            CredentialError::Vault(VaultError::BadValue(why)) => Self::invalid("bad_field", format!("`value`: {why}")),
            CredentialError::Vault(e @ VaultError::ReadOnly) => Self::conflict("vault_read_only", e.to_string()),
            CredentialError::Vault(e @ (VaultError::Unavailable(_) | VaultError::Sealed(_))) => {
                Self::Unavailable { what: "vault", cause: e.to_string() }
            }
            CredentialError::Unrecorded(cause) => Self::Unrecorded { cause },
        }
    }
}

fn failing(checks: &[Check]) -> String {
    if checks.is_empty() {
        return "an admin sees why".to_owned();
    }
    let names: Vec<&str> = checks.iter().filter(|c| !c.ok).map(|c| c.name.as_str()).collect();
    names.join(", ")
}

/// A problem's `type` is this and the reason; it names the problem and leads nowhere.
const TYPE_PREFIX: &str = "urn:aegis:problem:";
const CHALLENGE: &str = "Bearer realm=\"aegis\"";
