-- Runs on SQLite and PostgreSQL alike: columns are TEXT or BIGINT, times are microseconds since 1970,
-- structured values are JSON text. Large columns stand last, where SQLite can pass over them.

CREATE TABLE property (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Ids come from here and not from sequences: the row's lock makes the order of numbers the order of commits,
-- so a reader that goes on after the last number that it saw misses nothing.
CREATE TABLE counter (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('deployment', 0), ('event', 0), ('route', 0), ('worker', 0);

CREATE TABLE model (
    name       TEXT   NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    spec       TEXT   NOT NULL
);

CREATE TABLE model_version (
    model      TEXT   NOT NULL REFERENCES model (name),
    version    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    format     TEXT,
    content    TEXT   NOT NULL,
    PRIMARY KEY (model, version)
);

-- name, model_name and model_version become NULL when the deletion is asked for: they are free from then on.
CREATE TABLE deployment (
    id                 BIGINT NOT NULL PRIMARY KEY,
    name               TEXT UNIQUE,
    state              TEXT   NOT NULL,
    replicas           BIGINT NOT NULL,
    revision           BIGINT NOT NULL,
    serving_revision   BIGINT,
    generation         BIGINT NOT NULL,
    settled_generation BIGINT,
    fence              BIGINT NOT NULL DEFAULT 0,
    lease_owner        TEXT,
    lease_until        BIGINT NOT NULL DEFAULT 0,
    created_at         BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL,
    deleting_since     BIGINT,
    model_name         TEXT,
    model_version      TEXT,
    spec               TEXT   NOT NULL,
    status             TEXT   NOT NULL,
    FOREIGN KEY (model_name, model_version) REFERENCES model_version (model, version)
);
CREATE INDEX deployment_by_state ON deployment (state, id);
CREATE INDEX deployment_by_model ON deployment (model_name, model_version, id);

CREATE TABLE deployment_label (
    deployment BIGINT NOT NULL REFERENCES deployment (id) ON DELETE CASCADE,
    name       TEXT   NOT NULL,
    value      TEXT   NOT NULL,
    PRIMARY KEY (deployment, name)
);
CREATE INDEX deployment_label_by_value ON deployment_label (name, value, deployment);

CREATE TABLE revision (
    deployment    BIGINT NOT NULL REFERENCES deployment (id) ON DELETE CASCADE,
    number        BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    model_name    TEXT,
    model_version TEXT,
    spec          TEXT   NOT NULL,
    PRIMARY KEY (deployment, number),
    FOREIGN KEY (model_name, model_version) REFERENCES model_version (model, version)
);
CREATE INDEX revision_by_model ON revision (model_name, model_version);

-- A route of NULL is the tombstone of an endpoint that is gone.
CREATE TABLE route (
    deployment BIGINT NOT NULL PRIMARY KEY,
    version    BIGINT NOT NULL UNIQUE,
    route      TEXT
);

-- Outlives its deployment.
CREATE TABLE event (
    id         BIGINT NOT NULL PRIMARY KEY,
    deployment BIGINT NOT NULL,
    revision   BIGINT,
    at         BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    message    TEXT   NOT NULL,
    evidence   TEXT   NOT NULL
);
CREATE INDEX event_by_deployment ON event (deployment, id);

-- due_at is when anybody may take the task: of one that is held (token is set), the end of the lease.
-- again_at is when it is to come again because it was woken while held.
CREATE TABLE task (
    deployment BIGINT NOT NULL PRIMARY KEY,
    due_at     BIGINT NOT NULL,
    token      TEXT,
    again_at   BIGINT
);
CREATE INDEX task_by_due ON task (due_at);

CREATE TABLE worker (
    id      TEXT   NOT NULL PRIMARY KEY,
    scope   TEXT   NOT NULL,
    address TEXT   NOT NULL,
    seen_at BIGINT NOT NULL
);

CREATE TABLE idempotency (
    name       TEXT   NOT NULL PRIMARY KEY,
    payload    TEXT   NOT NULL,
    deployment BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
