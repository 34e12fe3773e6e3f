-- A session is a token of its own: short-lived, renewed, ended alone. Null for an agent's other tokens.
ALTER TABLE agent_tokens ADD COLUMN session_id TEXT;

CREATE UNIQUE INDEX agent_tokens_by_session ON agent_tokens (session_id) WHERE session_id IS NOT NULL;
