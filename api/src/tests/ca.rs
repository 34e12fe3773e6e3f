//! The certificate authority through both doors.

use std::time::Duration;

use aegis_action::Timestamp;
use http::{Method, StatusCode};
use serde_json::json;

use super::{Rig, To};
use crate::{CaFuture, CaRefused, CaView, CertificateAuthority};

/// An authority that says what it was asked for.
pub(super) struct FixedCa;

impl CertificateAuthority for FixedCa {
    fn status(&self) -> CaFuture<'_> {
        Box::pin(async { Ok(view(None)) })
    }

    fn rotate(&self, overlap: Duration) -> CaFuture<'_> {
        Box::pin(async move { Ok(view(Some(Timestamp(i64::try_from(overlap.as_millis()).unwrap())))) })
    }

    fn finish(&self) -> CaFuture<'_> {
        Box::pin(async { Err(CaRefused::Conflict("no rotation is under way".into())) })
    }
}

fn view(rotates_at: Option<Timestamp>) -> CaView {
    CaView {
        bundle: "-----BEGIN CERTIFICATE-----\n".into(),
        roots: vec![("ab".into(), "CN=x".into(), Timestamp(0), Timestamp(1000))],
        rotates_at,
        intermediate_expires_at: Timestamp(0),
        provided: false,
    }
}

#[tokio::test]
async fn what_to_trust_is_told_to_anyone_and_rotation_is_the_admins() {
    let rig = Rig::new().await;
    for to in [To::Agents, To::Admins] {
        let answer = rig.call(to, Method::GET, "/v1/ca", "", None).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/x-pem-file"));
        assert!(answer.text.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    assert!(rig.refusals().is_empty());
    let status = rig.admin(Method::GET, "/v1/ca/status", None).await;
    assert_eq!((status.status, status.body["roots"][0]["sha256"].clone()), (StatusCode::OK, json!("ab")));
    let (_, agent) = rig.enrol("a").await;
    for (method, path) in
        [(Method::POST, "/v1/ca/rotate"), (Method::POST, "/v1/ca/finish"), (Method::GET, "/v1/ca/status")]
    {
        let answer = rig.call(To::Admins, method.clone(), path, &agent, None).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(rig.call(To::Agents, method, path, &agent, None).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn an_overlap_is_thirty_days_unless_said_and_bounded() {
    let rig = Rig::new().await;
    let rotated = rig.admin(Method::POST, "/v1/ca/rotate", None).await;
    assert_eq!(rotated.str("/rotates_at"), "1970-01-31T00:00:00.000Z");
    let rotated = rig.admin(Method::POST, "/v1/ca/rotate", Some(json!({"overlap_seconds": 0}))).await;
    assert_eq!(rotated.str("/rotates_at"), "1970-01-01T00:00:00.000Z");
    for bad in [-1, 31_536_001] {
        let refused = rig.admin(Method::POST, "/v1/ca/rotate", Some(json!({"overlap_seconds": bad}))).await;
        refused.is_problem(400, "bad_field");
    }
    rig.admin(Method::POST, "/v1/ca/finish", None).await.is_problem(409, "ca_conflict");
}
