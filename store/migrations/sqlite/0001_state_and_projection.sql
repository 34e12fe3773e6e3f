-- Times are milliseconds since the Unix epoch, hashes are 32 raw bytes, lists are JSON arrays.

CREATE TABLE agents (
    ordinal        INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id       TEXT    NOT NULL UNIQUE,
    agent_key      TEXT    NOT NULL UNIQUE,
    tenant         TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    owner_team     TEXT    NOT NULL,
    owner_email    TEXT    NOT NULL,
    environment    TEXT    NOT NULL,
    risk_tier      TEXT    NOT NULL,
    framework      TEXT,
    purpose        TEXT,
    model_provider TEXT,
    model_name     TEXT,
    bind_cidr      TEXT    NOT NULL CHECK (json_valid(bind_cidr)),
    state          TEXT    NOT NULL CHECK (state IN ('active', 'frozen', 'quarantined', 'revoked', 'expired')),
    created_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL CHECK (version >= 0)
) STRICT;

CREATE TABLE agent_tokens (
    token_hash BLOB    PRIMARY KEY CHECK (length(token_hash) = 32),
    agent_id   TEXT    NOT NULL REFERENCES agents (agent_id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_tokens_by_agent ON agent_tokens (agent_id);

CREATE TABLE people (
    ordinal    INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id  TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL CHECK (role IN ('admin', 'approver')),
    groups     TEXT    NOT NULL CHECK (json_valid(groups)),
    token_hash BLOB    NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked    INTEGER NOT NULL CHECK (revoked IN (0, 1))
) STRICT;

-- `expired` is never written: a pending or approved row past `expires_at` reads as expired.
CREATE TABLE approvals (
    ordinal        INTEGER PRIMARY KEY AUTOINCREMENT,
    approval_id    TEXT    NOT NULL UNIQUE,
    tenant         TEXT    NOT NULL,
    agent_id       TEXT    NOT NULL REFERENCES agents (agent_id),
    route          TEXT    NOT NULL,
    action_hash    BLOB    NOT NULL CHECK (length(action_hash) = 32),
    version        TEXT,
    groups         TEXT    NOT NULL CHECK (json_valid(groups)),
    quorum         INTEGER NOT NULL CHECK (quorum >= 1),
    status         TEXT    NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'expired', 'consumed', 'cancelled')),
    action         TEXT    NOT NULL,
    resource       TEXT,
    risk           TEXT    NOT NULL,
    source_trust   TEXT    NOT NULL,
    sealed_payload BLOB,
    policies       TEXT    NOT NULL CHECK (json_valid(policies)),
    snapshot       BLOB    NOT NULL CHECK (length(snapshot) = 32),
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    settled_at     INTEGER,
    settled_by     TEXT    NOT NULL CHECK (json_valid(settled_by))
) STRICT;

CREATE INDEX approvals_by_action ON approvals (agent_id, action_hash, route);
CREATE INDEX approvals_by_status ON approvals (status, ordinal);
CREATE INDEX approvals_to_erase ON approvals (expires_at) WHERE sealed_payload IS NOT NULL;

CREATE TABLE idempotency (
    agent_id   TEXT    NOT NULL REFERENCES agents (agent_id),
    request_id TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL CHECK (length(body_hash) = 32),
    answer     TEXT             CHECK (answer IS NULL OR json_valid(answer)),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- AUTOINCREMENT: a position is never given out twice, so the order survives deletions.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT    NOT NULL UNIQUE,
    kind     TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    body     TEXT    NOT NULL CHECK (json_valid(body))
) STRICT;

CREATE TABLE leaves (
    node         TEXT    NOT NULL,
    seq          INTEGER NOT NULL CHECK (seq >= 0),
    receipt_hash BLOB    NOT NULL CHECK (length(receipt_hash) = 32),
    kind         TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    decision_id  TEXT,
    agent_id     TEXT,
    action       TEXT,
    resource     TEXT,
    decision     TEXT,
    leaf         TEXT    NOT NULL CHECK (json_valid(leaf)),
    is_intent    INTEGER NOT NULL CHECK (is_intent IN (0, 1)),
    PRIMARY KEY (node, seq)
) STRICT;

CREATE INDEX leaves_intents ON leaves (seq) WHERE is_intent = 1;
CREATE INDEX leaves_intents_by_agent ON leaves (agent_id, seq) WHERE is_intent = 1;
CREATE INDEX leaves_intents_by_action ON leaves (action, seq) WHERE is_intent = 1;
CREATE INDEX leaves_intents_by_decision ON leaves (decision, seq) WHERE is_intent = 1;

-- Which leaf holds the outcome of a decision; one leaf may hold the outcomes of many reads.
CREATE TABLE leaf_outcomes (
    decision_id TEXT    NOT NULL,
    node        TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    PRIMARY KEY (decision_id, node, seq),
    FOREIGN KEY (node, seq) REFERENCES leaves (node, seq) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX leaf_outcomes_by_leaf ON leaf_outcomes (node, seq);

-- `next_seq`: everything below it is projected, without a gap.
CREATE TABLE projection_progress (
    node     TEXT    PRIMARY KEY,
    next_seq INTEGER NOT NULL CHECK (next_seq >= 0)
) STRICT, WITHOUT ROWID;

-- One row that the health check writes.
CREATE TABLE health (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    checks INTEGER NOT NULL
) STRICT;

INSERT INTO health (id, checks) VALUES (1, 0);
