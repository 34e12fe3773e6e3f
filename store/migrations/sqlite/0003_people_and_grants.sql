-- Who an approver is; compared with the owner of an agent where an action is critical.
ALTER TABLE people ADD COLUMN email TEXT;

-- A person's yes in advance, for one agent, one action and one resource, until an instant.
CREATE TABLE grants (
    ordinal    INTEGER PRIMARY KEY AUTOINCREMENT,
    grant_id   TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    agent_id   TEXT    NOT NULL REFERENCES agents (agent_id),
    action     TEXT    NOT NULL,
    resource   TEXT,
    groups     TEXT    NOT NULL CHECK (json_valid(groups)),
    person_id  TEXT    NOT NULL REFERENCES people (person_id),
    reason     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE INDEX grants_by_action ON grants (agent_id, action, expires_at);

-- Rows that may have to be told that they are over.
CREATE INDEX approvals_open_by_expiry ON approvals (expires_at) WHERE status IN ('pending', 'approved');
