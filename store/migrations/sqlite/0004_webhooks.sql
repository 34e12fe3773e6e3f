-- `next_seq`: everything of the node's log below it is delivered to the webhook, or nothing that it wants.
CREATE TABLE webhook_cursors (
    webhook  TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    next_seq INTEGER NOT NULL CHECK (next_seq >= 0),
    PRIMARY KEY (webhook, node)
) STRICT, WITHOUT ROWID;
