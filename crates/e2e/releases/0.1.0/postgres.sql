--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: counter; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.counter (
    name text NOT NULL,
    value bigint NOT NULL
);


--
-- Name: deployment; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.deployment (
    id bigint NOT NULL,
    name text,
    state text NOT NULL,
    replicas bigint NOT NULL,
    revision bigint NOT NULL,
    serving_revision bigint,
    generation bigint NOT NULL,
    settled_generation bigint,
    fence bigint DEFAULT 0 NOT NULL,
    lease_owner text,
    lease_until bigint DEFAULT 0 NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    deleting_since bigint,
    model_name text,
    model_version text,
    spec text NOT NULL,
    status text NOT NULL
);


--
-- Name: deployment_label; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.deployment_label (
    deployment bigint NOT NULL,
    name text NOT NULL,
    value text NOT NULL
);


--
-- Name: event; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.event (
    id bigint NOT NULL,
    deployment bigint NOT NULL,
    revision bigint,
    at bigint NOT NULL,
    actor text NOT NULL,
    kind text NOT NULL,
    message text NOT NULL,
    evidence text NOT NULL
);


--
-- Name: gone; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.gone (
    deployment bigint NOT NULL,
    at bigint NOT NULL
);


--
-- Name: idempotency; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.idempotency (
    name text NOT NULL,
    payload text NOT NULL,
    deployment bigint NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: model; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.model (
    name text NOT NULL,
    created_at bigint NOT NULL,
    spec text NOT NULL
);


--
-- Name: model_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.model_version (
    model text NOT NULL,
    version text NOT NULL,
    created_at bigint NOT NULL,
    format text,
    content text NOT NULL
);


--
-- Name: modelway_schema; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.modelway_schema (
    version bigint NOT NULL
);


--
-- Name: property; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.property (
    name text NOT NULL,
    value text NOT NULL
);


--
-- Name: revision; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.revision (
    deployment bigint NOT NULL,
    number bigint NOT NULL,
    created_at bigint NOT NULL,
    model_name text,
    model_version text,
    spec text NOT NULL
);


--
-- Name: route; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.route (
    deployment bigint NOT NULL,
    version bigint NOT NULL,
    route text
);


--
-- Name: task; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.task (
    deployment bigint NOT NULL,
    due_at bigint NOT NULL,
    token text,
    again_at bigint
);


--
-- Name: worker; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.worker (
    id text NOT NULL,
    scope text NOT NULL,
    address text NOT NULL,
    seen_at bigint NOT NULL
);


--
-- Data for Name: counter; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.counter VALUES ('route_pruned', 0);
INSERT INTO public.counter VALUES ('worker', 1);
INSERT INTO public.counter VALUES ('deployment', 5);
INSERT INTO public.counter VALUES ('event', 20);
INSERT INTO public.counter VALUES ('route', 19);


--
-- Data for Name: deployment; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.deployment VALUES (2, 'by-name', 'active', 2, 1, 1, 2, 2, 8, NULL, 0, 1795865309109798, 1795865309417697, NULL, 'flowers', '1', '{"name":"by-name","labels":{},"type":"cpu","model":{"name":"flowers","version":"1"},"replicas":2,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}', '{"status":"active","ready_replicas":2,"serving_revision":1,"artifact":"@FOLDER@/models/iris","error":null,"notes":[],"replica_status":[{"id":"md-2-r1-0","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:29.128033"},{"id":"md-2-r1-1","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:29.425372"}]}');
INSERT INTO public.deployment VALUES (4, 'broken', 'failed', 1, 1, NULL, 1, NULL, 4, NULL, 0, 1795865309174648, 1795865309174648, NULL, NULL, NULL, '{"name":"broken","labels":{},"type":"cpu","model":{"version":"1","type":"single","bucket":"@FOLDER@/models/broken","prefix":""},"replicas":1,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}', '{"status":"failed","ready_replicas":0,"serving_revision":null,"artifact":null,"error":{"code":"model_invalid","message":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing","revision":1,"log":["error: @FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing"]},"notes":[],"replica_status":[{"id":"md-4-r1-0","revision":1,"state":"backing_off","restarts":0,"started_at":null,"reason":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing"}]}');
INSERT INTO public.deployment VALUES (3, 'idle', 'idle', 0, 2, NULL, 2, 2, 2, NULL, 0, 1795865309119836, 1795865309423872, NULL, NULL, NULL, '{"name":"idle","labels":{},"type":"cpu","model":{"version":"2","type":"single","bucket":"@FOLDER@/models/iris","prefix":""},"replicas":0,"request_res":{},"limit_res":{},"env":{},"env_from_file":{},"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}', '{"status":"idle","ready_replicas":0,"serving_revision":null,"artifact":null,"error":null,"notes":[],"replica_status":[]}');
INSERT INTO public.deployment VALUES (1, 'iris', 'active', 1, 2, 2, 3, NULL, 8, NULL, 0, 1795865309100117, 1795865309346973, NULL, NULL, NULL, '{"name":"iris","labels":{"team":"garden"},"type":"cpu","model":{"version":"v1","type":"single","bucket":"@FOLDER@/models/iris","prefix":""},"replicas":1,"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"blue"},"env_from_file":{},"request_timeout_ms":20000,"idempotent":false,"log_payloads":"all"}', '{"status":"active","ready_replicas":2,"serving_revision":2,"artifact":"@FOLDER@/models/iris","error":null,"notes":[],"replica_status":[{"id":"md-1-r1-0","revision":1,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:29.116188"},{"id":"md-1-r2-0","revision":2,"state":"ready","restarts":0,"started_at":"2026-11-28T11:28:29.357751"}]}');


--
-- Data for Name: deployment_label; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.deployment_label VALUES (1, 'team', 'garden');


--
-- Data for Name: event; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.event VALUES (1, 1, 1, 1795865309100117, 'user', 'created', 'created md-1 (iris)', 'null');
INSERT INTO public.event VALUES (2, 2, 1, 1795865309109798, 'user', 'created', 'created md-2 (by-name)', 'null');
INSERT INTO public.event VALUES (3, 3, 1, 1795865309119836, 'user', 'created', 'created md-3', 'null');
INSERT INTO public.event VALUES (4, 3, 1, 1795865309176924, 'worker', 'idle', 'it is scaled to 0 replicas', '{"ready":0,"wanted":0,"restarts":0}');
INSERT INTO public.event VALUES (5, 4, 1, 1795865309174648, 'user', 'created', 'created md-4 (broken)', 'null');
INSERT INTO public.event VALUES (6, 1, 1, 1795865309238884, 'worker', 'active', 'it serves as it should: 1 of 1 replicas are ready', '{"ready":1,"wanted":1,"restarts":0}');
INSERT INTO public.event VALUES (7, 2, 1, 1795865309278521, 'worker', 'active', 'it serves as it should: 1 of 1 replicas are ready', '{"ready":1,"wanted":1,"restarts":0}');
INSERT INTO public.event VALUES (8, 4, 1, 1795865309301252, 'worker', 'failed', '@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing', '{"ready":0,"wanted":1,"restarts":0}');
INSERT INTO public.event VALUES (9, 1, NULL, 1795865309338043, 'user', 'updated', 'changed: labels', '{"fields":["labels"]}');
INSERT INTO public.event VALUES (10, 1, 2, 1795865309346973, 'user', 'revision_created', 'revision 2 is wanted in place of 1', 'null');
INSERT INTO public.event VALUES (11, 1, 2, 1795865309407472, 'worker', 'traffic_moved', 'traffic moved from revision 1 to 2, whose replicas are ready', '{"ready":2,"wanted":1,"restarts":0}');
INSERT INTO public.event VALUES (12, 2, NULL, 1795865309417697, 'user', 'scaled', 'replicas: 1 → 2', '{"from":1,"to":2}');
INSERT INTO public.event VALUES (13, 3, 2, 1795865309423872, 'user', 'revision_created', 'revision 2 is wanted in place of 1', 'null');
INSERT INTO public.event VALUES (14, 3, NULL, 1795865309423872, 'user', 'updated', 'changed: name', '{"fields":["name"]}');
INSERT INTO public.event VALUES (15, 3, 2, 1795865309442130, 'worker', 'idle', 'it is scaled to 0 replicas', '{"ready":0,"wanted":0,"restarts":0}');
INSERT INTO public.event VALUES (16, 5, 1, 1795865309448040, 'user', 'created', 'created md-5 (gone)', 'null');
INSERT INTO public.event VALUES (17, 5, NULL, 1795865309454682, 'user', 'deletion_requested', 'deletion of md-5 (gone) was asked for', 'null');
INSERT INTO public.event VALUES (18, 5, 1, 1795865309458675, 'worker', 'idle', 'it is scaled to 0 replicas', '{"ready":0,"wanted":0,"restarts":0}');
INSERT INTO public.event VALUES (19, 5, NULL, 1795865309471555, 'worker', 'deleted', 'md-5 is gone', 'null');
INSERT INTO public.event VALUES (20, 2, 1, 1795865309492642, 'worker', 'active', 'it serves as it should: 2 of 2 replicas are ready', '{"ready":2,"wanted":2,"restarts":0}');


--
-- Data for Name: gone; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.gone VALUES (5, 1795865309471555);


--
-- Data for Name: idempotency; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.idempotency VALUES ('three', 'c11189ef97ef4d154ff88e07df58fb739c78151d53e2d8a55103838c7c2e80f7', 3, 1795865309119836);


--
-- Data for Name: model; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.model VALUES ('flowers', 1795865309071488, '{"name":"flowers","description":"iris","labels":{"team":"botany"}}');


--
-- Data for Name: model_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.model_version VALUES ('flowers', '1', 1795865309081626, 'onnx', '{"artifact":{"uris":["@FOLDER@/models/iris"],"digest":null}}');


--
-- Data for Name: modelway_schema; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.modelway_schema VALUES (1);
INSERT INTO public.modelway_schema VALUES (2);


--
-- Data for Name: property; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.property VALUES ('epoch', 'd60e9b56-c543-45b6-a410-f8c726501f35');


--
-- Data for Name: revision; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.revision VALUES (1, 1, 1795865309100117, NULL, NULL, '{"name":"iris","machine":"cpu","model_version":"v1","content":{"artifact":{"uris":["@FOLDER@/models/iris/v1","@FOLDER@/models/iris"],"digest":null}},"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"red"},"request_timeout_ms":20000}');
INSERT INTO public.revision VALUES (2, 1, 1795865309109798, 'flowers', '1', '{"name":"by-name","machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO public.revision VALUES (3, 1, 1795865309119836, NULL, NULL, '{"name":null,"machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/iris/1","@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO public.revision VALUES (4, 1, 1795865309174648, NULL, NULL, '{"name":"broken","machine":"cpu","model_version":"1","content":{"artifact":{"uris":["@FOLDER@/models/broken/1","@FOLDER@/models/broken"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');
INSERT INTO public.revision VALUES (1, 2, 1795865309346973, NULL, NULL, '{"name":"iris","machine":"cpu","model_version":"v1","content":{"artifact":{"uris":["@FOLDER@/models/iris/v1","@FOLDER@/models/iris"],"digest":null}},"request_res":{"cpu":"50m","memory":"64Mi"},"limit_res":{"cpu":"1","memory":"1Gi"},"env":{"COLOUR":"blue"},"request_timeout_ms":20000}');
INSERT INTO public.revision VALUES (3, 2, 1795865309423872, NULL, NULL, '{"name":"idle","machine":"cpu","model_version":"2","content":{"artifact":{"uris":["@FOLDER@/models/iris/2","@FOLDER@/models/iris"],"digest":null}},"request_res":{},"limit_res":{},"env":{},"request_timeout_ms":30000}');


--
-- Data for Name: route; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.route VALUES (4, 11, '{"name":"broken","state":"failed","reason":"@FOLDER@/models/broken/model.onnx cannot be loaded: it is no ONNX model, or its end is missing","revisions":[],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');
INSERT INTO public.route VALUES (1, 12, '{"name":"iris","state":"active","revisions":[{"number":2,"model_version":"v1","weight":100,"replicas":[{"id":"md-1-r2-0","address":"unix:@FOLDER@/data/sockets/md-1-r2-0.sock"}]}],"request_timeout_ms":20000,"idempotent":false,"log_payloads":"all"}');
INSERT INTO public.route VALUES (3, 14, '{"name":"idle","state":"idle","reason":"it is scaled to 0 replicas; scale it up to serve","revisions":[],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');
INSERT INTO public.route VALUES (5, 18, NULL);
INSERT INTO public.route VALUES (2, 19, '{"name":"by-name","state":"active","revisions":[{"number":1,"model_version":"1","weight":100,"replicas":[{"id":"md-2-r1-0","address":"unix:@FOLDER@/data/sockets/md-2-r1-0.sock"},{"id":"md-2-r1-1","address":"unix:@FOLDER@/data/sockets/md-2-r1-1.sock"}]}],"request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}');


--
-- Data for Name: task; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.task VALUES (1, 1795865310048646, NULL, NULL);


--
-- Data for Name: worker; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: counter counter_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.counter
    ADD CONSTRAINT counter_pkey PRIMARY KEY (name);


--
-- Name: deployment_label deployment_label_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployment_label
    ADD CONSTRAINT deployment_label_pkey PRIMARY KEY (deployment, name);


--
-- Name: deployment deployment_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployment
    ADD CONSTRAINT deployment_name_key UNIQUE (name);


--
-- Name: deployment deployment_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployment
    ADD CONSTRAINT deployment_pkey PRIMARY KEY (id);


--
-- Name: event event_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (id);


--
-- Name: gone gone_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.gone
    ADD CONSTRAINT gone_pkey PRIMARY KEY (deployment);


--
-- Name: idempotency idempotency_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (name);


--
-- Name: model model_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model
    ADD CONSTRAINT model_pkey PRIMARY KEY (name);


--
-- Name: model_version model_version_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_version
    ADD CONSTRAINT model_version_pkey PRIMARY KEY (model, version);


--
-- Name: modelway_schema modelway_schema_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.modelway_schema
    ADD CONSTRAINT modelway_schema_pkey PRIMARY KEY (version);


--
-- Name: property property_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.property
    ADD CONSTRAINT property_pkey PRIMARY KEY (name);


--
-- Name: revision revision_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision
    ADD CONSTRAINT revision_pkey PRIMARY KEY (deployment, number);


--
-- Name: route route_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.route
    ADD CONSTRAINT route_pkey PRIMARY KEY (deployment);


--
-- Name: route route_version_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.route
    ADD CONSTRAINT route_version_key UNIQUE (version);


--
-- Name: task task_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (deployment);


--
-- Name: worker worker_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);


--
-- Name: deployment_by_model; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX deployment_by_model ON public.deployment USING btree (model_name, model_version, id);


--
-- Name: deployment_by_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX deployment_by_state ON public.deployment USING btree (state, id);


--
-- Name: deployment_label_by_value; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX deployment_label_by_value ON public.deployment_label USING btree (name, value, deployment);


--
-- Name: event_by_deployment; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX event_by_deployment ON public.event USING btree (deployment, id);


--
-- Name: gone_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX gone_by_time ON public.gone USING btree (at);


--
-- Name: idempotency_by_age; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idempotency_by_age ON public.idempotency USING btree (created_at);


--
-- Name: revision_by_model; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX revision_by_model ON public.revision USING btree (model_name, model_version);


--
-- Name: route_tombstone; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX route_tombstone ON public.route USING btree (version) WHERE (route IS NULL);


--
-- Name: task_by_due; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX task_by_due ON public.task USING btree (due_at);


--
-- Name: deployment_label deployment_label_deployment_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployment_label
    ADD CONSTRAINT deployment_label_deployment_fkey FOREIGN KEY (deployment) REFERENCES public.deployment(id) ON DELETE CASCADE;


--
-- Name: deployment deployment_model_name_model_version_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.deployment
    ADD CONSTRAINT deployment_model_name_model_version_fkey FOREIGN KEY (model_name, model_version) REFERENCES public.model_version(model, version);


--
-- Name: model_version model_version_model_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_version
    ADD CONSTRAINT model_version_model_fkey FOREIGN KEY (model) REFERENCES public.model(name);


--
-- Name: revision revision_deployment_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision
    ADD CONSTRAINT revision_deployment_fkey FOREIGN KEY (deployment) REFERENCES public.deployment(id) ON DELETE CASCADE;


--
-- Name: revision revision_model_name_model_version_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision
    ADD CONSTRAINT revision_model_name_model_version_fkey FOREIGN KEY (model_name, model_version) REFERENCES public.model_version(model, version);


--
-- PostgreSQL database dump complete
--


