//! How far each webhook has been told.

use super::*;

pub async fn a_cursor_is_where_it_was_put_last(made: &Made) {
    assert_eq!(made.two.webhook_cursor("ops", "n1").await.unwrap(), None);
    made.one.put_webhook_cursor("ops", "n1", 7).await.unwrap();
    assert_eq!(made.two.webhook_cursor("ops", "n1").await.unwrap(), Some(7));
    made.one.put_webhook_cursor("ops", "n1", 9).await.unwrap();
    made.one.put_webhook_cursor("other", "n1", 1).await.unwrap();
    made.two.put_webhook_cursor("ops", "n2", 0).await.unwrap();
    assert_eq!(made.two.webhook_cursor("ops", "n1").await.unwrap(), Some(9));
    assert_eq!(made.two.webhook_cursor("other", "n1").await.unwrap(), Some(1));
    assert_eq!(made.one.webhook_cursor("ops", "n2").await.unwrap(), Some(0));
    // A log that was put back to an earlier state is told from there.
    made.one.put_webhook_cursor("ops", "n1", 3).await.unwrap();
    assert_eq!(made.two.webhook_cursor("ops", "n1").await.unwrap(), Some(3));
    conflict(made.one.put_webhook_cursor("ops", "n1", u64::MAX).await, "next_seq");
    assert_eq!(made.two.webhook_cursor("ops", "n1").await.unwrap(), Some(3));
}

pub async fn cursors_of_webhooks_that_are_gone_are_forgotten(made: &Made) {
    for (webhook, node) in [("a", "n1"), ("b", "n1"), ("b", "n2")] {
        made.one.put_webhook_cursor(webhook, node, 5).await.unwrap();
    }
    made.two.keep_webhook_cursors(&["a".into(), "c".into()], "n1").await.unwrap();
    assert_eq!(made.one.webhook_cursor("a", "n1").await.unwrap(), Some(5));
    assert_eq!(made.one.webhook_cursor("b", "n1").await.unwrap(), None);
    assert_eq!(made.one.webhook_cursor("b", "n2").await.unwrap(), Some(5), "another node's stay");
    made.two.keep_webhook_cursors(&[], "n1").await.unwrap();
    assert_eq!(made.one.webhook_cursor("a", "n1").await.unwrap(), None);
}
