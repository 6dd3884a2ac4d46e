BEGIN TRANSACTION;
CREATE TABLE counter (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO "counter" VALUES('deployment',5);
INSERT INTO "counter" VALUES('event',19);
INSERT INTO "counter" VALUES('route',18);
INSERT INTO "counter" VALUES('worker',1);
INSERT INTO "counter" VALUES('route_pruned',0);
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
INSERT INTO "deployment" VALUES(1,'iris','active',1,2,2,3,NULL,6,NULL,0,1795865307376421,1795865307584258,NULL,NULL,NULL,'{"name":"iris","labels":{"team":"garden"},"type":"cpu","model":{"version":"v1","type":"single","bucket":"@FOLDER@/models/iris","prefix":""},"replicas":1,"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"blue"},"env_from_file":{},"request_timeout_ms":20000,"idempotent":false,"log_payloads":"all"}','{"status":"active","ready_replicas":2,"serving_revision":2,"artifact":"@FOLDER@/models/iris","error":null,"notes":[],"replica_status":[{"id":"md-1-r1-0","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:27.389522"},{"id":"md-1-r2-0","revision":2,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:27.594254"}]}');
INSERT INTO "deployment" VALUES(2,'by-name','active',2,1,1,2,2,8,NULL,0,1795865307382690,1795865307684475,NULL,'flowers','1','{"name":"by-name","labels":{},"type":"cpu","model":{"name":"flowers","version":"1"},"replicas":2,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}','{"status":"active","ready_replicas":2,"serving_revision":1,"artifact":"@FOLDER@/models/iris","error":null,"notes":[],"replica_status":[{"id":"md-2-r1-0","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:27.400784"},{"id":"md-2-r1-1","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:27.690737"}]}');
INSERT INTO "deployment" VALUES(3,'idle','idle',0,2,NULL,2,2,2,NULL,0,1795865307388514,1795865307690277,NULL,NULL,NULL,'{"name":"idle","labels":{},"type":"cpu","model":{"version":"2","type":"single","bucket":"@FOLDER@/models/iris","prefix":""},"replicas":0,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}','{"status":"idle","ready_replicas":0,"serving_revision":null,"artifact":null,"error":null,"notes":[],"replica_status":[]}');
INSERT INTO "deployment" VALUES(4,'broken','failed',1,1,NULL,1,NULL,4,NULL,0,1795865307399722,1795865307399722,NULL,NULL,NULL,'{"name":"broken","labels":{},"type":"cpu","model":{"version":"1","type":"single","bucket":"@FOLDER@/models/broken","prefix":""},"replicas":1,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}','{"status":"failed","ready_replicas":0,"serving_revision":null,"artifact":null,"error":{"code":"model_invalid","message":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing","revision":1,"log":["error: @FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing"]},"notes":[],"replica_status":[{"id":"md-4-r1-0","revision":1,"state":"backing_off","restarts":0,"started_at":null,"reason":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing"}]}');
CREATE TABLE deployment_label (
    deployment BIGINT NOT NULL REFERENCES deployment (id) ON DELETE CASCADE,
    name       TEXT   NOT NULL,
    value      TEXT   NOT NULL,
    PRIMARY KEY (deployment, name)
);
INSERT INTO "deployment_label" VALUES(1,'team','garden');
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
INSERT INTO "event" VALUES(1,1,1,1795865307376421,'user','created','created md-1 (iris)','null');
INSERT INTO "event" VALUES(2,2,1,1795865307382690,'user','created','created md-2 (by-name)','null');
INSERT INTO "event" VALUES(3,3,1,1795865307388514,'user','created','created md-3','null');
INSERT INTO "event" VALUES(4,4,1,1795865307399722,'user','created','created md-4 (broken)','null');
INSERT INTO "event" VALUES(5,3,1,1795865307401786,'worker','idle','it is scaled to 0 replicas','{"ready":0,"wanted":0,"restarts":0}');
INSERT INTO "event" VALUES(6,1,1,1795865307516782,'worker','active','it serves as it should: 1 of 1 replicas are ready','{"ready":1,"wanted":1,"restarts":0}');
INSERT INTO "event" VALUES(7,2,1,1795865307530330,'worker','active','it serves as it should: 1 of 1 replicas are ready','{"ready":1,"wanted":1,"restarts":0}');
INSERT INTO "event" VALUES(8,4,1,1795865307534725,'worker','failed','@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing','{"ready":0,"wanted":1,"restarts":0}');
INSERT INTO "event" VALUES(9,1,NULL,1795865307574908,'user','updated','changed: labels','{"fields":["labels"]}');
INSERT INTO "event" VALUES(10,1,2,1795865307584258,'user','revision_created','revision 2 is wanted in place of 1','null');
INSERT INTO "event" VALUES(11,1,2,1795865307649633,'worker','traffic_moved','traffic moved from revision 1 to 2, whose replicas are ready','{"ready":2,"wanted":1,"restarts":0}');
INSERT INTO "event" VALUES(12,2,NULL,1795865307684475,'user','scaled','replicas: 1 → 2','{"from":1,"to":2}');
INSERT INTO "event" VALUES(13,3,2,1795865307690277,'user','revision_created','revision 2 is wanted in place of 1','null');
INSERT INTO "event" VALUES(14,3,NULL,1795865307690277,'user','updated','changed: name','{"fields":["name"]}');
INSERT INTO "event" VALUES(15,5,1,1795865307704861,'user','created','created md-5 (gone)','null');
INSERT INTO "event" VALUES(16,3,2,1795865307706859,'worker','idle','it is scaled to 0 replicas','{"ready":0,"wanted":0,"restarts":0}');
INSERT INTO "event" VALUES(17,5,NULL,1795865307710446,'user','deletion_requested','deletion of md-5 (gone) was asked for','null');
INSERT INTO "event" VALUES(18,5,NULL,1795865307727258,'worker','deleted','md-5 is gone','null');
INSERT INTO "event" VALUES(19,2,1,1795865307748281,'worker','active','it serves as it should: 2 of 2 replicas are ready','{"ready":2,"wanted":2,"restarts":0}');
CREATE TABLE gone (
    deployment BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL
);
INSERT INTO "gone" VALUES(5,1795865307727258);
CREATE TABLE idempotency (
    name       TEXT   NOT NULL PRIMARY KEY,
    payload    TEXT   NOT NULL,
    deployment BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
INSERT INTO "idempotency" VALUES('three','46a8360b3b061046d567da9f76cf03e51d816b3471b0d3fe1fc0b0ba9273adbb',3,1795865307388514);
CREATE TABLE model (
    name       TEXT   NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    spec       TEXT   NOT NULL
);
INSERT INTO "model" VALUES('flowers',1795865307348784,'{"name":"flowers","description":"iris","labels":{"team":"botany"}}');
CREATE TABLE model_version (
    model      TEXT   NOT NULL REFERENCES model (name),
    version    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    format     TEXT,
    content    TEXT   NOT NULL,
    PRIMARY KEY (model, version)
);
INSERT INTO "model_version" VALUES('flowers','1',1795865307354899,'onnx','{"artifact":{"uris":["@FOLDER@/models/iris"],"digest":null}}');
CREATE TABLE modelway_schema (version BIGINT NOT NULL PRIMARY KEY);
INSERT INTO "modelway_schema" VALUES(1);
INSERT INTO "modelway_schema" VALUES(2);
CREATE TABLE property (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO "property" VALUES('epoch','0342f575-9f7b-4b71-a256-67e4a5d6660a');
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
INSERT INTO "revision" VALUES(1,1,1795865307376421,NULL,NULL,'{"name":"iris","machine":"cpu","model_version":"v1","content":{"artifact":{"uris":["@FOLDER@/models/iris/v1","@FOLDER@/models/iris"],"digest":null}},"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"red"},"request_timeout_ms":20000}');
INSERT INTO "revision" VALUES(2,1,1795865307382690,'flowers','1','{"name":"by-name","machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO "revision" VALUES(3,1,1795865307388514,NULL,NULL,'{"name":null,"machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/iris/1","@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO "revision" VALUES(4,1,1795865307399722,NULL,NULL,'{"name":"broken","machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/broken/1","@FOLDER@/models/broken"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO "revision" VALUES(1,2,1795865307584258,NULL,NULL,'{"name":"iris","machine":"cpu","model_version":"v1","content":{"artifact":{"uris":["@FOLDER@/models/iris/v1","@FOLDER@/models/iris"],"digest":null}},"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"blue"},"request_timeout_ms":20000}');
INSERT INTO "revision" VALUES(3,2,1795865307690277,NULL,NULL,'{"name":"idle","machine":"cpu","model_version":"2","content":{"artifact":{"uris":["@FOLDER@/models/iris/2","@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
CREATE TABLE route (
    deployment BIGINT NOT NULL PRIMARY KEY,
    version    BIGINT NOT NULL UNIQUE,
    route      TEXT
);
INSERT INTO "route" VALUES(1,12,'{"name":"iris","state":"active","revisions":[{"number":2,"model_version":"v1","weight":100,"replicas":[{"id":"md-1-r2-0","address":"unix:@FOLDER@/data/sockets/md-1-r2-0.sock"}]}],"request_timeout_ms":20000,"idempotent":false,"log_payloads":"all"}');
INSERT INTO "route" VALUES(2,18,'{"name":"by-name","state":"active","revisions":[{"number":1,"model_version":"1","weight":100,"replicas":[{"id":"md-2-r1-0","address":"unix:@FOLDER@/data/sockets/md-2-r1-0.sock"},{"id":"md-2-r1-1","address":"unix:@FOLDER@/data/sockets/md-2-r1-1.sock"}]}],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');
INSERT INTO "route" VALUES(3,13,'{"name":"idle","state":"idle","reason":"it is scaled to 0 replicas; scale it up to serve","revisions":[],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');
INSERT INTO "route" VALUES(4,11,'{"name":"broken","state":"failed","reason":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing","revisions":[],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');
INSERT INTO "route" VALUES(5,17,NULL);
CREATE TABLE task (
    deployment BIGINT NOT NULL PRIMARY KEY,
    due_at     BIGINT NOT NULL,
    token      TEXT,
    again_at   BIGINT
);
INSERT INTO "task" VALUES(1,1795865308313797,NULL,NULL);
CREATE TABLE worker (
    id      TEXT   NOT NULL PRIMARY KEY,
    scope   TEXT   NOT NULL,
    address TEXT   NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX deployment_by_state ON deployment (state, id);
CREATE INDEX deployment_by_model ON deployment (model_name, model_version, id);
CREATE INDEX deployment_label_by_value ON deployment_label (name, value, deployment);
CREATE INDEX revision_by_model ON revision (model_name, model_version);
CREATE INDEX event_by_deployment ON event (deployment, id);
CREATE INDEX task_by_due ON task (due_at);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX gone_by_time ON gone (at);
CREATE INDEX route_tombstone ON route (version) WHERE route IS NULL;
COMMIT;
