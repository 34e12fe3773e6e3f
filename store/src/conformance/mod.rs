//! What every `Store` must do, as one suite: `suite!(name, make)` makes a test of each promise.
//!
//! `make` gives a fresh, empty database with two handles that share no connection, like two
//! processes (a database in memory has one handle twice).

pub mod agents;
pub mod approvals;
pub mod grants;
pub mod idempotency;
pub mod outbox;
pub mod people;
pub mod projection;
pub mod races;
mod records;
pub mod sessions;
pub mod webhooks;

use std::sync::Arc;

use aegis_broker::store::Store;

pub use records::*;

/// A fresh database.
pub struct Made {
    pub one: Arc<dyn Store>,
    pub two: Arc<dyn Store>,
    /// Whatever must live as long as the database.
    pub _keep: Box<dyn std::any::Any + Send + Sync>,
}

macro_rules! cases {
    ($name:ident, $make:path, $($group:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $name {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let made = $make().await;
                    $crate::conformance::$group::$case(&made).await;
                }
            )*)*
        }
    };
}

macro_rules! suite {
    ($name:ident, $make:path) => {
        $crate::conformance::cases! {
            $name, $make,
            agents: [
                an_agent_comes_back_as_it_was_added,
                keys_ids_and_tokens_are_taken_once,
                a_transition_needs_its_starting_state_and_counts_the_version,
                revoked_is_final,
                rotation_ends_earlier_tokens_and_never_prolongs_them,
                rotation_changes_the_version_that_caches_are_keyed_by,
                agents_are_listed_oldest_first,
            ],
            sessions: [
                a_session_is_a_token_of_its_own,
                only_an_active_agent_starts_a_session,
                a_session_is_renewed_until_it_ends_and_not_after,
                a_session_ends_once_and_alone,
                rotation_leaves_sessions_alone,
                long_ended_sessions_are_forgotten,
            ],
            people: [
                a_person_comes_back_as_they_were_added,
                access_ends_once,
                a_slack_user_is_of_one_person_with_access,
            ],
            approvals: [
                the_same_question_is_asked_once,
                another_version_route_or_action_is_another_question,
                an_approval_must_start_pending,
                a_yes_approves_and_a_no_rejects,
                a_quorum_is_of_distinct_people,
                one_no_ends_a_quorum,
                only_people_with_access_settle,
                the_hour_of_expiry_counts_as_expired,
                expired_approvals_cannot_be_settled_or_consumed,
                consumption_needs_the_agent_and_the_hash_and_happens_once,
                settlement_erases_the_payload,
                expiry_erases_the_payload,
                approvals_are_listed_newest_first_by_the_status_they_read_as,
                an_agent_has_so_many_questions_open,
                a_vote_on_what_was_seen_needs_that_still_to_be_so,
                what_is_over_is_told_once,
            ],
            grants: [
                a_grant_holds_for_its_agent_action_and_resource_until_its_end,
                a_grant_ends_once,
                grants_end_with_the_access_of_who_gave_them,
            ],
            idempotency: [
                a_key_binds_to_its_body,
                an_answer_is_replayed_until_the_key_expires,
                a_released_key_starts_anew_and_an_answered_one_stays,
                keys_do_not_outlive_a_freeze,
                an_inactive_agent_claims_nothing,
                agents_do_not_share_keys,
                expired_keys_do_not_pile_up,
            ],
            outbox: [
                events_come_back_in_order_until_they_are_done,
                a_refused_transition_leaves_no_event,
                a_refused_event_leaves_no_transition,
                a_dropped_call_leaves_all_or_nothing,
            ],
            projection: [
                a_replay_changes_nothing,
                progress_stops_at_the_first_gap,
                decisions_are_filtered_and_paged_newest_first,
                an_outcome_is_found_alone_or_merged_with_others,
                a_cleared_projection_replays,
                a_number_that_sql_cannot_hold_is_refused_whole,
            ],
            webhooks: [
                a_cursor_is_where_it_was_put_last,
                cursors_of_webhooks_that_are_gone_are_forgotten,
            ],
            races: [
                of_64_racing_consumptions_one_succeeds,
                of_64_racing_transitions_one_succeeds,
                of_64_racing_questions_one_is_asked,
                of_64_racing_claims_one_is_fresh,
                of_64_racing_ends_of_a_session_one_succeeds,
                racing_votes_of_a_quorum_approve_once,
                one_persons_racing_votes_count_once,
                health_holds_while_others_write,
            ],
        }
    };
}

pub(crate) use {cases, suite};
