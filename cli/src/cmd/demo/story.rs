//! What the tour shows, and what has to be true at each step.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Narrator,
    agent::Answer,
    scan,
    scene::{Scene, Stage},
};
use crate::error::CliError;

/// The whole tour, for machines.
#[derive(Debug, Serialize)]
pub struct Told {
    /// Whether every expectation held.
    pub ok: bool,
    /// In order.
    pub steps: Vec<Step>,
    /// How long it took.
    pub milliseconds: u128,
}

/// One expectation.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What is claimed.
    pub title: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// Tells it once, on a stage that is taken down whatever happens.
pub async fn tell(narrator: Narrator) -> Result<Told, CliError> {
    let started = Instant::now();
    narrator.heading("A gateway, an origin that plays GitHub, and an agent, all on this machine");
    let mut scene = Scene::set().await?;
    let mut teller = Teller { narrator, steps: Vec::new() };
    let played = play(&mut scene, &mut teller).await;
    let stage = scene.strike().await;
    played?;
    evidence(stage, &mut teller)?;
    let ok = teller.steps.iter().all(|s| s.ok);
    Ok(Told { ok, steps: teller.steps, milliseconds: started.elapsed().as_millis() })
}

struct Teller {
    narrator: Narrator,
    steps: Vec<Step>,
}

impl Teller {
    fn claim(&mut self, title: impl Into<String>, ok: bool, detail: impl Into<String>) {
        let step = Step { title: title.into(), ok, detail: detail.into() };
        self.narrator.step(&step);
        self.steps.push(step);
    }
}

async fn play(scene: &mut Scene, teller: &mut Teller) -> Result<(), CliError> {
    teller.claim(
        "the real credential goes into the vault",
        scene.store_credential().await?,
        "by `aegis credential add`, encrypted at rest",
    );
    let agent_id = scene.enrol().await?;
    teller.claim("the agent gets a token of its own instead", !agent_id.is_empty(), agent_id.clone());

    teller.narrator.heading("What the agent may do goes through");
    let read = scene.call("GET", REPO, None).await?;
    let seen = scene.origin.last();
    let carried =
        seen.as_ref().is_some_and(|r| r.authorization.as_deref() == Some(scene.expected_authorization().as_str()));
    teller.claim("it reads a repository", read.status == 200 && read.is("aegis-decision", "allow"), told(&read));
    teller.claim("the origin saw the real credential", carried, "and would have answered 401 to anything else");
    let issue = scene.call("POST", &format!("{REPO}/issues"), Some(json!({"title": "Flaky test in CI"}))).await?;
    teller.claim("it opens an issue", issue.status == 201 && issue.is("aegis-decision", "allow"), told(&issue));

    teller.narrator.heading("What is dangerous does not");
    let before = scene.origin.count();
    let deletion = scene.call("DELETE", REPO, None).await?;
    let denied = deletion.status == 403 && deletion.is("aegis-decision", "deny");
    teller.claim("it tries to delete the repository and is denied", denied, told(&deletion));
    teller.claim("nothing of that reached the origin", scene.origin.count() == before, "not one byte");
    let stranger = scene.call_as("aegis_agt_made_up", "GET", REPO).await?;
    teller.claim("a made-up token is refused", stranger.status == 401, told(&stranger));

    merge(scene, teller).await?;

    teller.narrator.heading("And it ends when you say so");
    scene.admin("POST", &format!("/v1/agents/{agent_id}/revoke"), None).await?;
    let before = scene.origin.count();
    let after = scene.call("GET", REPO, None).await?;
    teller.claim("the agent is revoked, and its next request refused", after.status == 401, told(&after));
    teller.claim("the origin saw nothing of it", scene.origin.count() == before, "in force at once");
    Ok(())
}

async fn merge(scene: &mut Scene, teller: &mut Teller) -> Result<(), CliError> {
    teller.narrator.heading("What a person has to agree to waits for one");
    let path = format!("{REPO}/pulls/7/merge");
    let body = || Some(json!({"merge_method": "squash"}));
    let asked = scene.call("PUT", &path, body()).await?;
    let approval = asked.header("aegis-approval").unwrap_or_default().to_owned();
    let waits = asked.status == 403 && asked.is("aegis-decision", "require_approval") && !approval.is_empty();
    teller.claim("it merges into a protected branch: a person has to agree", waits, told(&asked));
    teller.claim(
        "nothing is merged yet",
        scene.origin.merges() == 0,
        "the gateway only looked whether the branch is protected",
    );
    let own = scene.own_approval(&approval).await?;
    teller.claim("the agent cannot approve its own request", own == 401 || own == 403, format!("answered {own}"));
    let settled = scene.approve(&approval).await?;
    let approved = settled.get("status") == Some(&Value::from("approved"));
    teller.claim(
        "an approver agrees to exactly this merge",
        approved,
        format!("{approval}, by `aegis approvals approve`"),
    );
    let done = scene.call("PUT", &path, body()).await?;
    teller.claim("the same request now goes through", done.status == 200 && scene.origin.merges() == 1, told(&done));
    let again = scene.call("PUT", &path, body()).await?;
    let refused = again.status == 403 && scene.origin.merges() == 1;
    teller.claim("and works once: sent again, it waits again", refused, told(&again));
    Ok(())
}

/// What is left when everything has stopped.
fn evidence(stage: Stage, teller: &mut Teller) -> Result<(), CliError> {
    teller.narrator.heading("The proof");
    let strangers = stage.origin.unauthorised();
    teller.claim(
        "every request at the origin carried the real credential",
        strangers == 0,
        format!("{} requests", stage.origin.count()),
    );
    let token_there = stage.origin.mentions(stage.agent_token.expose());
    teller.claim("and none the agent's token", !token_there, "it ends at the gateway");
    let forms = scan::forms(stage.credential.expose());
    let in_transcript = scan::finds(&forms, &stage.transcript);
    let bytes = stage.transcript.len();
    teller.claim(
        "the agent never saw the real credential",
        !in_transcript,
        format!("{bytes} bytes of answers, raw, base64, hex and URL form"),
    );
    let (files, found) = scan::folder(&forms, stage.folder.path())?;
    let detail = found.first().cloned().unwrap_or_else(|| format!("{files} files: database, receipts, vault, keys"));
    teller.claim("nor is it readable in any file of the gateway", files > 3 && found.is_empty(), detail);
    let report = aegis_receipts::verify::verify_dir(&stage.receipts);
    let detail = format!("{} leaves, {} bytes, by the offline verifier", report.leaves, report.bytes);
    teller.claim("the record of all of it verifies", report.is_verified() && report.leaves > 10, detail);
    let folder = stage.folder.path().to_owned();
    let removed = stage.folder.close().is_ok() && !folder.exists();
    teller.claim("the folder is gone", removed, folder.display().to_string());
    Ok(())
}

/// Status, decision, reason and receipt, as far as there are any.
fn told(answer: &Answer) -> String {
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let status = Some(answer.status.to_string());
    let parts = [status, header("aegis-decision"), header("aegis-reason"), header("aegis-receipt")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

const REPO: &str = "/repos/octo/hello";
