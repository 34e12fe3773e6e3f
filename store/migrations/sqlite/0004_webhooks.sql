-- `next_seq`: everything of the node's log below it is delivered to the webhook, or nothing that it wants.
CREATE TABLE webhook_cursors (
    webhook  TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    next_seq INTEGER NOT NULL CHECK (next_seq >= 0),
    PRIMARY KEY (webhook, node)
) STRICT, WITHOUT ROWID;

-- Whose clicks in Slack count as whose: one approver with access for each Slack user.
ALTER TABLE people ADD COLUMN slack_user TEXT;

CREATE UNIQUE INDEX people_by_slack_user ON people (slack_user) WHERE slack_user IS NOT NULL AND revoked = 0;
